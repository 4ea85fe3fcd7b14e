package link_test

import (
	"io"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/link"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child() // does not return
	}
	leak.Main(m)
}

// connect returns the two ends of a link.
func connect(t *testing.T) (a, b *link.Conn) {
	t.Helper()
	a, b = open(t)
	t.Cleanup(func() {
		assert.NoError(t, a.Close())
		assert.NoError(t, b.Close())
	})
	return a, b
}

// open is connect for who closes them.
func open(t *testing.T) (a, b *link.Conn) {
	t.Helper()
	ours, theirs, err := link.Pair()
	require.NoError(t, err)
	a, err = link.New(ours)
	require.NoError(t, err)
	b, err = link.New(theirs)
	require.NoError(t, err)
	return a, b
}

// rawPeer is an end of a link that keeps no rules.
type rawPeer int

// connectRaw returns the end of a link, and a peer that keeps no rules.
func connectRaw(t require.TestingT) (*link.Conn, rawPeer) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	conn, err := link.NewFD(fds[0])
	require.NoError(t, err)
	return conn, rawPeer(fds[1])
}

func (p rawPeer) send(t require.TestingT, frame string, fds ...int) {
	// Not unix.Sendmsg: it puts a byte into an empty datagram that carries
	// descriptors.
	var header unix.Msghdr
	iov := unix.Iovec{Base: unsafe.StringData(frame)}
	iov.SetLen(len(frame))
	header.Iov = &iov
	header.SetIovlen(1)
	if len(fds) > 0 {
		rights := unix.UnixRights(fds...)
		header.Control = &rights[0]
		header.SetControllen(len(rights))
	}
	n, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(p), uintptr(unsafe.Pointer(&header)), unix.MSG_NOSIGNAL)
	require.Zero(t, errno)
	require.Equal(t, len(frame), int(n))
}

func (p rawPeer) close(t require.TestingT) {
	require.NoError(t, unix.Close(int(p)))
}

// A tracer is a pipe that shows whether any copy of a descriptor is still open
// anywhere: its reading end is at the end of file when the last copy of its
// writing end is gone.
type tracer struct{ r, w *os.File }

func newTracer(t testing.TB) *tracer {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	return &tracer{r, w}
}

func newTracers(t testing.TB, n int) []*tracer {
	tracers := make([]*tracer, n)
	for i := range tracers {
		tracers[i] = newTracer(t)
	}
	return tracers
}

// writers returns the descriptors to send.
func writers(tracers []*tracer) (files []*os.File, fds []int) {
	for _, tr := range tracers {
		files = append(files, tr.w)
		raw, err := tr.w.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		if err != nil {
			panic(err)
		}
	}
	return files, fds
}

// requireGone closes our copies, and checks that there is no other one.
func requireGone(t testing.TB, tracers []*tracer) {
	t.Helper()
	for i, tr := range tracers {
		require.NoError(t, tr.w.Close())
		require.NoError(t, tr.r.SetReadDeadline(time.Now().Add(10*time.Second)))
		_, err := tr.r.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF, "descriptor %d is still open somewhere", i)
	}
}

// next receives a message that must come without an error.
func next(t require.TestingT, c *link.Conn) (link.Message, []*os.File) {
	m, files, err := c.Receive()
	require.NoError(t, err)
	return m, files
}

func closeFiles(t require.TestingT, files []*os.File) {
	for _, f := range files {
		require.NoError(t, f.Close())
	}
}
