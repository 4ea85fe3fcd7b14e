package sdnotifytest_test

import (
	"context"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/sdnotify/sdnotifytest"
)

func TestMain(m *testing.M) { leak.Main(m) }

// send sends a datagram that keeps no rules.
func send(t *testing.T, r *sdnotifytest.Recorder, text string, fds ...int) {
	t.Helper()
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(socket)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	require.NoError(t, unix.Sendmsg(socket, []byte(text), rights, &unix.SockaddrUnix{Name: r.Address()}, 0))
}

func TestRecorder(t *testing.T) {
	leak.Check(t)
	r := sdnotifytest.New(t)
	for _, text := range []string{"READY=1\nSTATUS=a=b\n", "", strings.Repeat("x", 4097), "STOPPING=1"} {
		send(t, r, text)
	}
	d, err := r.Next(t.Context())
	require.NoError(t, err)
	assert.Equal(t, sdnotifytest.Datagram{PID: os.Getpid(), UID: os.Getuid(), Lines: []string{"READY=1", "STATUS=a=b"}}, d)
	value, ok := d.Value("STATUS")
	assert.True(t, ok)
	assert.Equal(t, "a=b", value)
	_, ok = d.Value("STAT")
	assert.False(t, ok)
	assert.Contains(t, d.String(), "READY=1 STATUS=a=b")

	d, err = r.Next(t.Context())
	require.NoError(t, err)
	assert.Empty(t, d.Lines)
	d, err = r.Next(t.Context())
	require.NoError(t, err)
	assert.True(t, d.Truncated)
	d, err = r.Until(t.Context(), "STOPPING=1")
	require.NoError(t, err)
	assert.True(t, d.Has("STOPPING=1"))
	assert.Len(t, r.Datagrams(), 4)
}

func TestRecorderEnds(t *testing.T) {
	leak.Check(t)
	r := sdnotifytest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Next(ctx)
	require.ErrorIs(t, err, context.Canceled)
	_, err = r.Until(ctx, "READY=1")
	require.ErrorIs(t, err, context.Canceled)

	done := make(chan error)
	go func() {
		_, err := r.Next(t.Context())
		done <- err
	}()
	require.NoError(t, r.Close())
	require.ErrorIs(t, <-done, net.ErrClosed)
	require.NoError(t, r.Close())
	_, err = os.Stat(r.Address())
	require.ErrorIs(t, err, os.ErrNotExist)

	_, err = sdnotifytest.Listen(r.Address() + "/missing/directory")
	require.Error(t, err)
}

// Descriptors end with the Recorder, also those of barriers that are held.
func TestRecorderClosesFiles(t *testing.T) {
	leak.Check(t)
	r := sdnotifytest.New(t)
	first, second := r.HoldBarriers(), r.HoldBarriers()
	for _, text := range []string{"BARRIER=1", "FDSTORE=1"} {
		send(t, r, text, 0)
		d, err := r.Until(t.Context(), text)
		require.NoError(t, err)
		assert.Equal(t, 1, d.Files)
	}
	first()
	first()
	second()
	r.HoldBarriers()
	send(t, r, "BARRIER=1", 0)
	_, err := r.Until(t.Context(), "BARRIER=1")
	require.NoError(t, err)
}
