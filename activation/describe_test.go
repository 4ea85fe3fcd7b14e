package activation_test

import (
	"errors"
	"net"
	"os"
	"strconv"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/activation"
	"github.com/hdctl/handoff/test/leak"
)

func TestDescribe(t *testing.T) {
	leak.Check(t)
	sysfd := func(fd int, err error) int {
		t.Helper()
		require.NoError(t, err)
		closeLater(t, fd)
		return fd
	}
	socket := func(domain, typ, proto int) int {
		t.Helper()
		return sysfd(unix.Socket(domain, typ|unix.SOCK_CLOEXEC, proto))
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	closeLater(t, pair[0])
	closeLater(t, pair[1])
	memfd := sysfd(unix.MemfdCreate("state", unix.MFD_CLOEXEC))
	loopback, err := net.InterfaceByName("lo")
	require.NoError(t, err)
	tests := []struct {
		name             string
		fd               int
		network, address string
		kind             activation.Kind
	}{
		{"unbound tcp", socket(unix.AF_INET, unix.SOCK_STREAM, 0), "tcp", "0.0.0.0:0", activation.Connection},
		{"unbound udp6", socket(unix.AF_INET6, unix.SOCK_DGRAM, 0), "udp", "[::]:0", activation.Packet},
		{"unix pair", pair[0], "unixpacket", "", activation.Connection},
		{"unnamed unixgram", socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0), "unixgram", "", activation.Packet},
		{"netlink generic", socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC), "netlink", "generic 0", activation.Other},
		{"netlink by number", socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_USERSOCK), "netlink", "2 0", activation.Other},
		{"directory", open(t, "/"), "dir", "/", activation.Other},
		{"memfd", memfd, "file", "/memfd:state (deleted)", activation.Other},
		{"eventfd", sysfd(unix.Eventfd(0, unix.EFD_CLOEXEC)), "anon", "anon_inode:[eventfd]", activation.Other},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			network, address, err := activation.Describe(tt.fd)
			require.NoError(t, err)
			assert.Equal(t, tt.network, network)
			assert.Equal(t, tt.address, address)
			s := newSet(t, activation.NamedFD{Name: "x", FD: tt.fd})
			assert.Equal(t, tt.kind, s.All()[0].Kind)
		})
	}

	t.Run("link-local", func(t *testing.T) {
		// Connecting chooses no address here, so the zone needs a bind to one that
		// the loopback interface does not have.
		fd := socket(unix.AF_INET6, unix.SOCK_DGRAM, 0)
		require.NoError(t, unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1))
		require.NoError(t, unix.Bind(fd, &unix.SockaddrInet6{
			Addr:   [16]byte{0: 0xfe, 1: 0x80, 15: 1},
			ZoneId: uint32(loopback.Index),
		}))
		_, address, err := activation.Describe(fd)
		require.NoError(t, err)
		assert.Regexp(t, `^\[fe80::1%lo\]:[1-9]`, address)
	})

	t.Run("v4 in v6", func(t *testing.T) {
		fd := socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
		require.NoError(t, unix.Bind(fd, &unix.SockaddrInet6{Addr: [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}}))
		_, address, err := activation.Describe(fd)
		require.NoError(t, err)
		assert.Regexp(t, `^127\.0\.0\.1:[1-9]`, address)
	})

	_, _, err = activation.Describe(1 << 20)
	assert.EqualError(t, err, "describe descriptor 1048576: fstat: bad file descriptor")
}

// CAP_NET_RAW is needed to make these sockets, but not to describe them.
func TestDescribeRaw(t *testing.T) {
	for _, tt := range []struct {
		domain, proto    int
		network, address string
	}{
		{unix.AF_INET, unix.IPPROTO_ICMP, "ip", "0.0.0.0"},
		{unix.AF_PACKET, 0, "packet", ""},
	} {
		t.Run(tt.network, func(t *testing.T) {
			fd, err := unix.Socket(tt.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, tt.proto)
			if errors.Is(err, unix.EPERM) {
				t.Skip("needs CAP_NET_RAW")
			}
			require.NoError(t, err)
			s, err := activation.NewSockets(true, activation.NamedFD{Name: "x", FD: fd})
			require.NoError(t, err)
			defer s.Close()
			assert.Equal(t, []activation.Socket{{Name: "x", Network: tt.network, Address: tt.address}}, s.All())
		})
	}
}

// ListenStream=vsock:2:1234 of systemd.socket(5); package net cannot serve it.
func TestDescribeVsock(t *testing.T) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		t.Skip("the kernel has no vsock")
	}
	require.NoError(t, err)
	closeLater(t, fd)
	require.NoError(t, unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: unix.VMADDR_PORT_ANY}))
	require.NoError(t, unix.Listen(fd, 1))
	s := newSet(t, activation.NamedFD{Name: "x", FD: fd})
	assert.Equal(t, activation.Other, s.All()[0].Kind)
	assert.Equal(t, "vsock", s.All()[0].Network)
	assert.Regexp(t, `^4294967295:[1-9]`, s.All()[0].Address)
	_, err = s.Listen(t.Context(), "x", "tcp", "")
	_, ok := errors.AsType[*activation.KindError](err)
	assert.True(t, ok, "%v", err)
}

// ListenMessageQueue= of systemd.socket(5).
func TestDescribeMessageQueue(t *testing.T) {
	leak.Check(t)
	name, err := unix.BytePtrFromString("handoff-activation-" + strconv.Itoa(os.Getpid()))
	require.NoError(t, err)
	fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)),
		unix.O_RDONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600, 0, 0, 0)
	if errno == unix.ENOSYS || errno == unix.EPERM {
		t.Skip("message queues are not available: ", errno)
	}
	require.Zero(t, errno)
	closeLater(t, int(fd))
	_, _, errno = unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(name)), 0, 0)
	require.Zero(t, errno)
	network, _, err := activation.Describe(int(fd))
	require.NoError(t, err)
	assert.Equal(t, "mqueue", network)
}
