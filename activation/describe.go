package activation

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Describe returns what fd is: network and address as in package net for TCP, UDP
// and unix sockets ("tcp", "[::]:80"; "unixgram", "/run/log"; "unix", "@abstract"),
// and for the rest a word such as "fifo", "netlink", "vsock", "file" or "char",
// with a path or whatever else tells it apart. The address is empty for a unix
// socket that has no name. TCP and UDP are not divided into versions of IP.
//
// It changes nothing and does not keep fd. The error says that fd is not open.
func Describe(fd int) (network, address string, err error) {
	d, err := describe(fd)
	if err != nil {
		return "", "", err
	}
	return d.network, d.address, nil
}

// description is what can be told of a descriptor.
type description struct {
	kind             Kind
	network, address string
	pollable         bool // reading from it can block and epoll can wait for it: sockets and FIFOs
}

func describe(fd int) (description, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return description{}, fmt.Errorf("describe descriptor %d: %w", fd, os.NewSyscallError("fstat", err))
	}
	if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		return describeSocket(fd)
	}
	return description{
		network:  fileNetwork(fd, st.Mode),
		address:  fileAddress(fd),
		pollable: st.Mode&unix.S_IFMT == unix.S_IFIFO,
	}, nil
}

func describeSocket(fd int) (description, error) {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return description{}, fmt.Errorf("describe descriptor %d: %w", fd, os.NewSyscallError("getsockopt SO_TYPE", err))
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return description{}, fmt.Errorf("describe descriptor %d: %w", fd, os.NewSyscallError("getsockopt SO_DOMAIN", err))
	}
	// Neither is known to every family; 0 is the right answer for those.
	proto, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	accepting, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)

	return description{
		kind:     socketKind(domain, typ, accepting != 0),
		network:  socketNetwork(domain, typ, proto),
		address:  socketAddress(fd, typ, proto),
		pollable: true,
	}, nil
}

func socketKind(domain, typ int, accepting bool) Kind {
	inet := domain == unix.AF_INET || domain == unix.AF_INET6
	if !inet && domain != unix.AF_UNIX {
		return Other
	}
	switch {
	case typ == unix.SOCK_DGRAM:
		return Packet
	case typ == unix.SOCK_STREAM && accepting:
		return Stream
	case typ == unix.SOCK_SEQPACKET && !inet && accepting:
		return Seqpacket
	case typ == unix.SOCK_STREAM, typ == unix.SOCK_SEQPACKET && !inet:
		return Connection
	default:
		return Other // raw, or SCTP's one-to-many
	}
}

func socketNetwork(domain, typ, proto int) string {
	switch domain {
	case unix.AF_UNIX:
		switch typ {
		case unix.SOCK_DGRAM:
			return "unixgram"
		case unix.SOCK_SEQPACKET:
			return "unixpacket"
		default:
			return "unix"
		}
	case unix.AF_INET, unix.AF_INET6:
		// SocketProtocol= of systemd.socket(5); multipath TCP counts as tcp.
		switch {
		case proto == unix.IPPROTO_SCTP:
			return "sctp"
		case proto == unix.IPPROTO_UDPLITE:
			return "udplite"
		case typ == unix.SOCK_STREAM:
			return "tcp"
		case typ == unix.SOCK_DGRAM:
			return "udp"
		default:
			return "ip"
		}
	case unix.AF_NETLINK:
		return "netlink"
	case unix.AF_VSOCK:
		return "vsock"
	case unix.AF_PACKET:
		return "packet"
	default:
		return "socket"
	}
}

func socketAddress(fd, typ, proto int) string {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "" // a family that has no textual address here
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return inetAddress(typ, netip.AddrFrom4(sa.Addr), sa.Port)
	case *unix.SockaddrInet6:
		// Unmap: as package net prints it.
		addr := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 {
			addr = addr.WithZone(zone(int(sa.ZoneId)))
		}
		return inetAddress(typ, addr, sa.Port)
	case *unix.SockaddrUnix:
		if sa.Name == "@" {
			return "" // no name at all: package unix does not look at the length
		}
		return sa.Name
	case *unix.SockaddrVM:
		return fmt.Sprintf("%d:%d", sa.CID, sa.Port)
	case *unix.SockaddrNetlink:
		return netlinkAddress(proto, sa.Groups)
	default:
		return ""
	}
}

func inetAddress(typ int, addr netip.Addr, port int) string {
	if typ == unix.SOCK_RAW {
		return addr.String() // the port is the number of the protocol
	}
	return netip.AddrPortFrom(addr, uint16(port)).String()
}

func zone(index int) string {
	ifi, err := net.InterfaceByIndex(index)
	if err != nil {
		return strconv.Itoa(index)
	}
	return ifi.Name
}

// netlinkAddress is written as in ListenNetlink= of systemd.socket(5).
func netlinkAddress(family int, groups uint32) string {
	var name string
	switch family {
	case unix.NETLINK_ROUTE:
		name = "route"
	case unix.NETLINK_AUDIT:
		name = "audit"
	case unix.NETLINK_NETFILTER:
		name = "netfilter"
	case unix.NETLINK_KOBJECT_UEVENT:
		name = "kobject-uevent"
	case unix.NETLINK_GENERIC:
		name = "generic"
	default:
		name = strconv.Itoa(family)
	}
	return fmt.Sprintf("%s %d", name, groups)
}

// mqueueMagic is the type of the file system of message queues, MQUEUE_MAGIC in
// the kernel's ipc/mqueue.c; no header has it.
const mqueueMagic = 0x19800202

func fileNetwork(fd int, mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFCHR:
		return "char"
	case unix.S_IFBLK:
		return "block"
	case unix.S_IFDIR:
		return "dir"
	case unix.S_IFREG:
		var fs unix.Statfs_t
		if unix.Fstatfs(fd, &fs) == nil && int64(fs.Type) == mqueueMagic {
			return "mqueue" // ListenMessageQueue=
		}
		return "file"
	default:
		return "anon" // eventfd, epoll and the like
	}
}

// fileAddress is the path under which the kernel knows fd; without /proc none.
func fileAddress(fd int) string {
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return ""
	}
	return path
}
