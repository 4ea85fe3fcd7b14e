package sdnotify_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/sdnotify"
	"github.com/hdctl/handoff/upgrade/internal/sdnotify/sdnotifytest"
)

func TestNil(t *testing.T) {
	leak.Check(t)
	n := sdnotify.New("")
	require.Nil(t, n)
	require.NoError(t, n.Send(sdnotify.Ready))
	require.NoError(t, n.SendWithFiles([]*os.File{nil}, "FDSTORE=1"))
	require.NoError(t, n.Barrier(t.Context()))
	require.NoError(t, n.Close())
}

func TestSend(t *testing.T) {
	for _, address := range []string{"path", "abstract"} {
		t.Run(address, func(t *testing.T) {
			leak.Check(t)
			systemd := sdnotifytest.New(t)
			if address == "abstract" {
				var err error
				systemd, err = sdnotifytest.Listen(fmt.Sprintf("@sdnotify-test-%d", os.Getpid()))
				require.NoError(t, err)
				defer systemd.Close()
			}
			n := sdnotify.New(systemd.Address())
			defer n.Close()

			require.NoError(t, n.Send(sdnotify.MainPID(4242), sdnotify.Ready, "", sdnotify.Status("a\nb")))
			require.NoError(t, n.Send(sdnotify.Reloading()))
			require.NoError(t, n.Send())
			require.NoError(t, n.Send("", ""))
			require.NoError(t, n.Send(sdnotify.Stopping))

			// One datagram a call, with this process as sender.
			d := next(t, systemd)
			assert.Equal(t, []string{"MAINPID=4242", "READY=1", "STATUS=a b"}, d.Lines)
			assert.Equal(t, os.Getpid(), d.PID)
			assert.Equal(t, os.Getuid(), d.UID)
			assert.Zero(t, d.Files)
			d = next(t, systemd)
			assert.True(t, d.Has("RELOADING=1"))
			_, ok := d.Value("MONOTONIC_USEC")
			assert.True(t, ok)
			assert.Equal(t, []string{"STOPPING=1"}, next(t, systemd).Lines)
		})
	}
}

func TestSendWithFiles(t *testing.T) {
	leak.Check(t)
	n, systemd := start(t)
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	require.NoError(t, n.SendWithFiles([]*os.File{r, w}, "FDSTORE=1", "FDNAME=pipe"))
	d := next(t, systemd)
	assert.Equal(t, []string{"FDSTORE=1", "FDNAME=pipe"}, d.Lines)
	assert.Equal(t, 2, d.Files)

	// The files are still the caller's, and nobody else's.
	_, err = w.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	text, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.Equal(t, "x", string(text))

	require.ErrorIs(t, n.SendWithFiles([]*os.File{w}, "FDSTORE=1"), os.ErrClosed)
	require.ErrorIs(t, n.SendWithFiles([]*os.File{nil}, "FDSTORE=1"), os.ErrInvalid)
	require.ErrorIs(t, n.SendWithFiles([]*os.File{r}), unix.EINVAL)
	require.ErrorIs(t, n.SendWithFiles(make([]*os.File, 254), "FDSTORE=1"), unix.EMSGSIZE)
	assert.Len(t, systemd.Datagrams(), 1)
}

// systemd ignores such datagrams, with all that is in them.
func TestSendRefuses(t *testing.T) {
	leak.Check(t)
	n, systemd := start(t)
	require.ErrorIs(t, n.Send(sdnotify.Ready, "X="+strings.Repeat("x", 4096-len("READY=1\nX=")+1)), unix.EMSGSIZE)
	require.ErrorIs(t, n.Send(sdnotify.Ready, "STATUS=\x00"), unix.EINVAL)

	largest := "X=" + strings.Repeat("x", 4096-len("READY=1\nX="))
	require.NoError(t, n.Send(sdnotify.Ready, largest))
	d := next(t, systemd)
	assert.False(t, d.Truncated)
	assert.Equal(t, []string{"READY=1", largest}, d.Lines)
}

func TestNobodyListens(t *testing.T) {
	leak.Check(t)
	path := filepath.Join(t.TempDir(), "notify")
	for _, test := range []struct {
		address string
		want    error
	}{
		{path, unix.ENOENT},
		{"@nobody-is-here", unix.ECONNREFUSED},
		{"run/systemd/notify", unix.EAFNOSUPPORT},
		{"vsock:2:1234", unix.EAFNOSUPPORT},
		{"/" + strings.Repeat("x", 200), unix.EINVAL},
	} {
		n := sdnotify.New(test.address)
		err := n.Send(sdnotify.Ready)
		require.ErrorIs(t, err, test.want)
		assert.ErrorContains(t, err, test.address)
		require.ErrorIs(t, n.Barrier(t.Context()), test.want)
		require.NoError(t, n.Close())
	}
}

// systemctl daemon-reexec, or a systemd that makes its socket anew.
func TestSocketIsMadeAnew(t *testing.T) {
	leak.Check(t)
	address := filepath.Join(t.TempDir(), "notify")
	n := sdnotify.New(address)
	defer n.Close()
	for range 2 {
		systemd, err := sdnotifytest.Listen(address)
		require.NoError(t, err)
		require.NoError(t, n.Send(sdnotify.Watchdog))
		require.NoError(t, n.Barrier(t.Context()))
		assert.Equal(t, []string{"WATCHDOG=1"}, next(t, systemd).Lines)
		require.NoError(t, systemd.Close())
		require.Error(t, n.Send(sdnotify.Watchdog))
	}
}

// A service at its limit of descriptors must not die of its watchdog. The
// recorded PID is that of the very process that sent.
func TestSendWithoutFreeDescriptors(t *testing.T) {
	leak.Check(t)
	systemd := sdnotifytest.New(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+systemd.Address())
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Run())
	d := next(t, systemd)
	assert.Equal(t, []string{"WATCHDOG=1"}, d.Lines)
	assert.Equal(t, cmd.Process.Pid, d.PID)
}

// fill makes a notify socket that nobody reads, and fills its queue.
func fill(t *testing.T) (n *sdnotify.Notifier, socket int, sent int) {
	t.Helper()
	address := filepath.Join(t.TempDir(), "notify")
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Close(socket)) })
	require.NoError(t, unix.Bind(socket, &unix.SockaddrUnix{Name: address}))

	filler, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	require.NoError(t, err)
	defer unix.Close(filler)
	for err == nil {
		if err = unix.Sendto(filler, []byte("X=1"), 0, &unix.SockaddrUnix{Name: address}); err == nil {
			sent++
		}
	}
	require.ErrorIs(t, err, unix.EAGAIN)
	n = sdnotify.New(address)
	t.Cleanup(func() { require.NoError(t, n.Close()) })
	return n, socket, sent
}

func TestSendWaitsForRoom(t *testing.T) {
	leak.Check(t)
	n, socket, sent := fill(t)
	done := make(chan error)
	go func() { done <- n.Send(sdnotify.Ready) }()
	text := make([]byte, 100)
	for range sent {
		_, err := unix.Read(socket, text)
		require.NoError(t, err)
	}
	size, err := unix.Read(socket, text)
	require.NoError(t, err)
	assert.Equal(t, "READY=1", string(text[:size]))
	require.NoError(t, <-done)
}

// A systemd that hangs does not stop the service for more than a moment.
func TestSendGivesUp(t *testing.T) {
	leak.Check(t)
	n, _, _ := fill(t)
	err := n.Send(sdnotify.Ready)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, unix.EAGAIN)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, n.Barrier(ctx), context.Canceled)
}

func TestSendConcurrently(t *testing.T) {
	leak.Check(t)
	n, systemd := start(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				assert.NoError(t, n.Send(sdnotify.MainPID(i), sdnotify.Ready))
			}
			assert.NoError(t, n.Barrier(t.Context()))
		})
	}
	wg.Wait()
	ready := 0
	for _, d := range systemd.Datagrams() {
		if d.Has(sdnotify.Ready) {
			ready++
			assert.Len(t, d.Lines, 2)
		}
	}
	assert.Equal(t, 8*20, ready)
}

func TestClose(t *testing.T) {
	leak.Check(t)
	n, systemd := start(t)
	require.NoError(t, n.Close())
	require.NoError(t, n.Close())
	require.ErrorIs(t, n.Send(sdnotify.Ready), os.ErrClosed)
	require.ErrorIs(t, n.Barrier(t.Context()), os.ErrClosed)
	assert.Empty(t, systemd.Datagrams())
}

func TestBarrier(t *testing.T) {
	leak.Check(t)
	n, systemd := start(t)
	require.NoError(t, n.Send(sdnotify.MainPID(4242), sdnotify.Ready))
	require.NoError(t, n.Barrier(t.Context()))

	// What came before the barrier is there: no waiting here.
	all := systemd.Datagrams()
	require.Len(t, all, 2)
	assert.Equal(t, []string{"MAINPID=4242", "READY=1"}, all[0].Lines)
	// Alone in its datagram, with one descriptor.
	assert.Equal(t, []string{"BARRIER=1"}, all[1].Lines)
	assert.Equal(t, 1, all[1].Files)
	assert.Equal(t, os.Getpid(), all[1].PID)
}

func TestBarrierIsAnsweredLate(t *testing.T) {
	leak.Check(t)
	n, systemd := start(t)
	release := systemd.HoldBarriers()
	done := make(chan error, 1)
	go func() { done <- n.Barrier(t.Context()) }()
	_, err := systemd.Until(t.Context(), "BARRIER=1")
	require.NoError(t, err)
	// Later ones are processed meanwhile, and are no answer.
	require.NoError(t, n.Send(sdnotify.Watchdog))
	_, err = systemd.Until(t.Context(), "WATCHDOG=1")
	require.NoError(t, err)
	select {
	case err := <-done:
		t.Fatalf("the barrier was passed (%v) before it was answered", err)
	default:
	}
	release()
	require.NoError(t, <-done)
	require.NoError(t, n.Barrier(t.Context()))
}

func TestBarrierIsNeverAnswered(t *testing.T) {
	leak.Check(t)
	n, systemd := start(t)
	systemd.HoldBarriers()

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.Barrier(ctx) }()
	_, err := systemd.Until(t.Context(), "BARRIER=1")
	require.NoError(t, err)
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)

	ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	err = n.Barrier(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, systemd.Address())
}

// A systemd that dies with the barrier in its socket holds up nobody: the kernel
// closes the descriptor.
func TestBarrierWithoutSystemd(t *testing.T) {
	leak.Check(t)
	n, systemd := start(t)
	systemd.HoldBarriers()
	done := make(chan error)
	go func() { done <- n.Barrier(t.Context()) }()
	_, err := systemd.Until(t.Context(), "BARRIER=1")
	require.NoError(t, err)
	require.NoError(t, systemd.Close())
	require.NoError(t, <-done)
}
