package load_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/load"
)

var (
	pool       = load.Options{Pool: load.Traffic{Conns: 50, Rate: 2000}}
	spare      = load.Options{Spare: 4, SpareTime: 20 * time.Millisecond}
	torn       = load.Options{Torn: load.Traffic{Conns: 8, Rate: 1000}}
	byteByByte = load.Options{ByteByByte: load.Traffic{Conns: 4, Rate: 1000}}
	pipelined  = load.Options{Pipelined: load.Traffic{Conns: 4, Rate: 1000}}
)

// soon is for servers that leave requests without an answer.
func soon(o load.Options) load.Options {
	o.Timeout = 500 * time.Millisecond
	return o
}

// Servers that serve whole requests well, one at a time, and nothing else.
func TestBadWithPieces(t *testing.T) {
	const any = load.Phase("")
	tests := []struct {
		name  string
		kinds load.Options
		bad   func(net.Conn) net.Conn // beneath a good server
		serve func(net.Conn)          // or instead of one
		phase load.Phase
		err   string
	}{
		{
			name: "forgets a header that is not complete", kinds: soon(torn),
			bad: onRead(func(_ net.Conn, p []byte) []byte {
				if !bytes.Contains(p, endOfHeader) {
					return nil
				}
				return p
			}),
			phase: any,
		},
		{
			name: "reads a piece twice", kinds: soon(torn),
			bad: onRead(func(_ net.Conn, p []byte) []byte {
				if !bytes.Contains(p, endOfHeader) {
					return append(p, p...)
				}
				return p
			}),
			phase: load.PhaseWrite, err: `"HTTP/1.1 400 Bad Request`,
		},
		{
			name: "answers half a request", kinds: soon(torn),
			serve: func(c net.Conn) {
				c.Read(make([]byte, 1))
				answer(c)
				io.Copy(io.Discard, c)
			},
			phase: load.PhaseWrite, err: "answered before the request was complete",
		},
		{
			name: "closes on half a request", kinds: torn,
			bad: onRead(func(c net.Conn, p []byte) []byte {
				if !bytes.Contains(p, endOfHeader) {
					c.Close()
				}
				return p
			}),
			phase: load.PhaseWrite, err: "closed before the request was complete",
		},
		{
			name: "loses a byte in 500", kinds: soon(byteByByte),
			bad:   losing(500),
			phase: any,
		},
		{
			name: "forgets what it has read ahead", kinds: soon(pipelined),
			serve: func(c net.Conn) {
				for answerPost(c, bufio.NewReader(c)) == nil {
				}
			},
			phase: any,
		},
		{
			name: "answers in another order", kinds: pipelined,
			serve: func(c net.Conn) {
				br := bufio.NewReader(c)
				for {
					var answers [][]byte
					for more := true; more; more = br.Buffered() > 0 {
						var b bytes.Buffer
						if answerPost(&b, br) != nil {
							return
						}
						answers = append(answers, b.Bytes())
					}
					slices.Reverse(answers[1:]) // the first one is right
					c.Write(bytes.Join(answers, nil))
				}
			},
			phase: load.PhaseContent,
		},
		{
			name: "announces the end and leaves the rest", kinds: pipelined,
			serve: func(c net.Conn) {
				br := bufio.NewReader(c)
				var b bytes.Buffer
				if answerPost(&b, br) == nil {
					c.Write(bytes.Replace(b.Bytes(), []byte("\r\n"), []byte("\r\nConnection: close\r\n"), 1))
					io.Copy(io.Discard, c)
				}
			},
			phase: load.PhaseRead, err: "the answer before announced the end",
		},
		{
			name: "drops what was long without a request", kinds: spare,
			bad: onRead(func(c net.Conn, p []byte) []byte {
				reset(c.(*net.TCPConn))
				return p
			}),
			phase: load.PhaseRead, err: "connection reset",
		},
		{
			name: "loses one byte of many", kinds: soon(pool),
			bad:   losing(50_000),
			phase: any,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ln := listen(t)
			if tt.serve != nil {
				serveRaw(t, ln, tt.serve)
			} else {
				serve(t, adapted{ln, tt.bad}, good())
			}
			o := tt.kinds
			o.Network, o.Address = "tcp", ln.Addr().String()
			l := load.Start(t.Context(), o)
			// A short pause may be over before the server does its worst: one of the
			// first failures has to be the one.
			var found load.Failure
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			require.NoError(t, l.Wait(ctx, func(r load.Report) bool {
				i := slices.IndexFunc(r.Failures, func(f load.Failure) bool {
					return (tt.phase == any || f.Phase == tt.phase) && strings.Contains(f.Err.Error(), tt.err)
				})
				if i >= 0 {
					found = r.Failures[i]
				}
				return i >= 0 || len(r.Failures) >= 10
			}))
			r := l.Stop()
			assert.Error(t, r.Err())
			if !assert.NotEmpty(t, found) {
				found = r.Failures[0]
			}
			t.Log(found)
			assert.Equal(t, r.Total().Requests, r.Total().Responses+r.Total().Failed, "each request of a flight has an end")
		})
	}
}

var endOfHeader = []byte("\r\n\r\n")

// adapted puts something between a server and its connections.
type adapted struct {
	net.Listener
	adapt func(net.Conn) net.Conn
}

func (a adapted) Accept() (net.Conn, error) {
	c, err := a.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return a.adapt(c), nil
}

// onRead has f change what the server reads: nil is nothing, then it reads on.
func onRead(f func(c net.Conn, p []byte) []byte) func(net.Conn) net.Conn {
	return func(c net.Conn) net.Conn { return &filtered{Conn: c, filter: f} }
}

type filtered struct {
	net.Conn
	filter func(net.Conn, []byte) []byte
	rest   []byte
}

func (c *filtered) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		buf := make([]byte, 4096)
		n, err := c.Conn.Read(buf)
		if err != nil {
			return 0, err
		}
		c.rest = c.filter(c.Conn, buf[:n])
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// losing loses one byte of n.
func losing(n int64) func(net.Conn) net.Conn {
	var read atomic.Int64
	return onRead(func(_ net.Conn, p []byte) []byte {
		before := read.Add(int64(len(p))) - int64(len(p))
		if i := n - 1 - before%n; i < int64(len(p)) {
			return append(p[:i:i], p[i+1:]...)
		}
		return p
	})
}

// serveRaw calls handle for each connection, which ends with it.
func serveRaw(t *testing.T, ln net.Listener, handle func(net.Conn)) {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}

// answerPost reads a request and answers it as the demo service would.
func answerPost(w io.Writer, br *bufio.Reader) error {
	r, err := http.ReadRequest(br)
	if err != nil {
		return err
	}
	if r.Method == http.MethodGet {
		const body = `{"generation": 0, "pid": 0, "version": ""}`
		_, err = fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return err
	}
	sent, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	body := fmt.Sprintf(`{"length": %d, "sha256": "%x"}`, len(sent), sha256.Sum256(sent))
	_, err = fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	return err
}

// The pieces arrive as such: a server sees all that this package promises to do
// to it.
func TestPieces(t *testing.T) {
	tests := []struct {
		name  string
		kinds load.Options
		sees  map[string]func(p []byte) bool
	}{
		{"torn", torn, map[string]func([]byte) bool{
			"half of the first line": func(p []byte) bool {
				return bytes.HasPrefix(p, []byte("P")) && !bytes.Contains(p, []byte("\r\n"))
			},
			"a header without its last byte": func(p []byte) bool {
				return bytes.HasPrefix(p, []byte("POST")) && bytes.HasSuffix(p, endOfHeader[:3])
			},
			"a header without a body": func(p []byte) bool {
				return bytes.HasPrefix(p, []byte("POST")) && bytes.HasSuffix(p, endOfHeader)
			},
			"a piece of a body": func(p []byte) bool { return len(p) > 1 && !bytes.ContainsAny(p, "\r\n") },
		}},
		{"byte by byte", byteByByte, map[string]func([]byte) bool{
			"P":  func(p []byte) bool { return string(p) == "P" },
			"\n": func(p []byte) bool { return string(p) == "\n" },
		}},
		{"pipelined", pipelined, map[string]func([]byte) bool{
			"two requests": func(p []byte) bool { return bytes.Count(p, []byte("HTTP/1.1\r\n")) >= 2 },
			"a request and half of the next": func(p []byte) bool {
				return bytes.Count(p, []byte("HTTP/1.1\r\n")) == 1 && !bytes.HasPrefix(p, []byte("GET ")) && !bytes.HasPrefix(p, []byte("POST "))
			},
			"more than 4 KiB": func(p []byte) bool { return len(p) == 4096 },
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var mu sync.Mutex
			missing := len(tt.sees)
			seen := make(map[string]bool)
			all := make(chan struct{})
			ln := listen(t)
			serve(t, adapted{ln, onRead(func(_ net.Conn, p []byte) []byte {
				mu.Lock()
				defer mu.Unlock()
				for name, is := range tt.sees {
					if !seen[name] && is(p) {
						seen[name] = true
						if missing--; missing == 0 {
							close(all)
						}
					}
				}
				return p
			})}, good())
			o := tt.kinds
			o.Network, o.Address = "tcp", ln.Addr().String()
			l := load.Start(t.Context(), o)
			select {
			case <-all:
			case <-time.After(20 * time.Second):
				mu.Lock()
				assert.Fail(t, "not all was seen", "%v", seen)
				mu.Unlock()
			}
			require.NoError(t, l.Stop().Err())
		})
	}
}

// What a server ends in an orderly way is counted, whatever the kind.
func TestClosedByServer(t *testing.T) {
	kinds := map[string]load.Options{
		"keep-alive": keepAlive, "pool": pool, "spare": spare, "torn": torn, "byte-by-byte": byteByByte,
	}
	for name, o := range kinds {
		t.Run("announced: "+name, func(t *testing.T) {
			ln := listen(t)
			next := good()
			serve(t, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Connection", "close")
				next.ServeHTTP(w, r)
			}))
			o.Network, o.Address = "tcp", ln.Addr().String()
			l := load.Start(t.Context(), o)
			require.NoError(t, l.Wait(t.Context(), func(r load.Report) bool { return r.ClosedByServer() >= 10 }))
			r := l.Stop()
			require.NoError(t, r.Err())
			assert.Equal(t, r.Total().Responses, r.ClosedByServer())
			assert.Zero(t, r.Total().Closed)
		})
	}
	t.Run("idle spare connections", func(t *testing.T) {
		ln := listen(t)
		var closed atomic.Int64
		serve(t, adapted{ln, func(c net.Conn) net.Conn {
			if closed.Add(1) <= 3 {
				c.Close()
			}
			return c
		}}, good())
		l := load.Start(t.Context(), load.Options{
			Network: "tcp", Address: ln.Addr().String(),
			Spare: 3, SpareTime: time.Hour,
		})
		require.NoError(t, l.Wait(t.Context(), func(r load.Report) bool { return r.ClosedByServer() == 3 }))
		assert.Equal(t, 3, l.Stop().ByKind[load.Spare].Closed)
	})
	t.Run("but not streams", func(t *testing.T) {
		ln := listen(t)
		serve(t, ln, good())
		l := load.Start(t.Context(), load.Options{Network: "tcp", Address: ln.Addr().String(), Stream: 1})
		require.NoError(t, l.Wait(t.Context(), func(r load.Report) bool { return r.Total().Announced > 1 }))
		assert.Zero(t, l.Stop().ClosedByServer())
	})
}

func TestMixWithPool(t *testing.T) {
	ln := listen(t)
	serve(t, ln, good())
	o := load.MixWithPool()
	o.Network, o.Address, o.MaxRequests = "tcp", ln.Addr().String(), 1500
	l := load.Start(t.Context(), o)
	<-l.Done()
	r := l.Stop()
	require.NoError(t, r.Err())
	assert.Len(t, r.ByKind, len(load.Kinds())-1, "all but arrivals")
	assert.Zero(t, r.ClosedByServer())
	t.Logf("\n%s", r)
}
