package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/activation"
)

// Address is where a socket is bound, and what the program calls it.
type Address struct {
	Name string // FileDescriptorName= of systemd.socket(5); no colon, at most 255 bytes

	// Network and Address are those of package net: tcp, tcp4, tcp6, unix, unixpacket
	// for sockets that accept, udp, udp4, udp6, unixgram for others.
	Network, Address string

	// Mode is that of the file of a unix socket. 0 is 0666, as with systemd.
	Mode fs.FileMode
}

// Socket is a bound socket. Its methods may be called concurrently.
type Socket struct {
	Address
	fd   int         // no os.File: its Fd method would make the socket blocking, for all who have it
	info fs.FileInfo // of the file of a unix socket; nil: there is none

	once sync.Once
	err  error
}

// defaultMode is SocketMode= of systemd.socket(5).
const defaultMode fs.FileMode = 0o666

// Bind makes a socket, which listens if it is one that accepts. The caller closes
// it.
//
// The file of a unix socket that died without removing it is replaced; where
// somebody still has it, or it is no socket, the error wraps EADDRINUSE. Until the
// file has its mode, the umask of the caller decides who may connect.
func Bind(ctx context.Context, a Address) (*Socket, error) {
	if err := checkName(a.Name); err != nil {
		return nil, err
	}
	// A set of its own for each: two addresses may have the same name.
	fds, err := new(activation.Sockets).ClaimFDs(ctx, a.Name, a.Network, a.Address)
	if err != nil {
		return nil, err
	}
	s := &Socket{Address: a, fd: fds[0].FD}
	if !a.hasFile() {
		return s, nil
	}
	if a.Mode == 0 {
		s.Mode = defaultMode
	}
	if err := os.Chmod(a.Address, s.Mode); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("bind socket %q: %w", a.Name, err)
	}
	if s.info, err = os.Lstat(a.Address); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("bind socket %q: %w", a.Name, err)
	}
	return s, nil
}

// Close closes the caller's descriptor, and removes the file of a unix socket, if
// it is still this socket's. Processes that have a duplicate keep it. Further calls
// do nothing.
func (s *Socket) Close() error {
	s.once.Do(func() {
		if s.info != nil {
			if there, err := os.Lstat(s.Address.Address); err == nil && os.SameFile(there, s.info) {
				s.err = os.Remove(s.Address.Address)
			}
		}
		s.err = errors.Join(s.err, unix.Close(s.fd))
	})
	return s.err
}

// hasFile tells whether the address is a path.
func (a Address) hasFile() bool {
	return strings.HasPrefix(a.Network, "unix") && !strings.HasPrefix(a.Address, "@")
}

// checkName is the rule of FileDescriptorName=: printable ASCII without colon, at
// most 255 bytes.
func checkName(name string) error {
	if name == "" || len(name) > 255 {
		return fmt.Errorf("the name of a socket has %d bytes: want 1 to 255", len(name))
	}
	for _, r := range name {
		if r < ' ' || r > '~' || r == ':' {
			return fmt.Errorf("socket name %q: %q is not allowed", name, r)
		}
	}
	return nil
}
