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

	// ErrPeerClosed is returned, wrapped, by [Conn.Send] when nobody would ever
	// receive the message: no process has the other end open, or the peer has
	// called [Conn.CloseRead]. Messages that the peer had sent can still be
	// received.
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

// CloseRead forbids the peer to send: once it has returned, what the peer sends
// fails with [ErrPeerClosed] and does not arrive. What it had sent before is
// still received, and after it comes [io.EOF]. So there is a moment before which
// everything has arrived, and after which nothing does, whatever the peer does
// and in whatever state it is: stopped, dead, or dead with its end still open in
// a third process. It cannot be taken back. See shutdown(2), SHUT_RD.
func (c *Conn) CloseRead() {
	// It cannot fail on a connected socket that is open; and of one that Close
	// has closed there is nothing left to shut down.
	_ = c.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RD) })
}

// Close closes this end. A waiting Receive returns; what is not received is
// lost, and its descriptors are closed by the kernel. Further calls do nothing.
func (c *Conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	return c.file.Close()
}
