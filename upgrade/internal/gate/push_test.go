package gate_test

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/gate"
)

// pushed is a connection from elsewhere.
type pushed struct {
	net.Conn
	accepted, closed atomic.Int32
}

func (p *pushed) Close() error {
	p.closed.Add(1)
	return nil
}

// kinds are the sockets that a gate can stand in front of.
var kinds = map[string]func(*testing.T) *gate.Listener{
	"tcp": func(t *testing.T) *gate.Listener {
		g, _ := listen(t)
		return g
	},
	"unix": func(t *testing.T) *gate.Listener {
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
		require.NoError(t, err)
		ln.SetUnlinkOnClose(false)
		addr := ln.Addr()
		g := gate.NewListener(shared(t, ln), addr, nil, nil)
		t.Cleanup(func() { assert.NoError(t, g.Close()) })
		return g
	},
}

func eachKind(t *testing.T, test func(*testing.T, *gate.Listener)) {
	for kind, make := range kinds {
		t.Run(kind, func(t *testing.T) {
			leak.Check(t)
			test(t, make(t))
		})
	}
}

// awaitAccepts waits until n goroutines are blocked in Accept, as the runtime
// says it. If the gate is open, one of them waits for the socket, and the others
// for their turn to do so.
func awaitAccepts(n int, open bool) {
	states := []string{"[chan receive"}
	if open {
		states = []string{"[IO wait", "[semacquire"}
	}
	blocked := func(g string) bool {
		head, frames, _ := strings.Cut(g, "\n")
		in := func(state string) bool { return strings.Contains(head, state) }
		return slices.ContainsFunc(states, in) && strings.Contains(frames, "gate.(*Listener).Accept")
	}
	for buf := make([]byte, 1<<20); ; runtime.Gosched() {
		count := 0
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if blocked(g) {
				count++
			}
		}
		if count == n {
			return
		}
	}
}

func TestPushWakesABlockedAccept(t *testing.T) {
	eachKind(t, func(t *testing.T, g *gate.Listener) {
		for _, open := range []bool{false, true, false} {
			g.Pause()
			if open {
				require.NoError(t, g.Open())
			}
			ch := accept(g)
			awaitAccepts(1, open)
			want := new(pushed)
			require.NoError(t, g.Push(want))
			a := <-ch
			require.NoError(t, a.err)
			assert.Same(t, want, a.c)

			// It was a wake-up for that one connection, and no more.
			ch = accept(g)
			awaitAccepts(1, open)
			if !open {
				require.NoError(t, g.Open())
			}
			dial(t, g.Addr())
			a = <-ch
			require.NoError(t, a.err)
			require.NoError(t, a.c.Close())
		}
	})
}

// TestNoWakeUpIsLost pushes one connection at a time, in the very moment in which
// the Accept that shall get it is on its way.
func TestNoWakeUpIsLost(t *testing.T) {
	eachKind(t, func(t *testing.T, g *gate.Listener) {
		arrived := make(chan net.Conn)
		var server sync.WaitGroup
		server.Go(func() {
			for {
				c, err := g.Accept()
				if err != nil {
					assert.ErrorIs(t, err, net.ErrClosed)
					return
				}
				arrived <- c
			}
		})
		for i := range 10000 {
			if i == 5000 {
				require.NoError(t, g.Open())
			}
			want := new(pushed)
			require.NoError(t, g.Push(want))
			require.Same(t, want, <-arrived)
		}
		require.NoError(t, g.Close())
		server.Wait()
	})
}

// TestPushWakesOneOfManyAccepts pushes less than there are Accepts: those that
// were woken for nothing go on waiting, and accept from the socket.
func TestPushWakesOneOfManyAccepts(t *testing.T) {
	eachKind(t, func(t *testing.T, g *gate.Listener) {
		require.NoError(t, g.Open())
		const accepts = 5
		ch := make(chan accepted, accepts)
		for range accepts {
			go func() {
				c, err := g.Accept()
				ch <- accepted{c, err}
			}()
		}
		awaitAccepts(accepts, true)
		want := []*pushed{new(pushed), new(pushed)}
		for i, p := range want {
			require.NoError(t, g.Push(p))
			a := <-ch
			require.NoError(t, a.err)
			assert.Same(t, p, a.c)
			awaitAccepts(accepts-1-i, true)
		}
		for range accepts - len(want) {
			dial(t, g.Addr())
			a := <-ch
			require.NoError(t, a.err)
			require.NoError(t, a.c.Close())
		}
	})
}

func TestPushedConnectionsKeepTheirOrderAndSkipAdmit(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr()
	admitted := new(pushed)
	g := gate.NewListener(shared(t, ln.(*net.TCPListener)), addr, func(c net.Conn) net.Conn {
		c.Close()
		return admitted
	}, nil)
	defer g.Close()
	require.NoError(t, g.Open())
	dial(t, addr)
	want := []*pushed{new(pushed), new(pushed), new(pushed)}
	require.NoError(t, g.Push(want[0]))
	require.NoError(t, g.Push(want[1]))
	g.Pause()
	require.NoError(t, g.Push(want[2]))
	require.NoError(t, g.Open(), "with three in the queue")
	for _, w := range append(want, admitted) {
		c, err := g.Accept()
		require.NoError(t, err)
		assert.Same(t, w, c)
	}
}

func TestPushIsFull(t *testing.T) {
	g, _ := listen(t)
	for range 128 {
		require.NoError(t, g.Push(new(pushed)))
	}
	refused := new(pushed)
	require.ErrorIs(t, g.Push(refused), gate.ErrFull)
	_, err := g.Accept()
	require.NoError(t, err)
	require.NoError(t, g.Push(refused), "there is room for one")
	require.ErrorIs(t, g.Push(new(pushed)), gate.ErrFull)
	assert.Zero(t, refused.closed.Load())
}

func TestCloseClosesWhatWasPushed(t *testing.T) {
	for _, open := range []bool{false, true} {
		g, _ := listen(t)
		if open {
			require.NoError(t, g.Open())
		}
		waiting := []*pushed{new(pushed), new(pushed)}
		for _, p := range waiting {
			require.NoError(t, g.Push(p))
		}
		require.NoError(t, g.Close())
		require.NoError(t, g.Close())
		for _, p := range waiting {
			assert.EqualValues(t, 1, p.closed.Load())
		}
		late := new(pushed)
		require.ErrorIs(t, g.Push(late), net.ErrClosed)
		assert.Zero(t, late.closed.Load(), "it is the caller's still")
		_, err := g.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
	}
}

// TestRealErrorsOfAcceptAreToldWhilePushesArrive has accept(2) fail for want of
// descriptors: the caller hears of that, and of nothing else.
func TestRealErrorsOfAcceptAreToldWhilePushesArrive(t *testing.T) {
	g, _ := listen(t)
	require.NoError(t, g.Open())
	dial(t, g.Addr()) // waits in the backlog, and cannot be accepted

	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	low := limit
	low.Cur = 128
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) }()
	var hogs []int
	defer func() {
		for _, n := range hogs {
			unix.Close(n)
		}
	}()
	for {
		n, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			require.ErrorIs(t, err, unix.EMFILE)
			break
		}
		hogs = append(hogs, n)
	}

	const n = 1000
	var pusher sync.WaitGroup
	pusher.Go(func() {
		for range n {
			push(t, g, new(pushed))
		}
	})
	for arrived, failed := 0, 0; arrived < n || failed == 0; {
		c, err := g.Accept()
		if err != nil {
			require.ErrorIs(t, err, unix.EMFILE)
			require.NotErrorIs(t, err, os.ErrDeadlineExceeded)
			failed++
			continue
		}
		require.IsType(t, (*pushed)(nil), c)
		arrived++
	}
	pusher.Wait()
}
