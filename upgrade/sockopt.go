package upgrade

import (
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// connOf makes a connection of a file that holds its socket, which stays the
// caller's. net.FileConn sets options of the socket to what Go does with new
// ones, although they belong to whoever has made it: they are put back.
func connOf(file *os.File) (net.Conn, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var options sockOptions
	if err := raw.Control(func(fd uintptr) { options.read(int(fd)) }); err != nil {
		return nil, err
	}
	c, err := net.FileConn(file)
	if err := raw.Control(func(fd uintptr) { options.write(int(fd)) }); err != nil {
		return nil, err
	}
	return c, err
}

// sockOptions are those that package net sets on TCP connections.
type sockOptions []sockOption

type sockOption struct{ level, name, value int }

func (o *sockOptions) read(fd int) {
	for _, name := range []sockOption{
		{level: unix.IPPROTO_TCP, name: unix.TCP_NODELAY},
		{level: unix.IPPROTO_TCP, name: unix.TCP_KEEPIDLE},
		{level: unix.IPPROTO_TCP, name: unix.TCP_KEEPINTVL},
		{level: unix.IPPROTO_TCP, name: unix.TCP_KEEPCNT},
		{level: unix.SOL_SOCKET, name: unix.SO_KEEPALIVE}, // last: it uses the others
	} {
		// A unix socket has no TCP options, and package net leaves it alone.
		if v, err := syscall.GetsockoptInt(fd, name.level, name.name); err == nil {
			*o = append(*o, sockOption{name.level, name.name, v})
		}
	}
}

func (o sockOptions) write(fd int) {
	for _, opt := range o {
		_ = syscall.SetsockoptInt(fd, opt.level, opt.name, opt.value) // it had this value
	}
}
