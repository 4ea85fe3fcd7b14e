package activation

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Listen claims the listening stream (or seqpacket) sockets called name, in the
// order in which they were passed. Their family is systemd's choice; network and
// address do not matter to them.
//
// Where nothing of that name was passed and the set is not activated, it binds
// address instead, as [net.ListenConfig] does with ctx, and returns one listener.
// Network is one of tcp, tcp4, tcp6, unix and unixpacket. A stale unix socket
// file, to which no process has a socket bound any more, is removed first; one in
// use is an error. With an empty network or address nothing is ever bound.
//
// The listeners belong to the caller. Closing one that was passed leaves the socket
// as it is, the file of a unix socket included; closing one that was bound here
// removes its file.
//
// The error is a [*NameError] if nothing of that name was passed, a [*KindError] if
// no listener was, and wraps [ErrClaimed] at the second claim.
func (s *Sockets) Listen(ctx context.Context, name, network, address string) ([]net.Listener, error) {
	return s.listen(ctx, name, network, address, 0)
}

// ListenPacket is [Sockets.Listen] for datagram sockets; network is one of udp,
// udp4, udp6 and unixgram. Nobody removes the file of a unixgram socket that was
// bound here but the next bind.
func (s *Sockets) ListenPacket(ctx context.Context, name, network, address string) ([]net.PacketConn, error) {
	return s.listenPacket(ctx, name, network, address, 0)
}

// Files claims whatever is called name and not claimed yet: FIFO, netlink socket,
// device, connection (Accept=yes) or any socket, in the order in which it was
// passed. Nothing is ever bound: the error is a [*NameError] if nothing of that
// name was passed, and wraps [ErrClaimed] if all of it is claimed.
//
// The files belong to the caller, and the garbage collector closes those that are
// forgotten. Sockets and FIFOs are made non-blocking, so that Close ends a Read and
// deadlines work. A file made into a [net.Conn] or [net.Listener] is duplicated by
// package net and has to be closed.
func (s *Sockets) Files(name string) ([]*os.File, error) {
	fds, err := s.ClaimFDs(context.Background(), name, "", "")
	if err != nil {
		return nil, err
	}
	files := make([]*os.File, len(fds))
	for i, f := range fds {
		files[i] = os.NewFile(uintptr(f.FD), f.Name)
	}
	return files, nil
}

// FD is a claimed descriptor.
type FD struct {
	Name  string
	Index int // among those of the same name that were passed
	FD    int
	Kind  Kind
}

// ClaimFDs claims bare descriptors: those called name that network could stand
// for (as for [Sockets.Listen] or [Sockets.ListenPacket]), or, if network is
// empty, whatever is called name and not claimed yet. Unlike a [net.Listener] that
// is only not accepted from, a bare descriptor is not in the Go runtime's poller,
// where each new connection would wake every process that shares the socket.
//
// Where nothing of that name was passed and the set is not activated, it binds
// address, by the same rules as those two, and returns one descriptor. The file of
// a unix socket that was bound here is removed by nobody but the next bind.
//
// The descriptors belong to the caller, who closes them; they are close-on-exec.
// Sockets and FIFOs are made non-blocking, for all processes that share them.
func (s *Sockets) ClaimFDs(ctx context.Context, name, network, address string) ([]FD, error) {
	w, err := wantOf(network)
	if err != nil {
		return nil, fmt.Errorf("claim socket %q: %w", name, err)
	}
	var fds []FD
	found, err := s.claim(name, w, 0, func(entries []*entry) error {
		for _, e := range entries {
			if e.pollable {
				if err := unix.SetNonblock(e.fd, true); err != nil {
					return os.NewSyscallError("fcntl O_NONBLOCK", err)
				}
			}
			fds = append(fds, FD{Name: e.Name, Index: e.Index, FD: e.fd, Kind: e.Kind})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if found {
		return fds, nil
	}
	err = s.bind(name, network, address, w, func() error {
		fd, err := bindFD(ctx, network, address)
		if err != nil {
			return err
		}
		d, err := describe(fd)
		if err != nil {
			unix.Close(fd)
			return err
		}
		fds = []FD{{Name: name, FD: fd, Kind: d.kind}}
		return nil
	})
	return fds, err
}

func (s *Sockets) listen(ctx context.Context, name, network, address string, limit int) ([]net.Listener, error) {
	if err := checkNetwork(name, network, wantListener); err != nil {
		return nil, err
	}
	var lns []net.Listener
	found, err := s.claim(name, wantListener, limit, func(entries []*entry) (err error) {
		lns, err = convert(entries, net.FileListener)
		return err
	})
	if found || err != nil {
		return lns, err
	}
	err = s.bind(name, network, address, wantListener, func() error {
		ln, err := bindListener(ctx, network, address)
		if err != nil {
			return err
		}
		lns = []net.Listener{ln}
		return nil
	})
	return lns, err
}

func (s *Sockets) listenPacket(ctx context.Context, name, network, address string, limit int) ([]net.PacketConn, error) {
	if err := checkNetwork(name, network, wantPacket); err != nil {
		return nil, err
	}
	var conns []net.PacketConn
	found, err := s.claim(name, wantPacket, limit, func(entries []*entry) (err error) {
		conns, err = convert(entries, net.FilePacketConn)
		return err
	})
	if found || err != nil {
		return conns, err
	}
	err = s.bind(name, network, address, wantPacket, func() error {
		conn, err := bindPacketConn(ctx, network, address)
		if err != nil {
			return err
		}
		conns = []net.PacketConn{conn}
		return nil
	})
	return conns, err
}

// checkNetwork finds a network that does not fit on the first day, under systemd
// too, where it would not matter.
func checkNetwork(name, network string, w want) error {
	got, err := wantOf(network)
	if err == nil && got != w && got != wantAny {
		err = net.UnknownNetworkError(network)
	}
	if err != nil {
		return fmt.Errorf("claim socket %q: %w", name, err)
	}
	return nil
}

// convert makes something of package net of each descriptor and closes the
// descriptors, since net works on duplicates. If one cannot be converted, all stay
// as they were.
func convert[T io.Closer](entries []*entry, from func(*os.File) (T, error)) ([]T, error) {
	var made []T
	for _, e := range entries {
		t, err := convertOne(e, from)
		if err != nil {
			for _, t := range made {
				t.Close()
			}
			return nil, err
		}
		made = append(made, t)
	}
	for _, e := range entries {
		unix.Close(e.fd)
	}
	return made, nil
}

func convertOne[T io.Closer](e *entry, from func(*os.File) (T, error)) (t T, err error) {
	// An os.File owns its number, and the set keeps its own until all are converted.
	fd, err := dup(e.fd)
	if err != nil {
		return t, err
	}
	f := os.NewFile(uintptr(fd), e.Name)
	defer f.Close()
	return from(f)
}

// dup makes a close-on-exec duplicate that is none of stdin, stdout, stderr.
func dup(fd int) (int, error) {
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, firstFD)
	if err != nil {
		return -1, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	return fd, nil
}
