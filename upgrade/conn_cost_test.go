package upgrade

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// underRace tells whether the race detector is on, whose own allocations, and
// whose way with pools, would be counted.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// allocations returns what f has allocated, by all goroutines: nothing else may run.
func allocations(f func()) (objects, bytes float64) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it would empty pools
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs - before.Mallocs), float64(after.TotalAlloc - before.TotalAlloc)
}

// TestCostOfAConnection accepts from a bare listener and from ours.
func TestCostOfAConnection(t *testing.T) {
	assert.LessOrEqual(t, unsafe.Sizeof(Conn{}), uintptr(96))
	if underRace() {
		t.Skip("allocations cannot be counted with the race detector")
	}
	const n = 500
	cost := func(ln net.Listener) (objects, bytes float64) {
		clients, conns := make([]net.Conn, n), make([]net.Conn, n)
		for i := range clients {
			c, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(t, err)
			clients[i] = c
			if i%100 == 99 { // not more than the backlog has room for
				o, b := allocations(func() {
					for j := i - 99; j <= i; j++ {
						if conns[j], err = ln.Accept(); err != nil {
							return
						}
					}
				})
				require.NoError(t, err)
				objects, bytes = objects+o, bytes+b
			}
		}
		for i := range conns {
			require.NoError(t, conns[i].Close())
			require.NoError(t, clients[i].Close())
		}
		return objects / n, bytes / n
	}
	bare, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer bare.Close()
	begin := make(chan struct{})
	tracked := listenOn(t, &lateServer{Server: TCP(func(context.Context, *Conn) {}), begin: begin})
	defer close(begin)
	cost(bare) // warm
	cost(tracked.ln)
	bareObjects, bareBytes := cost(bare)
	objects, bytes := cost(tracked.ln)
	t.Logf("bare: %.2f allocations, %.0f bytes; tracked: %.2f, %.0f", bareObjects, bareBytes, objects, bytes)
	assert.LessOrEqual(t, objects-bareObjects, 1.1)
	assert.LessOrEqual(t, bytes-bareBytes, 96.0+5)
}

// bareServer serves with net/http alone.
func bareServer(t testing.TB, srv *http.Server) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var running sync.WaitGroup
	running.Go(func() { _ = srv.Serve(ln) })
	t.Cleanup(func() {
		_ = srv.Close()
		running.Wait()
	})
	return ln.Addr().String()
}

// trackedServer serves with it through a Listener.
func trackedServer(t testing.TB, srv *http.Server) (address string) {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer raw.Close()
	file, err := raw.(*net.TCPListener).File()
	require.NoError(t, err)
	fd, err := rawFD(file)
	require.NoError(t, err)
	ln := newListener("http", []*socket{{name: "http", network: "tcp", address: raw.Addr().String(), fd: fd}}, new(goodbyes), newPlaces())
	require.NoError(t, ln.open())
	server := HTTP(srv)
	var running sync.WaitGroup
	running.Go(func() { assert.NoError(t, server.Serve(ln)) })
	t.Cleanup(func() {
		require.NoError(t, ln.Close())
		running.Wait()
		ln.cut()
		require.NoError(t, file.Close())
	})
	return raw.Addr().String()
}

// requester makes requests over one connection without an allocation of its own.
type requester struct {
	conn    net.Conn
	request []byte
	br      *bufio.Reader
	body    []byte
}

func newRequester(t testing.TB, address, request string) *requester {
	t.Helper()
	c, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return &requester{conn: c, request: []byte(request), br: bufio.NewReader(c), body: make([]byte, 1024)}
}

// do makes one request, whose answer has a Content-Length.
func (r *requester) do() error {
	if _, err := r.conn.Write(r.request); err != nil {
		return err
	}
	length := 0
	for {
		line, err := r.br.ReadSlice('\n')
		if err != nil {
			return err
		}
		const key = "Content-Length: "
		if len(line) > len(key) && string(line[:len(key)]) == key {
			length, _ = strconv.Atoi(string(line[len(key) : len(line)-2]))
		}
		if len(line) == 2 {
			break
		}
	}
	_, err := io.ReadFull(r.br, r.body[:length])
	return err
}

// requests are those whose cost is measured.
func requests() map[string]string {
	return map[string]string{
		"GET":            "GET /a/path?with=a&query HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST":           "POST /a/path HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
		"an asterisk":    "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
		"absolute":       "GET http://x/a/path HTTP/1.1\r\nHost: x\r\n\r\n",
		"without a path": "GET /? HTTP/1.1\r\nHost: x\r\n\r\n",
	}
}

// TestCostOfARequest: no allocation.
func TestCostOfARequest(t *testing.T) {
	if underRace() {
		t.Skip("allocations cannot be counted with the race detector")
	}
	bare, tracked := bareServer(t, &http.Server{Handler: hello}), trackedServer(t, &http.Server{Handler: hello})
	const n = 2000
	for name, request := range requests() {
		t.Run(name, func(t *testing.T) {
			cost := func(address string) (objects, bytes float64) {
				r := newRequester(t, address, request)
				for range 100 {
					require.NoError(t, r.do())
				}
				var err error
				objects, bytes = allocations(func() {
					for range n {
						if err == nil {
							err = r.do()
						}
					}
				})
				require.NoError(t, err)
				return objects / n, bytes / n
			}
			bareObjects, bareBytes := cost(bare)
			objects, bytes := cost(tracked)
			t.Logf("bare: %.3f allocations, %.1f bytes; tracked: %.3f, %.1f", bareObjects, bareBytes, objects, bytes)
			assert.InDelta(t, bareObjects, objects, 0.5) // one would be 1
			assert.LessOrEqual(t, bytes-bareBytes, 16.0)
		})
	}
}

func BenchmarkRequestBare(b *testing.B) {
	benchmarkRequests(b, bareServer(b, &http.Server{Handler: hello}))
}

func BenchmarkRequestTracked(b *testing.B) {
	benchmarkRequests(b, trackedServer(b, &http.Server{Handler: hello}))
}

func benchmarkRequests(b *testing.B, address string) {
	r := newRequester(b, address, "GET /a/path HTTP/1.1\r\nHost: x\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if err := r.do(); err != nil {
			b.Fatal(err)
		}
	}
}
