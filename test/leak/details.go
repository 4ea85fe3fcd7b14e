package leak

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// details tells what the link of a socket does not: its addresses. It returns
// "" for everything that is not a socket.
func details(fd int) string {
	local, err := unix.Getsockname(fd)
	if err != nil {
		return ""
	}
	text := " " + address(local)
	if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listens == 1 {
		return text + ", listening"
	}
	if peer, err := unix.Getpeername(fd); err == nil {
		text += " connected to " + address(peer)
	}
	return text
}

func address(sa unix.Sockaddr) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrUnix:
		if sa.Name == "" {
			return "unnamed unix socket"
		}
		return sa.Name
	default:
		return fmt.Sprintf("%T", sa)
	}
}
