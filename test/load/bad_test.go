package load_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/load"
)

// A check that cannot fail checks nothing: each of these servers does one thing
// wrong, and the load must notice.
func TestBadServer(t *testing.T) {
	const any = load.Phase("")
	tests := []struct {
		name  string
		kinds load.Options
		bad   func(next http.Handler) http.HandlerFunc
		phase load.Phase
		err   string
	}{
		{
			name: "drops one of a hundred", kinds: keepAlive,
			bad: func(next http.Handler) http.HandlerFunc {
				var n atomic.Int64
				return func(w http.ResponseWriter, r *http.Request) {
					if n.Add(1)%100 == 0 {
						hijack(w).Close()
						return
					}
					next.ServeHTTP(w, r)
				}
			},
			// With an unread half of the body in its buffer, the kernel resets.
			phase: any, err: "",
		},
		{
			name: "closes instead of an answer", kinds: newConns,
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				hijack(w).Close()
			}),
			phase: load.PhaseRead, err: "closed before the answer",
		},
		{
			name: "resets instead of an answer", kinds: newConns,
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				reset(hijack(w))
			}),
			phase: load.PhaseRead, err: "connection reset",
		},
		{
			name: "never answers", kinds: impatient(newConns),
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
			}),
			phase: load.PhaseRead, err: "no answer in time",
		},
		{
			name: "status 503", kinds: newConns,
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				http.Error(w, "go away", http.StatusServiceUnavailable)
			}),
			phase: load.PhaseContent, err: `status 503 Service Unavailable: "go away`,
		},
		{
			name: "body of another process", kinds: newConns,
			bad: func(next http.Handler) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					next.ServeHTTP(header{w, "8"}, r)
				}
			},
			phase: load.PhaseContent, err: "the body tells of",
		},
		{
			name: "no Content-Length", kinds: newConns,
			bad: func(next http.Handler) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					http.NewResponseController(w).Flush()
					next.ServeHTTP(w, r)
				}
			},
			phase: load.PhaseContent, err: "no Content-Length",
		},
		{
			name: "not JSON", kinds: newConns,
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, "hello")
			}),
			phase: load.PhaseContent, err: "invalid character",
		},
		{
			name: "wrong hash", kinds: keepAlive,
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				fmt.Fprintf(w, `{"length": %d, "sha256": "00"}`, r.ContentLength)
			}),
			phase: load.PhaseContent, err: "the server got",
		},
		{
			name: "part of the body", kinds: keepAlive,
			bad: func(next http.Handler) http.HandlerFunc {
				return func(w http.ResponseWriter, r *http.Request) {
					r.Body = io.NopCloser(io.LimitReader(r.Body, r.ContentLength-1))
					next.ServeHTTP(w, r)
				}
			},
			phase: load.PhaseContent, err: "the server got",
		},
		{
			name: "answers twice", kinds: keepAlive,
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(hijack(w), strings.Repeat("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 2))
			}),
			phase: any, err: "",
		},
		{
			name: "a wrong byte", kinds: download,
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				b := pattern(downloadSize)
				b[70_000]++
				w.Header().Set("Content-Length", fmt.Sprint(len(b)))
				w.Write(b)
			}),
			phase: load.PhaseContent, err: "byte 70000 is",
		},
		{
			name: "a byte less", kinds: download,
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(downloadSize-1))
				w.Write(pattern(downloadSize - 1))
			}),
			phase: load.PhaseContent, err: "the Content-Length is",
		},
		{
			name: "cut short", kinds: download,
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", fmt.Sprint(downloadSize))
				w.Write(pattern(downloadSize / 2))
			}),
			phase: load.PhaseRead, err: "cut short",
		},
		{
			name: "reset while idle", kinds: load.Options{Idle: 2},
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				c := hijack(w)
				answer(c)
				reset(c)
			}),
			phase: load.PhaseIdle, err: "connection reset",
		},
		{
			name: "stream without goodbye", kinds: load.Options{Stream: 1},
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				io.WriteString(w, "data: 1\n\ndata: 2\n\n")
			}),
			phase: load.PhaseRead, err: "after event 2 without a goodbye",
		},
		{
			name: "stream cut after the goodbye", kinds: load.Options{Stream: 1},
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				io.WriteString(w, "data: 1\n\nevent: goodbye\n")
				http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}),
			phase: load.PhaseRead, err: "unexpected EOF",
		},
		{
			name: "stream with a gap", kinds: load.Options{Stream: 1},
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				io.WriteString(w, "data: 1\n\ndata: 3\n\n")
			}),
			phase: load.PhaseContent, err: `"data: 3" came after event 1`,
		},
		{
			name: "stream that hangs", kinds: impatient(load.Options{Stream: 1}),
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				io.WriteString(w, "data: 1\n\n")
				http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}),
			phase: load.PhaseRead, err: "after event 1",
		},
		{
			name: "WebSocket cut", kinds: webSockets,
			bad: onWebSocket(func(ctx context.Context, c *websocket.Conn) {
				c.Read(ctx)
			}),
			phase: load.PhaseRead, err: "EOF",
		},
		{
			name: "WebSocket ends in anger", kinds: webSockets,
			bad: onWebSocket(func(ctx context.Context, c *websocket.Conn) {
				c.Close(websocket.StatusInternalError, "")
			}),
			phase: load.PhaseRead, err: "StatusInternalError",
		},
		{
			name: "WebSocket with another echo", kinds: webSockets,
			bad: onWebSocket(func(ctx context.Context, c *websocket.Conn) {
				c.Read(ctx)
				c.Write(ctx, websocket.MessageText, []byte("eh?"))
				c.Read(ctx)
			}),
			phase: load.PhaseContent, err: `"eh?" came back`,
		},
		{
			name: "WebSocket without echo", kinds: impatient(webSockets),
			bad: onWebSocket(func(ctx context.Context, c *websocket.Conn) {
				for ctx.Err() == nil {
					if _, _, err := c.Read(ctx); err != nil {
						return
					}
				}
			}),
			phase: any, err: "",
		},
		{
			name: "WebSocket refused", kinds: webSockets,
			bad: always(func(w http.ResponseWriter, r *http.Request) {
				http.Error(w, "no", http.StatusNotFound)
			}),
			phase: load.PhaseRead, err: "404",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ln := listen(t)
			serve(t, ln, tt.bad(good()))
			o := tt.kinds
			o.Network, o.Address = "tcp", ln.Addr().String()
			l := load.Start(t.Context(), o)
			require.NoError(t, l.Wait(t.Context(), failed))
			r := l.Stop()
			assert.Error(t, r.Err())
			require.NotEmpty(t, r.Failures)
			f := r.Failures[0]
			if tt.phase != any {
				assert.Equal(t, tt.phase, f.Phase, "%s", f)
			}
			assert.ErrorContains(t, f.Err, tt.err)
			assert.Contains(t, r.Err().Error(), f.String())
			t.Log(f)
		})
	}
}

const downloadSize = 100_000

var (
	newConns   = load.Options{New: load.Traffic{Conns: 1, Rate: 500}}
	keepAlive  = load.Options{KeepAlive: load.Traffic{Conns: 4, Rate: 2000}}
	download   = load.Options{Download: load.Traffic{Conns: 1, Rate: 500}, DownloadSize: downloadSize}
	webSockets = load.Options{WebSocket: load.Traffic{Conns: 1, Rate: 500}}
)

func impatient(o load.Options) load.Options {
	o.Timeout = 20 * time.Millisecond
	return o
}

func failed(r load.Report) bool { return r.Total().Failed > 0 }

// always replaces the good server.
func always(f http.HandlerFunc) func(http.Handler) http.HandlerFunc {
	return func(http.Handler) http.HandlerFunc { return f }
}

// answer answers GET / on a connection that was taken from net/http.
func answer(c net.Conn) {
	const body = `{"generation": 0, "pid": 0, "version": ""}`
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func onWebSocket(f func(context.Context, *websocket.Conn)) func(http.Handler) http.HandlerFunc {
	return always(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		f(r.Context(), c)
	})
}

// header makes answers look as if another generation had sent their header.
type header struct {
	http.ResponseWriter
	generation string
}

func (h header) Write(p []byte) (int, error) {
	h.Header().Set("X-Handoff-Generation", h.generation)
	return h.ResponseWriter.Write(p)
}

func TestRefused(t *testing.T) {
	ln := listen(t)
	address := ln.Addr().String()
	require.NoError(t, ln.Close())
	for _, o := range []load.Options{newConns, keepAlive, webSockets} {
		o.Network, o.Address = "tcp", address
		l := load.Start(t.Context(), o)
		require.NoError(t, l.Wait(t.Context(), failed))
		r := l.Stop()
		assert.Equal(t, load.PhaseDial, r.Failures[0].Phase)
		assert.ErrorContains(t, r.Failures[0].Err, "connection refused")
		assert.Equal(t, r.Total().Requests, r.Total().Failed)
		assert.LessOrEqual(t, len(r.Failures), 20)
	}
}

// What a server may do, and what is not a failed request.
func TestPolite(t *testing.T) {
	t.Run("closed while idle", func(t *testing.T) {
		ln := listen(t)
		serve(t, ln, always(func(w http.ResponseWriter, r *http.Request) {
			c := hijack(w)
			answer(c)
			c.Close()
		})(nil))
		l := load.Start(t.Context(), load.Options{Network: "tcp", Address: ln.Addr().String(), Idle: 4})
		require.NoError(t, l.Wait(t.Context(), func(r load.Report) bool { return r.Total().Closed >= 4 }))
		r := l.Stop()
		require.NoError(t, r.Err())
		assert.GreaterOrEqual(t, r.Total().Dials, 4)
	})
	t.Run("close frame", func(t *testing.T) {
		ln := listen(t)
		serve(t, ln, onWebSocket(func(ctx context.Context, c *websocket.Conn) {
			typ, text, _ := c.Read(ctx)
			c.Write(ctx, typ, text)
			c.Close(websocket.StatusGoingAway, "")
		})(nil))
		o := webSockets
		o.Network, o.Address = "tcp", ln.Addr().String()
		l := load.Start(t.Context(), o)
		require.NoError(t, l.Wait(t.Context(), func(r load.Report) bool { return r.Total().Announced >= 2 }))
		require.NoError(t, l.Stop().Err())
	})
}

// A close that has arrived is seen before a request is written, however late it
// came: here the client's reads between two requests all end before it does.
func TestLooksBeforeItWrites(t *testing.T) {
	// Each interval is over before it begins.
	traffic := load.Traffic{Conns: 1, Rate: 1e9}
	for name, o := range map[string]load.Options{
		"keep-alive": {KeepAlive: traffic}, "pool": {Pool: traffic}, "torn": {Torn: traffic},
	} {
		t.Run(name, func(t *testing.T) {
			ln := listen(t)
			serveRaw(t, ln, func(c net.Conn) {
				answerPost(c, bufio.NewReader(c))
			})
			o.MaxRequests = 50
			o.Dial = func(ctx context.Context) (net.Conn, error) {
				c, err := new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
				if err != nil {
					return nil, err
				}
				return &lateConn{TCPConn: c.(*net.TCPConn)}, nil
			}
			l := load.Start(t.Context(), o)
			<-l.Done()
			r := l.Stop()
			require.NoError(t, r.Err())
			assert.Equal(t, 50, r.Total().Responses)
			if name == "torn" {
				return // some of its connections it has closed itself
			}
			assert.GreaterOrEqual(t, r.ClosedByServer(), 49)
		})
	}
}

// lateConn sets the deadline that follows an answer after the server's close has
// arrived.
type lateConn struct {
	*net.TCPConn
	answered atomic.Bool
}

func (c *lateConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if n > 0 {
		c.answered.Store(true)
	}
	return n, err
}

func (c *lateConn) SetDeadline(d time.Time) error {
	if c.answered.Load() {
		rc, err := c.SyscallConn()
		if err != nil {
			return err
		}
		if err := rc.Control(func(fd uintptr) {
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		}); err != nil {
			return err
		}
	}
	return c.TCPConn.SetDeadline(d)
}
