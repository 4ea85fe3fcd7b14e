package load_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/load"
)

// arriving is a load of n arrivals at the given place.
func arriving(n int, network, address string) load.Options {
	o := load.Arriving()
	o.Network, o.Address, o.MaxRequests = network, address, n
	return o
}

func TestArrivals(t *testing.T) {
	const n = 300
	for _, tt := range []struct{ network, address string }{
		{"tcp", "127.0.0.1:0"}, {"tcp", "[::1]:0"}, {"unix", filepath.Join(t.TempDir(), "s")},
	} {
		t.Run(tt.network+" "+filepath.Base(tt.address), func(t *testing.T) {
			ln, err := net.Listen(tt.network, tt.address)
			require.NoError(t, err)
			serve(t, ln, good())
			l := load.Start(t.Context(), arriving(n, tt.network, ln.Addr().String()))
			<-l.Done()
			r := l.Stop()
			t.Logf("%v", r)
			require.NoError(t, r.Err())
			assert.Len(t, r.Arrivals, n)
			assert.Empty(t, r.Arrivals.Failed())
			for i, a := range r.Arrivals {
				assert.Equal(t, 7, a.Generation)
				assert.Equal(t, os.Getpid(), a.PID)
				assert.GreaterOrEqual(t, a.Connected, a.Begun, i)
				assert.GreaterOrEqual(t, a.Answered, a.Connected, i)
			}
			gap := r.Arrivals.Longest()
			assert.Positive(t, gap.Length())
			assert.Equal(t, []int{7, 7}, []int{gap.Before, gap.After})
			assert.Equal(t, n, r.ByKind[load.Arrivals].Dials)
			assert.Zero(t, r.ClosedByServer(), "the client has asked for it")
			if tcp, ok := ln.Addr().(*net.TCPAddr); ok {
				assert.Zero(t, lingering(t, tcp.Port), "a port for each connection would be spent")
			}
		})
	}
}

// lingering counts what the kernel keeps of closed connections of a port.
func lingering(t *testing.T, port int) (n int) {
	t.Helper()
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(name)
		require.NoError(t, err)
		for line := range bytes.Lines(table) { // proc_net_tcp(5); 06 is TIME_WAIT
			f := strings.Fields(string(line))
			p := fmt.Sprintf(":%04X", port)
			if f[3] == "06" && (strings.HasSuffix(f[1], p) || strings.HasSuffix(f[2], p)) {
				n++
			}
		}
	}
	return n
}

// A server that answers nobody before a hundred wait sees whether clients come
// however it answers.
func TestArrivalsDoNotWait(t *testing.T) {
	const n = 100
	ln := listen(t)
	var waiting sync.WaitGroup
	waiting.Add(n)
	next := good()
	serve(t, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		waiting.Done()
		waiting.Wait()
		next.ServeHTTP(w, r)
	}))
	l := load.Start(t.Context(), arriving(n, "tcp", ln.Addr().String()))
	<-l.Done()
	r := l.Stop()
	require.NoError(t, r.Err())
	assert.Len(t, r.Arrivals, n)
}

// Each of these servers fails in its own way, and the load must tell which.
func TestArrivalsThatFail(t *testing.T) {
	bad := func(f http.HandlerFunc) func(*testing.T) net.Addr {
		return func(t *testing.T) net.Addr {
			ln := listen(t)
			serve(t, ln, f)
			return ln.Addr()
		}
	}
	tests := []struct {
		name  string
		start func(*testing.T) net.Addr
		cause load.Cause
	}{
		{"nobody listens", func(t *testing.T) net.Addr {
			ln := listen(t)
			require.NoError(t, ln.Close())
			return ln.Addr()
		}, load.Refused},
		{"nobody accepts, and the queue is full", fullUnix, load.Refused},
		{"resets", bad(func(w http.ResponseWriter, _ *http.Request) { reset(hijack(w)) }), load.Reset},
		{"closes", bad(func(w http.ResponseWriter, _ *http.Request) { hijack(w).Close() }), load.EOF},
		{"closes too early", bad(func(w http.ResponseWriter, _ *http.Request) {
			c := hijack(w)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
			c.Close()
		}), load.EOF},
		{"hangs", bad(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), load.Timeout},
		{"hangs in the middle", bad(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "half")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}), load.Timeout},
		{"status 500", bad(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "ill", http.StatusInternalServerError)
		}), load.Content},
		{"another body", bad(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"generation": 3}`) }), load.Content},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			const n = 20
			addr := tt.start(t)
			o := arriving(n, addr.Network(), addr.String())
			if tt.cause == load.Timeout {
				o.Timeout = 20 * time.Millisecond
			}
			l := load.Start(t.Context(), o)
			<-l.Done()
			r := l.Stop()
			assert.Error(t, r.Err())
			assert.Equal(t, map[load.Cause]int{tt.cause: n}, r.Arrivals.Failed())
			assert.Equal(t, n, r.Total().Failed)
			require.NotEmpty(t, r.Failures)
			for _, f := range r.Failures {
				assert.Equal(t, tt.cause, f.Cause(), "%v", f)
			}
			assert.Zero(t, r.Arrivals.Longest(), "nobody was answered")
			assert.Contains(t, r.String(), fmt.Sprintf("%d failed, %d %s", n, n, tt.cause))
		})
	}
}

// fullUnix is a unix socket in whose queue no place is left.
func fullUnix(t *testing.T) net.Addr {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	require.NoError(t, unix.Listen(fd, 0))
	c, err := net.Dial("unix", path) // a queue of length 0 has one place
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return &net.UnixAddr{Net: "unix", Name: path}
}

func TestTimeline(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	ok := func(due, answered, generation int) load.Arrival {
		return load.Arrival{Due: at(due), Answered: at(answered).Sub(at(due)), Generation: generation, PID: 100 + generation}
	}
	bad := func(due int, cause load.Cause) load.Arrival { return load.Arrival{Due: at(due), Cause: cause} }
	aborted := load.Arrival{Due: at(300), Begun: 3 * time.Millisecond}
	line := load.Timeline{
		ok(0, 10, 1), ok(10, 30, 1), ok(20, 25, 1), // not in order
		ok(60, 130, 2), ok(50, 131, 2), // 100 ms after the last one before
		bad(70, load.Refused), bad(71, load.Reset), bad(72, load.Reset),
		ok(200, 190, 2), ok(200, 230, 3), // 59 ms, 40 ms
		aborted,
	}
	assert.Equal(t, map[load.Cause]int{load.Refused: 1, load.Reset: 2}, line.Failed())
	assert.Equal(t, 3*time.Millisecond, line.Late())
	assert.Equal(t, load.Gap{From: at(30), To: at(130), Before: 1, After: 2, PID: 102}, line.Longest())
	for _, tt := range []struct{ at, within, from, to int }{
		{80, 0, 30, 130},
		{29, 0, 25, 30},
		{29, 1, 30, 130}, // what begins a moment later
		{132, 0, 131, 190},
		{132, 5, 30, 130},
		{210, 0, 190, 230},
		{210, 20, 131, 190},
		{500, 0, 0, 0}, // after all
	} {
		g := line.Around(at(tt.at), time.Duration(tt.within)*time.Millisecond)
		if tt.to == 0 {
			assert.Zero(t, g)
			continue
		}
		assert.Equal(t, []time.Time{at(tt.from), at(tt.to)}, []time.Time{g.From, g.To}, "%+v", tt)
	}
	for _, tt := range []struct{ at, generation, end int }{
		{0, 1, 10}, {10, 1, 25}, {30, 1, 0}, {30, 2, 130}, {130, 2, 131}, {0, 3, 230}, {0, 0, 0},
	} {
		a, ok := line.Next(at(tt.at), tt.generation)
		assert.Equal(t, tt.end > 0, ok, "%+v", tt)
		if ok {
			assert.Equal(t, at(tt.end), a.End(), "%+v", tt)
		}
	}
	assert.Equal(t, "11 arrivals, 3 failed, 1 refused, 2 reset; longest gap 100ms, "+
		"from 03:04:05.030 (generation 1) to 03:04:05.130 (generation 2); begun at most 3ms late", line.String())
	assert.Zero(t, load.Timeline{ok(0, 1, 1)}.Longest())
	assert.Equal(t, "no arrivals", load.Timeline(nil).String())
}
