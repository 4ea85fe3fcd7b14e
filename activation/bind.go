package activation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// bind runs f, which binds address, if nothing is bound under name for w yet. The
// name is reserved meanwhile; f may take its time, since it may resolve a host.
func (s *Sockets) bind(name, network, address string, w want, f func() error) error {
	if err := s.reserve(name, network, address, w); err != nil {
		return err
	}
	if err := f(); err != nil {
		s.release(name, w)
		if s.foreignPID != 0 && s.foreignPID == os.Getppid() {
			return fmt.Errorf("bind socket %q (systemd passed sockets to process %d, the parent of this one; it has to exec this program, not to start it): %w",
				name, s.foreignPID, err)
		}
		return fmt.Errorf("bind socket %q: %w", name, err)
	}
	return nil
}

func (s *Sockets) reserve(name, network, address string, w want) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if network == "" || address == "" {
		return s.nameError(name)
	}
	b := binding{name, w}
	if s.bound[b] {
		return fmt.Errorf("bind socket %q: %w", name, ErrClaimed)
	}
	if s.bound == nil {
		s.bound = make(map[binding]bool)
	}
	s.bound[b] = true
	return nil
}

func (s *Sockets) release(name string, w want) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.bound, binding{name, w})
}

func bindListener(ctx context.Context, network, address string) (net.Listener, error) {
	if err := removeStale(network, address); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, network, address)
}

func bindPacketConn(ctx context.Context, network, address string) (net.PacketConn, error) {
	if err := removeStale(network, address); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	return lc.ListenPacket(ctx, network, address)
}

// bindFD has package net do the work, and keeps a bare duplicate of the result.
func bindFD(ctx context.Context, network, address string) (int, error) {
	if w, _ := wantOf(network); w == wantPacket {
		conn, err := bindPacketConn(ctx, network, address)
		if err != nil {
			return -1, err
		}
		defer conn.Close()
		return dupOf(conn.(syscall.Conn))
	}
	ln, err := bindListener(ctx, network, address)
	if err != nil {
		return -1, err
	}
	defer ln.Close()
	if ul, ok := ln.(*net.UnixListener); ok {
		ul.SetUnlinkOnClose(false)
	}
	return dupOf(ln.(syscall.Conn))
}

// dupOf does not use the File method: the Fd method of its result makes the socket
// blocking.
func dupOf(c syscall.Conn) (int, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var dupErr error
	if err := rc.Control(func(n uintptr) { fd, dupErr = dup(int(n)) }); err != nil {
		return -1, err
	}
	return fd, dupErr
}

// removeStale removes the file of a unix socket that died without doing so. It
// leaves everything else to bind(2), which fails with EADDRINUSE. Two processes
// that start at the same moment may both find the file stale, and the later one
// wins: without systemd, nobody arbitrates.
func removeStale(network, address string) error {
	switch network {
	case "unix", "unixpacket", "unixgram":
	default:
		return nil
	}
	if address[0] == '@' || address[0] == 0 {
		return nil // abstract: has no file
	}
	info, err := os.Lstat(address)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return nil
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("probe %s: %w", address, os.NewSyscallError("socket", err))
	}
	defer unix.Close(fd)

	// A datagram socket, for all three: to a stream socket it fails with EPROTOTYPE,
	// so that its server does not see a connection; unix(7) looks for a bound socket
	// first, and only if there is none the error is ECONNREFUSED.
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: address}); !errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	if err := os.Remove(address); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stale socket: %w", err)
	}
	return nil
}
