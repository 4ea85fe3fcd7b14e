package activation_test

import (
	"errors"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/activation"
	"github.com/hdctl/handoff/test/leak"
)

// newSet makes an activated set, as systemd's or a predecessor's, of duplicates of
// the descriptors.
func newSet(t *testing.T, fds ...activation.NamedFD) *activation.Sockets {
	t.Helper()
	for i := range fds {
		fds[i].FD = dup(t, fds[i].FD)
	}
	s, err := activation.NewSockets(true, fds...)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, s.Close()) })
	return s
}

func closeFDs(t *testing.T, fds []activation.FD) {
	t.Helper()
	for _, f := range fds {
		assert.NoError(t, unix.Close(f.FD))
	}
}

func TestListenClaimsAllOfAName(t *testing.T) {
	leak.Check(t)
	a, addrA := systemdSocket(t, "tcp", "127.0.0.1:0")
	b, _ := systemdSocket(t, "tcp", "127.0.0.1:0")
	c, addrC := systemdSocket(t, "unix", tempSocket(t))
	s := newSet(t, activation.NamedFD{Name: "http", FD: a}, activation.NamedFD{Name: "admin", FD: b}, activation.NamedFD{Name: "http", FD: c})

	lns, err := s.Listen(t.Context(), "http", "tcp", "127.0.0.1:1")
	require.NoError(t, err)
	require.Len(t, lns, 2)
	assert.Equal(t, addrA, lns[0].Addr().String())
	assert.Equal(t, addrC, lns[1].Addr().String())
	assert.Equal(t, "unix", lns[1].Addr().Network())

	all := s.All()
	require.Len(t, all, 3)
	assert.Equal(t, []bool{true, false, true}, []bool{all[0].Claimed, all[1].Claimed, all[2].Claimed})
	assert.Equal(t, []int{0, 0, 1}, []int{all[0].Index, all[1].Index, all[2].Index})
	assert.Equal(t, all[1:2], s.Unclaimed())

	_, err = s.Listen(t.Context(), "http", "tcp", "127.0.0.1:0")
	assert.ErrorIs(t, err, activation.ErrClaimed)
	assert.EqualError(t, err, `claim socket "http": activation: already claimed`)
	_, err = s.ClaimFDs(t.Context(), "http", "", "")
	assert.ErrorIs(t, err, activation.ErrClaimed)

	// systemd's NonBlocking=no gives blocking sockets: Close has to end Accept
	// nevertheless.
	for _, ln := range lns {
		accepting := make(chan struct{})
		ended := make(chan error)
		go func() {
			close(accepting)
			_, err := ln.Accept()
			ended <- err
		}()
		<-accepting
		require.NoError(t, ln.Close())
		assert.ErrorIs(t, <-ended, net.ErrClosed)
	}
	assert.FileExists(t, addrC)
}

// A .socket unit with ListenStream=53 and ListenDatagram=53 has one name for both.
func TestClaimTakesWhatItCanUse(t *testing.T) {
	leak.Check(t)
	udp, udpAddr := systemdSocket(t, "udp", "127.0.0.1:0")
	tcp, tcpAddr := systemdSocket(t, "tcp", "127.0.0.1:0")
	ff, _ := fifo(t)
	named := func(fd int) activation.NamedFD { return activation.NamedFD{Name: "dns", FD: fd} }
	s := newSet(t, named(udp), named(tcp), named(ff))

	lns, err := s.Listen(t.Context(), "dns", "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.Len(t, lns, 1)
	defer lns[0].Close()
	assert.Equal(t, tcpAddr, lns[0].Addr().String())

	_, err = s.Listen(t.Context(), "dns", "tcp", "127.0.0.1:0")
	assert.ErrorIs(t, err, activation.ErrClaimed)

	conns, err := s.ListenPacket(t.Context(), "dns", "udp", "127.0.0.1:0")
	require.NoError(t, err)
	require.Len(t, conns, 1)
	defer conns[0].Close()
	assert.Equal(t, udpAddr, conns[0].LocalAddr().String())

	files, err := s.Files("dns")
	require.NoError(t, err)
	require.Len(t, files, 1)
	assert.NoError(t, files[0].Close())
	assert.Empty(t, s.Unclaimed())
}

func TestClaimFDs(t *testing.T) {
	leak.Check(t)
	ctx := t.Context()
	tcp, _ := systemdSocket(t, "tcp", "127.0.0.1:0")
	seq, _ := systemdSocket(t, "unixpacket", tempSocket(t))
	udp, _ := systemdSocket(t, "udp", "127.0.0.1:0")
	null := open(t, "/dev/null")
	named := func(fd int) activation.NamedFD { return activation.NamedFD{Name: "x", FD: fd} }
	s := newSet(t, named(udp), named(tcp), named(null), named(seq))

	_, err := s.ClaimFDs(ctx, "x", "udpx", "127.0.0.1:0")
	assert.EqualError(t, err, `claim socket "x": unknown network udpx`)

	fds, err := s.ClaimFDs(ctx, "x", "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer closeFDs(t, fds)
	require.Len(t, fds, 2)
	assert.Equal(t, activation.FD{Name: "x", Index: 1, FD: fds[0].FD, Kind: activation.Stream}, fds[0])
	assert.Equal(t, activation.FD{Name: "x", Index: 3, FD: fds[1].FD, Kind: activation.Seqpacket}, fds[1])
	assert.Equal(t, inode(t, tcp), inode(t, fds[0].FD))

	rest, err := s.ClaimFDs(ctx, "x", "", "")
	require.NoError(t, err)
	defer closeFDs(t, rest)
	require.Len(t, rest, 2)
	assert.Equal(t, activation.Packet, rest[0].Kind)
	assert.Equal(t, activation.Other, rest[1].Kind)

	for _, f := range append(fds, rest...) {
		assert.True(t, closeOnExec(t, f.FD))
		assert.Equal(t, f.Kind != activation.Other, nonblocking(t, f.FD), "sockets, but not a device")
	}
	assert.True(t, nonblocking(t, tcp), "the flag is the socket's, not the descriptor's")
	assert.Empty(t, s.Unclaimed())
}

func TestFiles(t *testing.T) {
	leak.Check(t)
	ff, path := fifo(t)
	nl := netlink(t)
	conn, _ := connection(t)
	s := newSet(t, activation.NamedFD{Name: "fifo", FD: ff}, activation.NamedFD{Name: "udev", FD: nl}, activation.NamedFD{Name: "connection", FD: conn})

	for _, name := range []string{"fifo", "udev", "connection"} {
		files, err := s.Files(name)
		require.NoError(t, err)
		require.Len(t, files, 1)
		f := files[0]
		assert.Equal(t, name, f.Name())

		// A deadline needs a descriptor that the runtime can wait for.
		require.NoError(t, f.SetReadDeadline(time.Unix(1, 0)))
		_, err = f.Read(make([]byte, 1))
		assert.ErrorIs(t, err, os.ErrDeadlineExceeded)

		// Fd of a file that came non-blocking leaves it so.
		f.Fd()
		assert.True(t, nonblocking(t, int(f.Fd())), name)

		if name == "connection" {
			c, err := net.FileConn(f)
			require.NoError(t, err)
			_, err = c.Write([]byte("hello"))
			assert.NoError(t, err)
			c.Close()
		}
		require.NoError(t, f.Close())
	}
	assert.FileExists(t, path)

	_, err := s.Files("fifo")
	assert.ErrorIs(t, err, activation.ErrClaimed)
}

func TestNameError(t *testing.T) {
	leak.Check(t)
	tcp, _ := systemdSocket(t, "tcp", "127.0.0.1:0")
	named := func(name string) activation.NamedFD { return activation.NamedFD{Name: name, FD: tcp} }
	set := newSet(t, named("web"), named("admin.socket"), named("web"))
	tests := []struct {
		name  string
		claim func() error
	}{
		{"Listen", func() error { _, err := set.Listen(t.Context(), "http", "tcp", "127.0.0.1:0"); return err }},
		{"ListenPacket", func() error { _, err := set.ListenPacket(t.Context(), "http", "udp", "127.0.0.1:0"); return err }},
		{"ClaimFDs", func() error { _, err := set.ClaimFDs(t.Context(), "http", "tcp", "127.0.0.1:0"); return err }},
		{"ClaimFDs of anything", func() error { _, err := set.ClaimFDs(t.Context(), "http", "", ""); return err }},
		{"Files", func() error { _, err := set.Files("http"); return err }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.claim()
			e, ok := errors.AsType[*activation.NameError](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, "http", e.Name)
			assert.Equal(t, []string{"web", "admin.socket"}, e.Passed)
			assert.EqualError(t, err, `activation: no socket named "http" was passed (passed: "web", "admin.socket");`+
				` a later generation has the sockets of the first: set FileDescriptorName=http in the .socket unit, start that unit and restart the service`)
		})
	}
	assert.Len(t, set.Unclaimed(), 3)

	var got taken
	systemd{child: "take", fds: []int{tcp, tcp}, env: passing("web", "admin.socket")}.run(t, &got)
	assert.Equal(t, `activation: no socket named "not passed" was passed (passed: "web", "admin.socket");`+
		` set FileDescriptorName=not passed in its .socket unit and start that unit`, got.Bind)

	var unactivated activation.Sockets
	want := `activation: no socket named "http" was passed; systemd did not start this process, and there is no address to bind instead`
	_, err := unactivated.Files("http")
	assert.EqualError(t, err, want)
	_, err = unactivated.Listen(t.Context(), "http", "", "")
	assert.EqualError(t, err, want)
	_, err = unactivated.Listen(t.Context(), "http", "tcp", "")
	assert.EqualError(t, err, want)

	assert.EqualError(t, &activation.NameError{Name: "http"}, `activation: no socket named "http" was passed`)
}

func TestKindError(t *testing.T) {
	leak.Check(t)
	udp, udpAddr := systemdSocket(t, "udp", "127.0.0.1:0")
	gram, gramAddr := systemdSocket(t, "unixgram", tempSocket(t))
	tcp, tcpAddr := systemdSocket(t, "tcp", "127.0.0.1:0")
	seq, seqAddr := systemdSocket(t, "unixpacket", tempSocket(t))
	conn, connAddr := connection(t)
	ff, ffPath := fifo(t)
	nl := netlink(t)
	const (
		listener = "a TCP or unix listener (ListenStream= or ListenSequentialPacket=, with Accept=no)"
		packet   = "a UDP or unix datagram socket (ListenDatagram=)"
	)
	tests := []struct {
		name    string
		fd      int
		network string
		want    activation.KindError
	}{
		{"udp for Listen", udp, "tcp", activation.KindError{Want: listener, Got: "a udp datagram socket (" + udpAddr + ")"}},
		{"unixgram for Listen", gram, "unix", activation.KindError{Want: listener, Got: "a unixgram datagram socket (" + gramAddr + ")"}},
		{"connection for Listen", conn, "tcp", activation.KindError{Want: listener, Got: "a tcp connection (" + connAddr + ")"}},
		{"fifo for Listen", ff, "tcp", activation.KindError{Want: listener, Got: "of kind fifo (" + ffPath + ")"}},
		{"netlink for Listen", nl, "tcp", activation.KindError{Want: listener, Got: "of kind netlink (kobject-uevent 1)"}},
		{"tcp for ListenPacket", tcp, "udp", activation.KindError{Want: packet, Got: "a tcp stream listener (" + tcpAddr + ")"}},
		{"seqpacket for ListenPacket", seq, "unixgram", activation.KindError{Want: packet, Got: "a unixpacket seqpacket listener (" + seqAddr + ")"}},
		{"netlink for ListenPacket", nl, "udp", activation.KindError{Want: packet, Got: "of kind netlink (kobject-uevent 1)"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leak.Check(t)
			s := newSet(t, activation.NamedFD{Name: "x", FD: tt.fd})
			tt.want.Name = "x"
			var err error
			if tt.want.Want == listener {
				_, err = s.Listen(t.Context(), "x", tt.network, "127.0.0.1:0")
			} else {
				_, err = s.ListenPacket(t.Context(), "x", tt.network, "127.0.0.1:0")
			}
			got, ok := errors.AsType[*activation.KindError](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, tt.want, *got)
			assert.EqualError(t, err, `activation: socket "x" is `+tt.want.Got+", not "+tt.want.Want)

			_, err = s.ClaimFDs(t.Context(), "x", tt.network, "127.0.0.1:0")
			_, ok = errors.AsType[*activation.KindError](err)
			assert.True(t, ok, "%v", err)
			assert.Len(t, s.Unclaimed(), 1, "nothing is claimed")
		})
	}
}

func TestNetworkThatDoesNotFit(t *testing.T) {
	leak.Check(t)
	tcp, _ := systemdSocket(t, "tcp", "127.0.0.1:0")
	s := newSet(t, activation.NamedFD{Name: "x", FD: tcp})
	for _, network := range []string{"udp", "unixgram", "ip", "tcp5"} {
		_, err := s.Listen(t.Context(), "x", network, "127.0.0.1:0")
		assert.ErrorIs(t, err, net.UnknownNetworkError(network))
	}
	for _, network := range []string{"tcp", "unix", "unixpacket", "ip4:icmp"} {
		_, err := s.ListenPacket(t.Context(), "x", network, "127.0.0.1:0")
		assert.ErrorIs(t, err, net.UnknownNetworkError(network))
	}
	assert.Len(t, s.Unclaimed(), 1)
}

// A later generation does not bind either, although systemd did not start it.
func TestSuccessorNeverBinds(t *testing.T) {
	leak.Check(t)
	s := newSet(t)
	assert.True(t, s.Activated())
	path := tempSocket(t)
	_, listenErr := s.Listen(t.Context(), "http", "unix", path)
	_, packetErr := s.ListenPacket(t.Context(), "log", "unixgram", path)
	_, claimErr := s.ClaimFDs(t.Context(), "http", "unix", path)
	for _, err := range []error{listenErr, packetErr, claimErr} {
		_, ok := errors.AsType[*activation.NameError](err)
		assert.True(t, ok, "%v", err)
	}
	assert.NoFileExists(t, path)
}

func TestClose(t *testing.T) {
	leak.Check(t)
	a, _ := systemdSocket(t, "tcp", "127.0.0.1:0")
	b, addrB := systemdSocket(t, "unix", tempSocket(t))
	d := dup(t, b)
	s, err := activation.NewSockets(true, activation.NamedFD{Name: "a", FD: dup(t, a)}, activation.NamedFD{Name: "b", FD: d})
	require.NoError(t, err)
	claimed, err := s.ClaimFDs(t.Context(), "a", "tcp", "")
	require.NoError(t, err)
	defer closeFDs(t, claimed)

	require.NoError(t, s.Close())
	assert.Empty(t, s.Unclaimed())
	assert.Len(t, s.All(), 2)
	assert.Equal(t, inode(t, a), inode(t, claimed[0].FD), "what is claimed stays open")
	_, err = unix.FcntlInt(uintptr(d), unix.F_GETFD, 0)
	assert.ErrorIs(t, err, unix.EBADF, "what is not is closed")
	assert.FileExists(t, addrB)

	// The number belongs to somebody else now.
	require.NoError(t, unix.Dup3(a, d, unix.O_CLOEXEC))
	require.NoError(t, s.Close(), "a second Close does nothing")
	require.NoError(t, unix.Close(d))

	_, err = s.Listen(t.Context(), "b", "unix", addrB)
	assert.ErrorIs(t, err, os.ErrClosed)
	_, err = s.Files("b")
	assert.ErrorIs(t, err, os.ErrClosed)

	var unactivated activation.Sockets
	require.NoError(t, unactivated.Close())
	_, err = unactivated.Listen(t.Context(), "b", "tcp", "127.0.0.1:0")
	assert.ErrorIs(t, err, os.ErrClosed, "and does not bind any more")

	// systemd's socket was not shut down.
	read := dial(t, "unix", addrB)
	next := newSet(t, activation.NamedFD{Name: "b", FD: b})
	lns, err := next.Listen(t.Context(), "b", "", "")
	require.NoError(t, err)
	go answer(lns[0], "still here")
	assert.Equal(t, "still here\n", read())
	require.NoError(t, lns[0].Close())
}

func TestNewSockets(t *testing.T) {
	leak.Check(t)
	tcp, _ := systemdSocket(t, "tcp", "127.0.0.1:0")

	d, err := unix.Dup(tcp)
	require.NoError(t, err)
	require.False(t, closeOnExec(t, d))
	s, err := activation.NewSockets(false, activation.NamedFD{FD: d})
	require.NoError(t, err)
	assert.True(t, closeOnExec(t, d))
	assert.False(t, s.Activated())
	assert.Equal(t, "unknown", s.All()[0].Name)
	require.NoError(t, s.Close())

	// In case of an error there is no set that could be closed.
	a, b := dup(t, tcp), dup(t, tcp)
	_, err = activation.NewSockets(true, activation.NamedFD{Name: "a", FD: a}, activation.NamedFD{Name: "b", FD: b}, activation.NamedFD{Name: "c", FD: a})
	assert.EqualError(t, err, "make set of sockets: descriptor "+strconv.Itoa(a)+` is listed as "a" and as "c"`)
	c := dup(t, tcp)
	_, err = activation.NewSockets(true, activation.NamedFD{Name: "c", FD: c}, activation.NamedFD{Name: "none", FD: 1 << 20})
	assert.ErrorIs(t, err, unix.EBADF)
	assert.ErrorContains(t, err, `socket "none": describe descriptor 1048576`)
	_, err = activation.NewSockets(true, activation.NamedFD{Name: "none", FD: -1})
	assert.ErrorIs(t, err, unix.EBADF)
}

// A claim that fails in the middle has claimed nothing.
func TestClaimIsAllOrNothing(t *testing.T) {
	leak.Check(t)
	tcp, _ := systemdSocket(t, "tcp", "127.0.0.1:0")
	a, b := dup(t, tcp), dup(t, tcp)
	s, err := activation.NewSockets(true, activation.NamedFD{Name: "x", FD: a}, activation.NamedFD{Name: "x", FD: b})
	require.NoError(t, err)
	defer s.Close()

	require.NoError(t, unix.Close(b)) // somebody's mistake
	_, err = s.Listen(t.Context(), "x", "tcp", "")
	assert.ErrorIs(t, err, unix.EBADF)
	assert.Equal(t, 2, countFDs(t, tcp), "systemd's and the one that is left: no listener waits for the garbage collector")
	_, err = s.ClaimFDs(t.Context(), "x", "tcp", "")
	assert.ErrorIs(t, err, unix.EBADF)
	assert.Len(t, s.Unclaimed(), 2)
	assert.Equal(t, inode(t, tcp), inode(t, a))

	require.NoError(t, unix.Dup3(tcp, b, unix.O_CLOEXEC))
	lns, err := s.Listen(t.Context(), "x", "tcp", "")
	require.NoError(t, err)
	require.Len(t, lns, 2)
	for _, ln := range lns {
		assert.NoError(t, ln.Close())
	}
}

func TestConcurrentClaims(t *testing.T) {
	leak.Check(t)
	tcp, _ := systemdSocket(t, "tcp", "127.0.0.1:0")
	sets := map[string]*activation.Sockets{
		"passed": newSet(t, activation.NamedFD{Name: "x", FD: tcp}),
		"bound":  new(activation.Sockets),
	}
	for name, s := range sets {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			var won, lost atomic.Int32
			for range 16 {
				wg.Go(func() {
					lns, err := s.Listen(t.Context(), "x", "tcp", "127.0.0.1:0")
					s.Unclaimed()
					switch {
					case err == nil:
						won.Add(1)
						lns[0].Close()
					case errors.Is(err, activation.ErrClaimed):
						lost.Add(1)
					}
				})
			}
			wg.Wait()
			assert.EqualValues(t, 1, won.Load())
			assert.EqualValues(t, 15, lost.Load())
		})
	}
}
