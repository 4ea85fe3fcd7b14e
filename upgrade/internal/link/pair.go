package link

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Pair makes the two ends of a link, close-on-exec and non-blocking. The caller
// owns both: it gives one to [New] and passes the other one to another process
// (and closes its own copy then), where it goes to [NewFD].
func Pair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a link: %w", os.NewSyscallError("socketpair", err))
	}
	return os.NewFile(uintptr(fds[0]), "link"), os.NewFile(uintptr(fds[1]), "link"), nil
}

// New makes a Conn of an end of a link. It takes ownership of f, also when it
// fails.
func New(f *os.File) (*Conn, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("open a link: %w", err)
	}
	defer f.Close()
	// A duplicate, because an os.File that was made of a descriptor in blocking
	// mode knows no deadlines for the rest of its life, and there is no telling
	// from outside. (Not Fd: it would set blocking mode.)
	fd, dupErr := -1, error(nil)
	err = raw.Control(func(number uintptr) {
		fd, dupErr = unix.FcntlInt(number, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err != nil {
		return nil, fmt.Errorf("open a link: %w", os.ErrClosed)
	}
	if dupErr != nil {
		return nil, fmt.Errorf("open a link: %w", os.NewSyscallError("fcntl", dupErr))
	}
	return NewFD(fd)
}

// NewFD makes a Conn of an end of a link that was inherited under the number fd,
// and makes it close-on-exec. It takes ownership of fd, also when it fails.
func NewFD(fd int) (*Conn, error) {
	if err := prepare(fd); err != nil {
		// Without the error of Close: a number that is not open is reported
		// already, and of another one there is nothing to save.
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open a link: %w", err)
	}
	file := os.NewFile(uintptr(fd), "link")
	raw, err := file.SyscallConn()
	if err == nil {
		// Fails if the runtime's poller could not take it. Without that Receive
		// cannot wait, nor Finish wake it.
		err = file.SetReadDeadline(time.Time{})
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open a link: %w", err)
	}
	return &Conn{file: file, raw: raw}, nil
}

func prepare(fd int) error {
	syscall.CloseOnExec(fd)
	for _, want := range []struct{ option, value int }{
		{unix.SO_DOMAIN, unix.AF_UNIX},
		{unix.SO_TYPE, unix.SOCK_SEQPACKET},
		{unix.SO_ACCEPTCONN, 0},
	} {
		got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, want.option)
		if err != nil {
			return os.NewSyscallError("getsockopt", err)
		}
		if got != want.value {
			return fmt.Errorf("descriptor %d is not an end of a link (unix, SOCK_SEQPACKET): %w", fd, unix.EINVAL)
		}
	}
	// With this option a datagram carries its sender's credentials, an end of
	// file does not. Otherwise an empty datagram looks like an end of file.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	return os.NewSyscallError("fcntl", unix.SetNonblock(fd, true))
}
