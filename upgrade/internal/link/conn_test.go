package link_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/link"
)

func TestSendReceive(t *testing.T) {
	leak.Check(t)
	a, b := connect(t)
	tracers := newTracers(t, 2)
	pair, _ := writers(tracers)
	for _, conns := range [][2]*link.Conn{{a, b}, {b, a}} {
		for _, m := range messages() {
			require.NoError(t, conns[0].Send(m, pair[:filesOf(m)]...))
		}
		for _, m := range messages() {
			got, files := next(t, conns[1])
			assert.Equal(t, m, got)
			assert.Len(t, files, filesOf(m))
			closeFiles(t, files)
		}
	}
	requireGone(t, tracers)
}

func TestFiles(t *testing.T) {
	leak.Check(t)
	a, b := connect(t)
	tracers := newTracers(t, link.MaxFiles)
	files, _ := writers(tracers)
	require.NoError(t, a.Send(link.Hello{Min: 1, Max: 1}, files...))
	_, got := next(t, b)
	require.Len(t, got, link.MaxFiles)
	for i, f := range got {
		// In order, and the same open file.
		_, err := fmt.Fprintf(f, "%02d", i)
		require.NoError(t, err)
		text := make([]byte, 2)
		_, err = io.ReadFull(tracers[i].r, text)
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("%02d", i), string(text))

		raw, err := f.SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) {
			flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0)
			assert.NoError(t, err)
			assert.NotZero(t, flags&unix.FD_CLOEXEC, "no close-on-exec")
		}))
	}
	// The sender's files are the sender's, and in the mode in which they were.
	for _, f := range files {
		_, err := f.Write([]byte("x"))
		require.NoError(t, err)
		raw, err := f.SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) {
			flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
			assert.NoError(t, err)
			assert.NotZero(t, flags&unix.O_NONBLOCK, "put into blocking mode")
		}))
	}
	for i := range tracers {
		_, err := tracers[i].r.Read(make([]byte, 1))
		require.NoError(t, err)
	}
	closeFiles(t, got)
	requireGone(t, tracers)
}

func TestSendRefuses(t *testing.T) {
	leak.Check(t)
	a, b := connect(t)
	tracers := newTracers(t, link.MaxFiles+1)
	files, _ := writers(tracers)

	require.ErrorIs(t, a.Send(link.Serve{}, files...), link.ErrTooLarge)
	require.ErrorIs(t, a.Send(link.Refuse{Message: strings.Repeat("x", link.MaxFrame)}), link.ErrTooLarge)
	require.EqualError(t, a.Send(nil), "send: no message")
	require.ErrorContains(t, a.Send(link.Meet{}, files[0]), "send meet: 1 of 2 file descriptors")
	require.Error(t, a.Send(link.Serve{}, nil))

	closed := newTracer(t)
	require.NoError(t, closed.w.Close())
	err := a.Send(link.Meet{}, files[0], closed.w)
	require.ErrorIs(t, err, os.ErrClosed)
	require.ErrorContains(t, err, "file 1")

	// Nothing of it was sent.
	require.NoError(t, a.Send(link.Serve{}))
	m, _ := next(t, b)
	assert.Equal(t, link.Serve{}, m)
	requireGone(t, tracers)
}

// A peer that breaks the rules gets a FrameError, costs no descriptor, and the
// next message is received.
func TestReceiveRefuses(t *testing.T) {
	for _, test := range []struct {
		name  string
		frame string
		files int
		kind  link.Kind
		want  string // with "file descriptors came" the message is in the error
	}{
		{"empty", "", 0, "", "empty frame"},
		{"empty with descriptors", "", 3, "", "empty frame"},
		{"no JSON", "hello", 2, "", "invalid character"},
		{"announced and did not come", `{"kind":"meet","fds":2}`, 0, "meet", "0 file descriptors came, 2 were announced"},
		{"one is missing", `{"kind":"meet","fds":3}`, 2, "meet", "2 file descriptors came, 3 were announced"},
		{"one too many", `{"kind":"meet","fds":2}`, 3, "meet", "3 file descriptors came, 2 were announced"},
		{"came unannounced", `{"kind":"serve"}`, 1, "serve", "1 file descriptors came, 0 were announced"},
		{"unknown and unannounced", `{"kind":"teleport"}`, 1, "teleport", "1 file descriptors came, 0 were announced"},
		{"more than there is room for", `{"kind":"meet","fds":20}`, 20, "meet", "16 of 20 file descriptors came"},
		{"more than there is room for, as many announced", `{"kind":"meet","fds":16}`, 20, "meet", "16 of 16 file descriptors came: more"},
		{"as many as the kernel allows", `{"kind":"serve","fds":253}`, 253, "serve", "16 of 253 file descriptors came"},
		{"too large", `{"kind":"serve"}` + strings.Repeat(" ", link.MaxFrame), 1, "", "too large"},
		{"an offer that lost its session", `{"kind":"offer","fds":2,"body":{"id":7}}`, 1, "offer", "1 file descriptors came, 2 were announced"},
		{"refused for its body", `{"kind":"hello","fds":1}`, 1, "hello", "not a range"},
	} {
		t.Run(test.name, func(t *testing.T) {
			leak.Check(t)
			conn, peer := connectRaw(t)
			defer peer.close(t)
			defer conn.Close()
			tracers := newTracers(t, test.files)
			_, fds := writers(tracers)

			peer.send(t, test.frame, fds...)
			m, files, err := conn.Receive()
			var refused *link.FrameError
			require.ErrorAs(t, err, &refused)
			assert.Equal(t, test.kind, refused.Kind)
			assert.ErrorContains(t, err, test.want)
			if strings.Contains(test.want, "file descriptors came") {
				assert.NotNil(t, refused.Message)
			} else {
				assert.Nil(t, refused.Message)
			}
			assert.Nil(t, m)
			assert.Nil(t, files)
			requireGone(t, tracers)

			peer.send(t, `{"kind":"serve"}`)
			m, _ = next(t, conn)
			assert.Equal(t, link.Serve{}, m)
		})
	}
}

// An unknown message is no error; but nobody knows what its files are for.
func TestReceiveUnknown(t *testing.T) {
	leak.Check(t)
	conn, peer := connectRaw(t)
	defer peer.close(t)
	defer conn.Close()
	tracers := newTracers(t, 2)
	_, fds := writers(tracers)
	peer.send(t, `{"kind":"teleport","fds":2,"body":{"x":1}}`, fds...)
	m, files := next(t, conn)
	assert.Equal(t, link.Unknown{Name: "teleport", Unanswered: true}, m)
	assert.Empty(t, files)
	requireGone(t, tracers)
}

// The kernel drops descriptors for which this process has no free number.
func TestReceiveWithoutFreeDescriptors(t *testing.T) {
	leak.Check(t)
	a, b := connect(t)
	tracers := newTracers(t, 4)
	files, _ := writers(tracers)
	require.NoError(t, a.Send(link.Hello{Min: 1, Max: 1}, files...))

	restore := exhaust(t, 2)
	_, got, err := b.Receive()
	restore()

	var refused *link.FrameError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, link.KindHello, refused.Kind)
	assert.Equal(t, link.Hello{Min: 1, Max: 1}, refused.Message, "what came without its descriptors")
	assert.ErrorContains(t, err, "2 of 4 file descriptors came")
	assert.Nil(t, got)
	requireGone(t, tracers)

	require.NoError(t, a.Send(link.Serve{}))
	m, _ := next(t, b)
	assert.Equal(t, link.Serve{}, m)
}

// exhaust leaves this process free descriptors, and no more.
func exhaust(t *testing.T, free int) (restore func()) {
	t.Helper()
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	lowered := limit
	lowered.Cur = 256 // soon reached
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &lowered))
	var fds []int
	for {
		fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			assert.ErrorIs(t, err, unix.EMFILE)
			break
		}
		fds = append(fds, fd)
	}
	for range free {
		assert.NoError(t, unix.Close(fds[0]))
		fds = fds[1:]
	}
	return func() {
		for _, fd := range fds {
			assert.NoError(t, unix.Close(fd))
		}
		assert.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	}
}

func TestSendFull(t *testing.T) {
	leak.Check(t)
	a, b := connect(t)
	sent := 0
	var err error
	for err == nil {
		if err = a.Send(link.Hurry{DeadlineUnixNano: int64(sent)}); err == nil {
			sent++
		}
	}
	require.ErrorIs(t, err, link.ErrFull)
	require.ErrorIs(t, err, unix.EAGAIN)
	require.Greater(t, sent, 10)

	// Nothing is lost, and nothing of what was refused arrives.
	for i := range sent {
		m, _ := next(t, b)
		require.Equal(t, link.Hurry{DeadlineUnixNano: int64(i)}, m)
	}
	require.NoError(t, a.Send(link.Serve{}))
	m, _ := next(t, b)
	assert.Equal(t, link.Serve{}, m)
}

// The mode of a socket belongs to all processes that have it: another one may
// have changed it.
func TestSendFullInBlockingMode(t *testing.T) {
	leak.Check(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fds[1])
	conn, err := link.NewFD(fds[0])
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, unix.SetNonblock(fds[0], false))
	for err == nil {
		err = conn.Send(link.Serve{}) // hangs if it may
	}
	require.ErrorIs(t, err, link.ErrFull)
}

// What was sent with a message that did not fit is not kept by anybody.
func TestSendFullKeepsNoFiles(t *testing.T) {
	leak.Check(t)
	a, _ := connect(t)
	for a.Send(link.Serve{}) == nil {
	}
	tracers := newTracers(t, 2)
	files, _ := writers(tracers)
	require.ErrorIs(t, a.Send(link.Meet{}, files...), link.ErrFull)
	requireGone(t, tracers)
}

func TestSendConcurrently(t *testing.T) {
	leak.Check(t)
	a, b := connect(t)
	const senders, each = 8, 100
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				m := link.Report{PID: s, Generation: i, Version: strings.Repeat("x", i)}
				err := a.Send(m)
				for errors.Is(err, link.ErrFull) {
					runtime.Gosched()
					err = a.Send(m)
				}
				assert.NoError(t, err)
			}
		})
	}
	var seen [senders]int
	for range senders * each {
		m, _ := next(t, b)
		r := m.(link.Report)
		require.Equal(t, seen[r.PID], r.Generation, "order of sender %d", r.PID)
		require.Len(t, r.Version, r.Generation)
		seen[r.PID]++
	}
	wg.Wait()
}

func TestPeerCloses(t *testing.T) {
	leak.Check(t)
	a, b := connect(t)
	require.NoError(t, b.Send(link.Stopping{Reason: "SIGTERM"}))
	require.NoError(t, b.Close())

	err := a.Send(link.Serve{})
	require.ErrorIs(t, err, link.ErrPeerClosed)
	require.ErrorIs(t, err, unix.EPIPE)

	m, _ := next(t, a)
	assert.Equal(t, link.Stopping{Reason: "SIGTERM"}, m)
	for range 2 {
		_, _, err = a.Receive()
		require.ErrorIs(t, err, io.EOF)
	}
}

// With unread messages in the closed end the kernel reports ECONNRESET, before
// it gives out what had come the other way: it must not hide that.
func TestPeerClosesWithUnreadMessages(t *testing.T) {
	t.Run("receive", func(t *testing.T) {
		leak.Check(t)
		a, b := connect(t)
		require.NoError(t, a.Send(link.Serve{}))
		require.NoError(t, b.Send(link.Stopping{Reason: "SIGTERM"}))
		require.NoError(t, b.Close())
		m, _ := next(t, a)
		assert.Equal(t, link.Stopping{Reason: "SIGTERM"}, m)
		_, _, err := a.Receive()
		require.ErrorIs(t, err, io.EOF)
	})
	t.Run("send", func(t *testing.T) {
		leak.Check(t)
		a, b := connect(t)
		require.NoError(t, a.Send(link.Serve{}))
		require.NoError(t, b.Send(link.Stopping{Reason: "SIGTERM"}))
		require.NoError(t, b.Close())
		require.ErrorIs(t, a.Send(link.Serve{}), link.ErrPeerClosed)
		require.ErrorIs(t, a.Send(link.Serve{}), link.ErrPeerClosed)
		m, _ := next(t, a)
		assert.Equal(t, link.Stopping{Reason: "SIGTERM"}, m)
		_, _, err := a.Receive()
		require.ErrorIs(t, err, io.EOF)
	})
}

// Descriptors that nobody received are closed with the link.
func TestCloseWithUnreadFiles(t *testing.T) {
	leak.Check(t)
	a, b := connect(t)
	tracers := newTracers(t, 2)
	files, _ := writers(tracers)
	require.NoError(t, a.Send(link.Meet{}, files...))
	require.NoError(t, b.Close())
	requireGone(t, tracers)
}

func TestClose(t *testing.T) {
	leak.Check(t)
	a, _ := connect(t)
	received := make(chan error)
	go func() {
		_, _, err := a.Receive()
		received <- err
	}()
	require.NoError(t, a.Close())
	require.ErrorIs(t, <-received, net.ErrClosed)

	_, _, err := a.Receive()
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, a.Send(link.Serve{}), net.ErrClosed)
	a.Finish()
	_, _, err = a.Receive()
	require.ErrorIs(t, err, net.ErrClosed)
	require.NoError(t, a.Close())
}

func TestNewRefuses(t *testing.T) {
	t.Run("stream socket", func(t *testing.T) {
		leak.Check(t)
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(fds[1])
		_, err = link.NewFD(fds[0]) // closes it
		require.ErrorContains(t, err, "not an end of a link")
	})
	t.Run("no socket", func(t *testing.T) {
		leak.Check(t)
		r, w, err := os.Pipe()
		require.NoError(t, err)
		defer w.Close()
		_, err = link.New(r) // closes it
		require.ErrorIs(t, err, unix.ENOTSOCK)
		require.ErrorIs(t, r.Close(), os.ErrClosed)
	})
	t.Run("not open", func(t *testing.T) {
		_, err := link.NewFD(-1)
		require.ErrorIs(t, err, unix.EBADF)
	})
	t.Run("closed file", func(t *testing.T) {
		a, b, err := link.Pair()
		require.NoError(t, err)
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
		_, err = link.New(a)
		require.ErrorIs(t, err, os.ErrClosed)
		_, err = link.New(nil)
		require.ErrorIs(t, err, os.ErrInvalid)
	})
}

// A descriptor that comes through exec may be in blocking mode and without
// close-on-exec.
func TestNewOfBlockingDescriptor(t *testing.T) {
	leak.Check(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	require.NoError(t, err)
	a, err := link.New(os.NewFile(uintptr(fds[0]), "blocking"))
	require.NoError(t, err)
	b, err := link.NewFD(fds[1])
	require.NoError(t, err)
	flags, err := unix.FcntlInt(uintptr(fds[1]), unix.F_GETFD, 0)
	require.NoError(t, err)
	assert.NotZero(t, flags&unix.FD_CLOEXEC)

	received := make(chan error)
	go func() {
		_, _, err := b.Receive()
		received <- err
	}()
	require.NoError(t, b.Close()) // hangs if Receive is in a system call
	require.ErrorIs(t, <-received, net.ErrClosed)
	require.NoError(t, a.Close())
}
