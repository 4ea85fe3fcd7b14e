package link

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrFull is returned, wrapped, by [Conn.Send] when the kernel does not take
	// the message now: the peer has not received what was sent before. The
	// message is not sent; the same call may succeed later.
	ErrFull = errors.New("link: full")

	// ErrPeerClosed is returned, wrapped, by [Conn.Send] when no process has the
	// other end open. Messages that the peer had sent can still be received.
	ErrPeerClosed = errors.New("link: closed by peer")
)

// Conn is this process's end of a link. Methods may be called concurrently; two
// calls of Receive take turns. It has no goroutine.
type Conn struct {
	file   *os.File
	raw    syscall.RawConn
	closed atomic.Bool

	receiving sync.Mutex // held by Receive; guards the buffers
	frame     []byte
	control   []byte
}

// Send sends m and duplicates of files, which stay the caller's. It never waits
// for the peer: nil means that the kernel has the message, not that anybody has
// read it.
//
// Errors wrap [ErrFull], [ErrPeerClosed], [ErrTooLarge], [net.ErrClosed] after
// Close, or [os.ErrClosed] for a closed file.
func (c *Conn) Send(m Message, files ...*os.File) error {
	frame, err := Encode(m, len(files))
	if err == nil {
		err = borrow(files, func(fds []int) error { return c.send(frame, fds) })
	}
	if err != nil {
		if m == nil {
			return fmt.Errorf("send: %w", err)
		}
		return fmt.Errorf("send %s: %w", m.Kind(), err)
	}
	return nil
}

func (c *Conn) send(frame []byte, fds []int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	var sent error
	err := c.raw.Control(func(fd uintptr) {
		for {
			_, sent = unix.SendmsgN(int(fd), frame, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if sent != unix.EINTR {
				return
			}
		}
	})
	if err != nil {
		return net.ErrClosed
	}
	sendmsg := os.NewSyscallError("sendmsg", sent)
	switch sent {
	case nil:
		return nil
	case unix.EAGAIN, unix.ENOBUFS, unix.ETOOMANYREFS:
		// ETOOMANYREFS: as many descriptors of this user as RLIMIT_NOFILE allows
		// are on their way, in this and other sockets.
		return fmt.Errorf("%w: %w", ErrFull, sendmsg)
	case unix.EPIPE, unix.ECONNRESET:
		return fmt.Errorf("%w: %w", ErrPeerClosed, sendmsg)
	case unix.EMSGSIZE:
		return fmt.Errorf("%w: %w", ErrTooLarge, sendmsg)
	}
	return sendmsg
}

// Receive waits for the next message, and returns it with its files, which are
// the caller's to close. (As with every [os.File], one that is non-blocking is
// with the runtime's poller until then.) These errors are worth telling apart:
//
//   - [*FrameError]: a message was refused and is gone; call Receive again.
//   - [io.EOF]: the peer has closed all copies of its end, or [Conn.Finish] was
//     called, and everything that the peer had sent is received.
//   - [net.ErrClosed]: Close was called.
func (c *Conn) Receive() (Message, []*os.File, error) {
	c.receiving.Lock()
	defer c.receiving.Unlock()
	if c.frame == nil {
		c.frame = make([]byte, MaxFrame)
		c.control = newControl()
	}

	var p packet
	err := c.raw.Read(func(fd uintptr) bool {
		p = receive(int(fd), c.frame, c.control)
		return p.err != unix.EAGAIN
	})
	if errors.Is(err, os.ErrDeadlineExceeded) { // set by Finish, and by nothing else
		err = c.raw.Control(func(fd uintptr) { p = receive(int(fd), c.frame, c.control) })
		if p.err == unix.EAGAIN {
			p.err = io.EOF
		}
	}
	switch {
	case err != nil && c.closed.Load():
		return nil, nil, net.ErrClosed
	case err != nil:
		return nil, nil, fmt.Errorf("receive: %w", err)
	case p.err == io.EOF:
		return nil, nil, io.EOF
	case p.err != nil:
		return nil, nil, fmt.Errorf("receive: %w", os.NewSyscallError("recvmsg", p.err))
	}
	return p.open(c.frame)
}

// Finish says that the peer is dead: from now on Receive returns what the peer
// had sent, and then [io.EOF], instead of waiting. A Receive that waits returns.
//
// It is for who knows of the death from elsewhere: as long as a third process
// has a copy of the peer's end open there is no end of file. Finish cannot be
// taken back; later calls, and calls after Close, do nothing.
func (c *Conn) Finish() {
	// The deadline stands for the fact and wakes a waiting Receive in one. It
	// cannot fail but on a closed file: NewFD has tried it.
	_ = c.file.SetReadDeadline(time.Unix(1, 0))
}

// Close closes this end. A waiting Receive returns; what is not received is
// lost, and its descriptors are closed by the kernel. Further calls do nothing.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	return c.file.Close()
}

// borrow calls use with the descriptors of files. None of them can be closed
// while use runs, and none loses its non-blocking mode, as by os.File.Fd.
func borrow(files []*os.File, use func(fds []int) error) error {
	return borrowNext(files, make([]int, 0, len(files)), use)
}

func borrowNext(files []*os.File, fds []int, use func(fds []int) error) error {
	if len(files) == 0 {
		return use(fds)
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return fmt.Errorf("file %d: %w", len(fds), err)
	}
	var used error
	err = raw.Control(func(fd uintptr) { used = borrowNext(files[1:], append(fds, int(fd)), use) })
	if err != nil {
		return fmt.Errorf("file %d: %w", len(fds), os.ErrClosed)
	}
	return used
}
