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
		g := gate.NewListener(shared(t, ln), addr, nil)
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
	})
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

// push pushes, and tries again while the gate is full. It returns false when the
// gate is shut.
func push(t *testing.T, g *gate.Listener, p *pushed) bool {
	for {
		switch err := g.Push(p); err {
		case nil:
			return true
		case gate.ErrFull:
			runtime.Gosched()
		default:
			assert.ErrorIs(t, err, net.ErrClosed)
			return false
		}
	}
}

// TestEveryConnectionArrivesOnceInAStorm has connections come from everywhere
// while the gate opens and closes.
func TestEveryConnectionArrivesOnceInAStorm(t *testing.T) {
	eachKind(t, func(t *testing.T, g *gate.Listener) {
		const acceptors, pushers, dialers, each = 3, 3, 3, 300
		all := make([]pushed, pushers*each)
		var dialed atomic.Int32
		var servers, clients sync.WaitGroup
		for range acceptors {
			servers.Go(func() {
				for {
					c, err := g.Accept()
					if err != nil {
						assert.ErrorIs(t, err, net.ErrClosed)
						return
					}
					if p, ok := c.(*pushed); ok {
						p.accepted.Add(1)
						continue
					}
					dialed.Add(1)
					_, _ = c.Write([]byte{1})
					c.Close()
				}
			})
		}
		for i := range pushers {
			clients.Go(func() {
				for j := range each {
					push(t, g, &all[i*each+j])
				}
			})
		}
		for range dialers {
			clients.Go(func() {
				for range each {
					c, err := net.Dial(g.Addr().Network(), g.Addr().String())
					if !assert.NoError(t, err) {
						return
					}
					var b [1]byte
					_, err = c.Read(b[:])
					assert.NoError(t, err)
					c.Close()
				}
			})
		}
		done := make(chan struct{})
		go func() { clients.Wait(); close(done) }()
		for turning := true; turning; {
			require.NoError(t, g.Open())
			select {
			case <-done:
				turning = false
			default:
				g.Pause()
			}
		}
		for i := range all { // the last ones may still be on their way out
			for all[i].accepted.Load() == 0 {
				runtime.Gosched()
			}
		}
		require.NoError(t, g.Close())
		servers.Wait()
		assert.EqualValues(t, dialers*each, dialed.Load())
		for i := range all {
			assert.EqualValues(t, 1, all[i].accepted.Load())
			assert.Zero(t, all[i].closed.Load())
		}
	})
}

// TestCloseInAStormOfPushes shuts the gate in the middle: each connection has
// come out of one Accept, or was closed, or was refused.
func TestCloseInAStormOfPushes(t *testing.T) {
	for kind, make := range kinds {
		t.Run(kind, func(t *testing.T) {
			leak.Check(t)
			for round := range 50 {
				g := make(t)
				if round%2 == 0 {
					require.NoError(t, g.Open())
				}
				const pushers, each = 3, 100
				var all, refused [pushers * each]pushed
				var wg sync.WaitGroup
				for range 2 {
					wg.Go(func() {
						for {
							c, err := g.Accept()
							if err != nil {
								assert.ErrorIs(t, err, net.ErrClosed)
								return
							}
							c.(*pushed).accepted.Add(1)
						}
					})
				}
				middle := sync.OnceFunc(func() { wg.Go(func() { assert.NoError(t, g.Close()) }) })
				for i := range pushers {
					wg.Go(func() {
						for j := range each {
							if j == each/2 {
								middle()
							}
							if k := i*each + j; !push(t, g, &all[k]) {
								refused[k].closed.Add(1)
							}
						}
					})
				}
				wg.Wait()
				for i := range all {
					p := &all[i]
					assert.EqualValues(t, 1, p.accepted.Load()+p.closed.Load()+refused[i].closed.Load())
				}
			}
		})
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

// BenchmarkAccept is the way of an ordinary connection, from connect(2) on.
func BenchmarkAccept(b *testing.B) {
	ln, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	require.NoError(b, err)
	defer ln.Close()
	f, err := ln.(*net.UnixListener).File()
	require.NoError(b, err)
	defer f.Close()
	raw, err := f.SyscallConn()
	require.NoError(b, err)
	var g *gate.Listener
	require.NoError(b, raw.Control(func(fd uintptr) { g = gate.NewListener(int(fd), ln.Addr(), nil) }))
	defer g.Close()
	require.NoError(b, g.Open())
	for name, l := range map[string]net.Listener{"bare": ln, "gate": g} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				c, err := net.Dial("unix", ln.Addr().String())
				require.NoError(b, err)
				s, err := l.Accept()
				require.NoError(b, err)
				s.Close()
				c.Close()
			}
		})
	}
}
