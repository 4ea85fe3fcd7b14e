package activation_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
)

// systemdSocket opens a socket as systemd does for a .socket unit: bound,
// listening, and blocking, since NonBlocking=no is the default. It returns the
// descriptor that systemd keeps, and the address.
func systemdSocket(t *testing.T, network, address string) (int, string) {
	t.Helper()
	var sc syscall.Conn
	switch network {
	case "tcp", "unix", "unixpacket":
		ln, err := net.Listen(network, address)
		require.NoError(t, err)
		if ul, ok := ln.(*net.UnixListener); ok {
			ul.SetUnlinkOnClose(false)
		}
		defer ln.Close()
		sc, address = ln.(syscall.Conn), ln.Addr().String()
	default:
		conn, err := net.ListenPacket(network, address)
		require.NoError(t, err)
		defer conn.Close()
		sc, address = conn.(syscall.Conn), conn.LocalAddr().String()
	}
	fd := dupOf(t, sc)
	require.NoError(t, unix.SetNonblock(fd, false))
	closeLater(t, fd)
	return fd, address
}

func dupOf(t *testing.T, sc syscall.Conn) int {
	t.Helper()
	rc, err := sc.SyscallConn()
	require.NoError(t, err)
	fd := -1
	var dupErr error
	require.NoError(t, rc.Control(func(n uintptr) {
		fd, dupErr = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3)
	}))
	require.NoError(t, dupErr)
	return fd
}

// dup duplicates systemd's descriptor for a set in this process, which closes it
// or gives it away.
func dup(t *testing.T, fd int) int {
	t.Helper()
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	require.NoError(t, err)
	return d
}

func fifo(t *testing.T) (int, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(path, 0o600))
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	closeLater(t, fd)
	return fd, path
}

func netlink(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	require.NoError(t, err)
	closeLater(t, fd)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}))
	return fd
}

func open(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	closeLater(t, fd)
	return fd
}

// connection returns the server's end of a TCP connection, as Accept=yes passes it.
func connection(t *testing.T) (int, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { client.Close() })
	server, err := ln.Accept()
	require.NoError(t, err)
	defer server.Close()
	fd := dupOf(t, server.(syscall.Conn))
	closeLater(t, fd)
	return fd, ln.Addr().String()
}

func closeLater(t *testing.T, fd int) {
	t.Cleanup(func() { unix.Close(fd) })
}

func tempSocket(t *testing.T) string {
	// Not t.TempDir: sun_path has 108 bytes.
	dir, err := os.MkdirTemp("", "activation")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

var abstractNames atomic.Int64

func abstractSocket() string {
	return fmt.Sprintf("@handoff-activation-%d-%d", os.Getpid(), abstractNames.Add(1))
}

// inode returns what fd refers to, as in /proc/PID/fd: "socket:[4711]".
func inode(t *testing.T, fd int) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(link, "socket:"), link)
	return link
}

// countFDs returns how many descriptors of this process refer to fd's socket.
func countFDs(t *testing.T, fd int) int {
	t.Helper()
	n := 0
	for _, open := range leak.FDs() { // "7 socket:[4711]"
		if strings.HasSuffix(open, " "+inode(t, fd)) {
			n++
		}
	}
	return n
}

func nonblocking(t *testing.T, fd int) bool {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	require.NoError(t, err)
	return flags&unix.O_NONBLOCK != 0
}

func closeOnExec(t *testing.T, fd int) bool {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	require.NoError(t, err)
	return flags&unix.FD_CLOEXEC != 0
}
