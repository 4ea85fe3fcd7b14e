package activation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Take claims, once for the process, the descriptors that systemd passed. It sets
// close-on-exec on them and removes LISTEN_PID, LISTEN_PIDFDID, LISTEN_FDS and
// LISTEN_FDNAMES from the environment, also those that were meant for another
// process, whose descriptors are left alone. Call it early in main: the
// environment belongs to all goroutines, and a child that is started before
// inherits the sockets.
//
// Started by systemd (see the package comment) the set is activated and nothing is
// ever bound, even if no descriptor was passed at all. Not started by systemd, the
// set is empty, without an error.
//
// An error means that the environment and the descriptors do not fit together; the
// program should end, since the descriptors stay open and belong to nobody. The
// second call, or one after [Listen] or [ListenPacket], returns [ErrTaken], also
// when the first failed.
func Take() (*Sockets, error) {
	passed.mu.Lock()
	defer passed.mu.Unlock()
	if passed.taken {
		return nil, ErrTaken
	}
	passed.taken = true
	return take()
}

// Listen is the one line for a program with one socket of each name and without
// an upgrader: the stream (or seqpacket) socket called name, or, if the process
// was not started by systemd, a new listener on address. It may be called for any
// number of names. The first call takes what systemd passed, as [Take] does.
//
// The listener belongs to the caller, who closes it. The errors are those of
// [Sockets.Listen]; more than one socket under name is an error that claims none;
// [ErrTaken] says that the program called Take.
func Listen(name, network, address string) (net.Listener, error) {
	s, err := shared()
	if err != nil {
		return nil, err
	}
	lns, err := s.listen(context.Background(), name, network, address, 1)
	if err != nil {
		return nil, err
	}
	return lns[0], nil
}

// ListenPacket is [Listen] for datagram sockets: UDP and unixgram.
func ListenPacket(name, network, address string) (net.PacketConn, error) {
	s, err := shared()
	if err != nil {
		return nil, err
	}
	conns, err := s.listenPacket(context.Background(), name, network, address, 1)
	if err != nil {
		return nil, err
	}
	return conns[0], nil
}

// passed is a process fact and therefore a global: the variables are removed and
// the descriptor numbers change hands, so there is no second time.
var passed struct {
	mu     sync.Mutex
	taken  bool
	shared *Sockets // of Listen and ListenPacket; nil if Take was first, or if taking failed
	err    error    // of taking for them
}

func shared() (*Sockets, error) {
	passed.mu.Lock()
	defer passed.mu.Unlock()
	if !passed.taken {
		passed.taken = true
		passed.shared, passed.err = take()
	}
	switch {
	case passed.err != nil:
		return nil, passed.err
	case passed.shared == nil:
		return nil, ErrTaken
	default:
		return passed.shared, nil
	}
}

func take() (*Sockets, error) {
	a, err := announced(takeEnviron(), self())
	if err != nil {
		return nil, fmt.Errorf("take sockets from systemd: %w", err)
	}
	s := &Sockets{foreignPID: a.foreignPID}
	if a.bySystemd {
		s.origin = originSystemd
	}
	fds, err := inherited(a)
	if err != nil {
		return nil, fmt.Errorf("take sockets from systemd: %w", err)
	}
	if err := s.add(fds); err != nil {
		return nil, fmt.Errorf("take sockets from systemd: %w", err)
	}
	return s, nil
}

// inherited sets close-on-exec on the announced descriptors. It does not trust
// their number: the loop, and what it allocates, ends at the first one that is
// not there.
func inherited(a announcement) ([]NamedFD, error) {
	var fds []NamedFD
	for i := range a.count {
		fd := firstFD + i
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if errors.Is(err, unix.EBADF) {
			return nil, fmt.Errorf("descriptor %d (%q) is not open, but LISTEN_FDS=%d announces %d to %d",
				fd, a.name(i), a.count, firstFD, firstFD+a.count-1)
		}
		if err != nil {
			return nil, fmt.Errorf("descriptor %d (%q): %w", fd, a.name(i), os.NewSyscallError("fcntl F_GETFD", err))
		}
		// What comes through an execve(2) never has this flag. The Go runtime's own
		// descriptors do, and they sit right behind those that were really passed.
		if flags&unix.FD_CLOEXEC != 0 {
			return nil, fmt.Errorf("descriptor %d (%q) was opened by this process or taken by another library, but LISTEN_FDS=%d announces %d to %d",
				fd, a.name(i), a.count, firstFD, firstFD+a.count-1)
		}
		unix.CloseOnExec(fd)
		fds = append(fds, NamedFD{Name: a.name(i), FD: fd})
	}
	return fds, nil
}
