package gate_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/gate"
)

func TestMain(m *testing.M) { leak.Main(m) }

// shared returns a duplicate of a listener's descriptor, as another process has
// one, and closes the listener itself.
func shared(t *testing.T, c interface {
	File() (*os.File, error)
	Close() error
},
) int {
	t.Helper()
	f, err := c.File()
	require.NoError(t, err)
	raw, err := f.SyscallConn()
	require.NoError(t, err)
	var fd int
	require.NoError(t, raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) }))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, c.Close())
	require.NoError(t, unix.SetNonblock(fd, true))
	t.Cleanup(func() { assert.NoError(t, unix.Close(fd)) })
	return fd
}

func listen(t *testing.T) (*gate.Listener, int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr()
	fd := shared(t, ln.(*net.TCPListener))
	g := gate.NewListener(fd, addr, nil, nil)
	t.Cleanup(func() { assert.NoError(t, g.Close()) })
	return g, fd
}

type accepted struct {
	c   net.Conn
	err error
}

func accept(ln net.Listener) <-chan accepted {
	ch := make(chan accepted, 1)
	go func() {
		c, err := ln.Accept()
		ch <- accepted{c, err}
	}()
	return ch
}

func dial(t *testing.T, a net.Addr) net.Conn {
	t.Helper()
	c, err := net.Dial(a.Network(), a.String())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestAcceptBlocksWhileTheGateIsClosed(t *testing.T) {
	g, _ := listen(t)
	ch := accept(g)
	dial(t, g.Addr()) // waits in the backlog
	select {
	case <-ch:
		t.Fatal("accepted through a closed gate")
	default:
	}
	require.NoError(t, g.Open())
	a := <-ch
	require.NoError(t, a.err)
	require.NoError(t, a.c.Close())
}

func TestPauseInterruptsAcceptAndLeavesTheSocketAlone(t *testing.T) {
	g, fd := listen(t)
	other := gate.NewListener(fd, g.Addr(), nil, nil) // the other generation
	defer other.Close()
	require.NoError(t, g.Open())
	ch := accept(g)
	g.Pause()
	require.NoError(t, other.Open())

	dial(t, g.Addr())
	c, err := other.Accept()
	require.NoError(t, err)
	require.NoError(t, c.Close())
	select {
	case a := <-ch:
		t.Fatalf("Accept returned %v, %v", a.c, a.err)
	default:
	}

	other.Pause()
	require.NoError(t, g.Open(), "and back")
	dial(t, g.Addr())
	a := <-ch
	require.NoError(t, a.err)
	require.NoError(t, a.c.Close())
}

func TestCloseEndsAcceptOpenOrNot(t *testing.T) {
	for _, open := range []bool{false, true} {
		g, _ := listen(t)
		if open {
			require.NoError(t, g.Open())
		}
		ch := accept(g)
		require.NoError(t, g.Close())
		a := <-ch
		require.ErrorIs(t, a.err, net.ErrClosed)
		require.ErrorIs(t, g.Open(), net.ErrClosed)
	}
}

// TestNoConnectionIsLostWhileGatesChange has two generations take turns at the
// door while clients come: each of these is answered by exactly one.
func TestNoConnectionIsLostWhileGatesChange(t *testing.T) {
	g1, fd := listen(t)
	g2 := gate.NewListener(fd, g1.Addr(), nil, nil)
	defer g2.Close()
	var servers sync.WaitGroup
	for i, g := range []*gate.Listener{g1, g2} {
		servers.Go(func() {
			for {
				c, err := g.Accept()
				if err != nil {
					assert.ErrorIs(t, err, net.ErrClosed)
					return
				}
				_, _ = c.Write([]byte{byte(i)})
				c.Close()
			}
		})
	}
	require.NoError(t, g1.Open())
	var clients sync.WaitGroup
	served := make([]int, 2)
	var mu sync.Mutex
	for range 4 {
		clients.Go(func() {
			for range 250 {
				c, err := net.Dial("tcp", g1.Addr().String())
				if !assert.NoError(t, err) {
					return
				}
				var b [1]byte
				_, err = c.Read(b[:])
				assert.NoError(t, err)
				c.Close()
				mu.Lock()
				served[b[0]]++
				mu.Unlock()
			}
		})
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	for turn := 0; ; turn++ {
		select {
		case <-done:
			g1.Close()
			g2.Close()
			servers.Wait()
			t.Logf("%d turns, served %v", turn, served)
			assert.Equal(t, 1000, served[0]+served[1])
			return
		default:
		}
		next, last := g2, g1
		if turn%2 == 1 {
			next, last = g1, g2
		}
		require.NoError(t, next.Open())
		last.Pause()
	}
}

func TestOpensWithoutFreeDescriptors(t *testing.T) {
	g, _ := listen(t)
	require.NoError(t, g.Open())
	g.Pause()

	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	low := limit
	low.Cur = 128
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) }()
	var hogs []int
	for {
		n, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			require.ErrorIs(t, err, unix.EMFILE)
			break
		}
		hogs = append(hogs, n)
	}
	err := g.Open()
	for _, n := range hogs {
		unix.Close(n)
	}
	require.NoError(t, err)
}

func TestUnixSocketFileSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	ln.SetUnlinkOnClose(false)
	addr := ln.Addr()
	g := gate.NewListener(shared(t, ln), addr, nil, nil)
	require.NoError(t, g.Open())
	g.Pause()
	require.NoError(t, g.Open())
	require.NoError(t, g.Close())
	assert.FileExists(t, path)
}

func packetConn(t *testing.T, network, address string) *gate.PacketConn {
	t.Helper()
	pc, err := net.ListenPacket(network, address)
	require.NoError(t, err)
	addr := pc.LocalAddr()
	fd := shared(t, pc.(interface {
		File() (*os.File, error)
		Close() error
	}))
	g := gate.NewPacketConn(fd, addr)
	t.Cleanup(func() { assert.NoError(t, g.Close()) })
	return g
}

func TestPacketConnReadsThroughTheOpenGateAndWritesAlways(t *testing.T) {
	for _, tt := range []struct{ network, address string }{
		{"udp4", "127.0.0.1:0"}, {"udp6", "[::1]:0"}, {"udp", "[::]:0"},
	} {
		t.Run(tt.network+tt.address, func(t *testing.T) {
			g := packetConn(t, tt.network, tt.address)
			to := g.LocalAddr().(*net.UDPAddr)
			if to.IP.IsUnspecified() {
				to = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: to.Port}
			}
			c, err := net.DialUDP("udp", nil, to)
			require.NoError(t, err)
			defer c.Close()
			_, err = c.Write([]byte("hello"))
			require.NoError(t, err)

			buf := make([]byte, 16)
			require.NoError(t, g.SetReadDeadline(time.Now().Add(-time.Second)))
			_, _, err = g.ReadFrom(buf)
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NoError(t, g.SetReadDeadline(time.Time{}))

			require.NoError(t, g.Open())
			n, from, err := g.ReadFrom(buf)
			require.NoError(t, err)
			assert.Equal(t, "hello", string(buf[:n]))

			for _, open := range []bool{true, false} {
				if !open {
					g.Pause()
				}
				_, err = g.WriteTo([]byte("answer"), from)
				require.NoError(t, err)
				n, err = c.Read(buf)
				require.NoError(t, err)
				assert.Equal(t, "answer", string(buf[:n]))
			}
		})
	}
}

func TestPacketConnAnswersAfterCloseRead(t *testing.T) {
	g := packetConn(t, "udp4", "127.0.0.1:0")
	require.NoError(t, g.Open())
	c, err := net.Dial("udp4", g.LocalAddr().String())
	require.NoError(t, err)
	defer c.Close()
	_, err = c.Write([]byte("question"))
	require.NoError(t, err)
	buf := make([]byte, 16)
	_, from, err := g.ReadFrom(buf)
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		_, _, err := g.ReadFrom(make([]byte, 1))
		ended <- err
	}()
	require.NoError(t, g.CloseRead())
	require.ErrorIs(t, <-ended, net.ErrClosed)
	_, err = g.WriteTo([]byte("answer"), from)
	require.NoError(t, err)
	n, err := c.Read(buf)
	require.NoError(t, err)
	assert.Equal(t, "answer", string(buf[:n]))
}

func TestPacketConnPauseInterruptsRead(t *testing.T) {
	g := packetConn(t, "udp4", "127.0.0.1:0")
	require.NoError(t, g.Open())
	ch := make(chan error, 1)
	go func() {
		_, _, err := g.ReadFrom(make([]byte, 1))
		ch <- err
	}()
	g.Pause()
	select {
	case err := <-ch:
		t.Fatal(err)
	default:
	}
	require.NoError(t, g.Close())
	require.ErrorIs(t, <-ch, net.ErrClosed)
	_, err := g.WriteTo(nil, g.LocalAddr())
	assert.True(t, errors.Is(err, net.ErrClosed))
}

// TestSettleWaitsForWhatWasBeingAccepted stops an accept in the middle, closes
// the gate, and sees that Settle waits for it and that nothing is lost.
func TestSettleWaitsForWhatWasBeingAccepted(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := ln.Addr()
	inside, proceed := make(chan struct{}), make(chan struct{})
	g := gate.NewListener(shared(t, ln.(*net.TCPListener)), addr, func(c net.Conn) net.Conn {
		close(inside)
		<-proceed
		return c
	}, nil)
	defer g.Close()
	g.Settle() // nothing to wait for
	require.NoError(t, g.Open())
	ch := accept(g)
	dial(t, addr)
	<-inside
	g.Pause()
	settled := make(chan struct{})
	go func() { g.Settle(); close(settled) }()
	select {
	case <-settled:
		t.Fatal("settled while a connection is in hand")
	default:
	}
	close(proceed)
	<-settled
	a := <-ch
	require.NoError(t, a.err)
	require.NoError(t, a.c.Close())
}
