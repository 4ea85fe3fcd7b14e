package link

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Send sends m and duplicates of files, which stay the caller's. It never waits
// for the peer: nil means that the kernel has the message, not that anybody has
// read it.
//
// Errors wrap [ErrFull], [ErrPeerClosed], [ErrTooLarge], [net.ErrClosed] after
// Close, or [os.ErrClosed] for a closed file.
func (c *Conn) Send(m Message, files ...*os.File) error {
	var conns []syscall.Conn
	if len(files) > 0 {
		conns = make([]syscall.Conn, len(files))
		for i, f := range files {
			conns[i] = f
		}
	}
	return c.SendFrom(m, conns...)
}

// SendFrom is [Conn.Send] for whatever has a descriptor: a [net.TCPConn] as well
// as an [os.File]. The kernel duplicates the descriptors where they are, so
// this costs no number in this process, and changes no mode as File() does.
func (c *Conn) SendFrom(m Message, files ...syscall.Conn) error {
	frame, err := Encode(m, len(files))
	if err == nil {
		err = borrow(files, func(fds []int) error { return c.send(frame, fds) })
	}
	return sendError(m, err)
}

// SendWait is [Conn.SendFrom], but waits while the link is full, until the peer
// has received some of what is in it, or Close is called. While it waits it holds
// none of files, so that they can be closed.
//
// It can still fail with [ErrFull] where the peer is not what is missing: there
// is no memory, or too many descriptors of this user are on their way.
func (c *Conn) SendWait(m Message, files ...syscall.Conn) error {
	frame, err := Encode(m, len(files))
	for err == nil {
		err = borrow(files, func(fds []int) error { return c.send(frame, fds) })
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
		err = c.awaitRoom()
	}
	return sendError(m, err)
}

func sendError(m Message, err error) error {
	switch {
	case err == nil:
		return nil
	case m == nil:
		return fmt.Errorf("send: %w", err)
	}
	return fmt.Errorf("send %s: %w", m.Kind(), err)
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

// awaitRoom waits until the kernel calls this end writable, or it is no use to
// wait for that.
func (c *Conn) awaitRoom() error {
	// The kernel does so from a quarter of the send buffer downwards, and not as
	// soon as one message fits: who waits is not woken for every message. So a
	// look comes before the wait. The wait itself is for the netpoller's edge;
	// goroutines that want the same take turns in Write.
	err := c.raw.Write(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0)
		return n == 1 || err != nil && err != unix.EINTR // which says that it was not
	})
	if err != nil {
		return net.ErrClosed
	}
	return nil
}

// borrow calls use with the descriptors of files. None of them can be closed
// while use runs, and none loses its non-blocking mode, as by os.File.Fd.
func borrow(files []syscall.Conn, use func(fds []int) error) error {
	return borrowNext(files, make([]int, 0, len(files)), use)
}

func borrowNext(files []syscall.Conn, fds []int, use func(fds []int) error) error {
	if len(files) == 0 {
		return use(fds)
	}
	if files[0] == nil {
		return fmt.Errorf("file %d: %w", len(fds), os.ErrInvalid)
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
