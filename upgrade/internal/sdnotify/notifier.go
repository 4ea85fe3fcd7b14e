package sdnotify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// MaxDatagram is the largest notification, in bytes, that systemd reads
	// (NOTIFY_BUFFER_MAX, which is PIPE_BUF). It ignores larger ones.
	MaxDatagram = 4096

	// maxFiles is the kernel's limit for one datagram, SCM_MAX_FD.
	maxFiles = 253

	// sendTimeout is how long Send waits for room in systemd's socket.
	sendTimeout = time.Second

	// pollInterval is how long one system call waits for room before it is asked
	// whether it should go on.
	pollInterval = 50 * time.Millisecond
)

// Notifier sends notifications. A nil Notifier does nothing. Methods may be
// called concurrently.
type Notifier struct {
	address string

	mu     sync.Mutex
	socket *os.File // nil where New could not make it, and after Close
	closed bool
}

// New makes a Notifier for the socket at address: a path, or @ and the name of an
// abstract socket. It returns nil for "". Whether somebody listens there shows
// at the first Send, and so does an address that is neither of the two.
func New(address string) *Notifier {
	if address == "" {
		return nil
	}
	n := &Notifier{address: address}
	n.socket, _ = open() // open errors are found again by file
	return n
}

// Send sends the lines as one datagram; a line may be several, as that of
// [Reloading], and empty ones are left out. Where nothing remains nothing is sent.
//
// It waits at most a second if systemd's socket is full. nil means that the
// datagram is in that socket, see [Notifier.Barrier].
func (n *Notifier) Send(lines ...string) error {
	return n.SendWithFiles(nil, lines...)
}

// SendWithFiles is Send, with duplicates of files, as for FDSTORE=1. The files
// stay the caller's.
func (n *Notifier) SendWithFiles(files []*os.File, lines ...string) error {
	if n == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	return n.notify(ctx, lines, files)
}

// Barrier waits until systemd has processed everything that was sent before it.
// Only then may a process exit whose notifications should count.
//
// The error wraps that of ctx, if it ends first. systemd may process them yet.
func (n *Notifier) Barrier(ctx context.Context) error {
	if n == nil {
		return nil
	}
	// systemd closes its copy of the writing end when it comes to the message.
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a barrier: %w", err)
	}
	defer r.Close()
	// BARRIER=1 must be alone in its datagram, with one descriptor.
	err = n.notify(ctx, []string{"BARRIER=1"}, []*os.File{w})
	// The last copy must be systemd's.
	if err := errors.Join(err, w.Close()); err != nil {
		return err
	}

	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for err == nil {
		_, err = r.Read(make([]byte, 1))
	}
	switch {
	case err == io.EOF:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = ctx.Err()
	}
	return fmt.Errorf("wait for the barrier at %s: %w", n.address, err)
}

// Close closes the socket. After it sending fails with [os.ErrClosed]; further
// calls do nothing.
func (n *Notifier) Close() error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	if n.socket == nil {
		return nil
	}
	socket := n.socket
	n.socket = nil
	return socket.Close() // the descriptor goes when the last Send that uses it ends
}

func (n *Notifier) notify(ctx context.Context, lines []string, files []*os.File) error {
	err := n.send(ctx, lines, files)
	if err != nil {
		return fmt.Errorf("notify systemd at %s: %w", n.address, err)
	}
	return nil
}

func (n *Notifier) send(ctx context.Context, lines []string, files []*os.File) error {
	text := strings.Join(slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return l == "" }), "\n")
	switch {
	case text == "" && len(files) == 0:
		return nil
	case text == "":
		return fmt.Errorf("files without a line: %w", unix.EINVAL)
	case len(text) > MaxDatagram:
		return fmt.Errorf("%d bytes, at most %d: %w", len(text), MaxDatagram, unix.EMSGSIZE)
	case strings.ContainsRune(text, 0):
		return fmt.Errorf("NUL in a line: %w", unix.EINVAL)
	case len(files) > maxFiles:
		return fmt.Errorf("%d files, at most %d: %w", len(files), maxFiles, unix.EMSGSIZE)
	case n.address[0] != '/' && n.address[0] != '@':
		return fmt.Errorf("neither a path nor an abstract socket: %w", unix.EAFNOSUPPORT)
	}
	socket, err := n.file()
	if err != nil {
		return err
	}
	return borrow(append([]*os.File{socket}, files...), func(fds []int) error {
		return sendTo(ctx, fds[0], n.address, text, fds[1:])
	})
}

// sendTo waits for room in the receiver's queue until ctx ends.
//
// poll(2) is of no use for that: a socket that is not connected is always
// writable. But a blocking sendmsg waits for the receiver that it was given, and
// SO_SNDTIMEO bounds that (see open).
func sendTo(ctx context.Context, fd int, address, text string, files []int) error {
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	for {
		err := unix.Sendmsg(fd, []byte(text), rights, &unix.SockaddrUnix{Name: address}, unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			return nil
		case unix.EAGAIN, unix.EINTR:
		default:
			return os.NewSyscallError("sendmsg", err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ctx.Err(), os.NewSyscallError("sendmsg", err))
		}
	}
}

// file returns the socket.
func (n *Notifier) file() (*os.File, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, os.ErrClosed
	}
	if n.socket == nil {
		socket, err := open()
		if err != nil {
			return nil, err
		}
		n.socket = socket
	}
	return n.socket, nil
}

// open makes the socket, in blocking mode: see sendTo.
func open() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	timeout := unix.NsecToTimeval(pollInterval.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	return os.NewFile(uintptr(fd), "notify"), nil
}

// borrow calls use with the descriptors of files. None of them can be closed
// while use runs.
func borrow(files []*os.File, use func(fds []int) error) error {
	return borrowNext(files, make([]int, 0, len(files)), use)
}

func borrowNext(files []*os.File, fds []int, use func(fds []int) error) error {
	if len(files) == 0 {
		return use(fds)
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return err
	}
	var used error
	err = raw.Control(func(fd uintptr) { used = borrowNext(files[1:], append(fds, int(fd)), use) })
	if err != nil {
		return os.ErrClosed
	}
	return used
}
