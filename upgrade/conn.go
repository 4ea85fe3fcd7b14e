package upgrade

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/internal/track"
)

// Conn is a connection that a [Listener] accepted, TCP or unix, or that was handed
// to it by an earlier generation. It is counted from Accept until Close, with the
// bytes that went over it and what it is doing: "hdctl conns" shows it.
//
// It forwards what the standard library looks for in a connection, so that
// sendfile(2) and splice(2) work as without it. It costs one allocation of 96
// bytes, and nothing a request that can be measured.
type Conn struct {
	conn  net.Conn
	entry track.Entry[*Conn]
}

// Flags of a connection's state, beside its phase.
const (
	// plain: net/http serves it as plaintext HTTP, and says what it does.
	plain track.State = track.FirstFlag << iota
	// pinned: it stays in this generation. HTTP/2, or what cannot be told.
	pinned
	// multiplexed: HTTP/2.
	multiplexed
	// touched: a Read returned a byte, ever.
	touched
	// begun: a Read returned a byte since the connection was new or became idle.
	begun
	// resting: since the connection became idle the server has set the one deadline
	// with which it waits for the next request.
	resting
	// awaiting: an Await waits for the client.
	awaiting
	// poked: its Read or Await was interrupted so that it moves, and it has a
	// place among those in transit.
	poked
	// evicted: a stop of the service ends it if it is idle.
	evicted
	// inherited: handed over by an earlier generation, and no request yet.
	inherited
	// extended: it has an extra.
	extended
	// closed: it is out of the count.
	closed
	// doubled: a descriptor of it may be on its way to nobody, so that close(2)
	// alone would not tell the client.
	doubled
	// moved: it lives on in another generation.
	moved
)

// newConn makes a Conn of c, which is not listed before it is added.
func (l *Listener) newConn(c net.Conn, accepted time.Time) *Conn {
	conn := &Conn{conn: c}
	l.conns.Init(conn, accepted)
	conn.entry.SetPhase(track.Stream) // until a server that knows requests says more
	return conn
}

// admit makes a Conn of a connection that has just been accepted; nil if it is
// another generation's.
func (l *Listener) admit(c net.Conn) net.Conn {
	conn := l.newConn(c, time.Now())
	l.conns.Add(conn)
	if l.passOn(conn) {
		return nil
	}
	return conn
}

// ConnOf finds the Conn inside c: c itself, or what a [crypto/tls.Conn] or any
// other wrapper with a NetConn method holds.
func ConnOf(c net.Conn) (*Conn, bool) {
	for {
		switch t := c.(type) {
		case *Conn:
			return t, true
		case interface{ NetConn() net.Conn }:
			c = t.NetConn()
		default:
			return nil, false
		}
	}
}

// ConnFrom returns the connection of a request that [HTTP] serves, from the
// request's context. Several requests may share one (HTTP/2).
func ConnFrom(ctx context.Context) (*Conn, bool) {
	c, ok := ctx.Value(connKey{}).(*Conn)
	return c, ok
}

type connKey struct{}

func (c *Conn) listener() *Listener { return c.entry.Set().Owner().(*Listener) }

// NetConn returns the connection as the kernel's socket has it, for socket
// options. Do not read from it, nor set deadlines, nor close it.
func (c *Conn) NetConn() net.Conn { return c.conn }

// SetLabel says what the connection is doing, for hdctl conns; at most 256 bytes
// are shown. [HTTP] labels connections with method and path of the latest request.
func (c *Conn) SetLabel(s string) { c.entry.SetLabel(s) }

// Read reads from the connection. On an idle HTTP/1.1 connection that this
// generation has just handed to its successor it returns [io.EOF].
func (c *Conn) Read(p []byte) (int, error) {
	if err := c.beforeRead(len(p)); err != nil {
		return 0, err
	}
	n, err := c.conn.Read(p)
	for n == 0 && err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		if c.expired() {
			return 0, err
		}
		// It was not the deadline of who reads, but an interruption of ours.
		c.restoreReadDeadline()
		if err := c.beforeRead(len(p)); err != nil {
			return 0, err
		}
		n, err = c.conn.Read(p)
	}
	if n > 0 {
		c.received(n)
	}
	return n, err
}

// beforeRead has the connection move, if there is somewhere to go.
func (c *Conn) beforeRead(n int) error {
	if s := c.entry.State(); s&evicted != 0 && evictable(s) {
		return os.ErrDeadlineExceeded // a deadline that was set since has undone the interruption
	}
	m := c.listener().mover.Load()
	if m == nil {
		c.givePlaceBack() // of a mover that has ended
		return nil
	}
	return m.beforeRead(c, n)
}

// received takes note of bytes that were read.
func (c *Conn) received(n int) {
	c.entry.In(n)
	if c.entry.State()&(touched|begun) == touched|begun {
		return
	}
	if before := c.entry.SetFlags(touched | begun); before&(inherited|touched) == inherited {
		c.beginFirstRequest()
	}
}

// Write writes to the connection.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.conn.Write(p)
	c.entry.Out(int64(n))
	return n, err
}

// Close closes the connection and takes it out of the count.
func (c *Conn) Close() error {
	if c.entry.State()&doubled != 0 {
		c.shutdown()
	}
	err := c.conn.Close()
	c.forget()
	return err
}

// shutdown ends the connection for all who have it.
func (c *Conn) shutdown() {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	}
}

// forget takes the connection out of the count, once.
func (c *Conn) forget() {
	before := c.entry.SetFlags(closed)
	if before&closed != 0 {
		return
	}
	c.entry.Set().Remove(c)
	if before&poked != 0 {
		c.givePlaceBack()
	}
	if before&extended != 0 {
		c.listener().dropExtra(c)
	}
}

// LocalAddr returns the local address.
func (c *Conn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr returns the address of the client.
func (c *Conn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.conn.SetWriteDeadline(t)
}

// SetReadDeadline bounds Read.
func (c *Conn) SetReadDeadline(t time.Time) error {
	switch s := c.entry.State(); {
	case s&inherited != 0:
		t = c.firstRequestDeadline(t)
	case s&(plain|begun) == plain && s.Phase() == track.Idle:
		c.rest()
	}
	return c.setReadDeadline(t)
}

// rest takes note of a deadline that is set on an idle connection: net/http sets one
// to wait for the next request, and another one when it has the beginning of that,
// which need not have come by a Read since: a pipelined one was there before.
func (c *Conn) rest() {
	if c.entry.SetFlags(resting)&resting != 0 {
		c.entry.SetFlags(begun)
	}
}

// SetWriteDeadline bounds Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// copyPiece is how much of a long transfer is counted at a time, in bytes.
const copyPiece = 4 << 20

// limited are the readers that cut long transfers into pieces.
var limited = sync.Pool{New: func() any { return new(io.LimitedReader) }}

// ReadFrom copies from r to the connection, by sendfile(2) or splice(2) where
// the kernel can.
func (c *Conn) ReadFrom(r io.Reader) (total int64, err error) {
	lr, limits := r.(*io.LimitedReader)
	source := r
	if limits {
		source = lr.R
	}
	rf, ok := c.conn.(io.ReaderFrom)
	if _, kernel := source.(syscall.Conn); !ok || !kernel {
		return io.Copy(writerOnly{c}, r) // no file and no socket: each write is counted
	}
	if !limits || lr.N <= copyPiece {
		n, err := rf.ReadFrom(r)
		c.entry.Out(n)
		return n, err
	}
	// A long one: in pieces, so that one can see it go on. package net knows
	// files inside of a LimitedReader.
	piece := limited.Get().(*io.LimitedReader)
	defer func() {
		piece.R = nil
		limited.Put(piece)
	}()
	for lr.N > 0 {
		piece.R, piece.N = lr.R, min(lr.N, copyPiece)
		want := piece.N
		n, err := rf.ReadFrom(piece)
		c.entry.Out(n)
		total += n
		lr.N -= n
		if err != nil || n < want {
			return total, err
		}
	}
	return total, nil
}

// WriteTo copies from the connection to w, by splice(2) where the kernel can.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	// Who copies all that comes does not look at requests.
	c.pin()
	total := int64(0)
	for {
		n, err := io.Copy(w, c.conn)
		if n > 0 {
			c.received(int(n))
			total += n
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || c.expired() {
			return total, err
		}
		c.restoreReadDeadline() // an interruption that came a moment too late
	}
}

// writerOnly hides the method that would lead io.Copy back to us.
type writerOnly struct{ io.Writer }

// CloseWrite sends the end of our side to the client and leaves its side open.
func (c *Conn) CloseWrite() error {
	if cw, ok := c.conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SyscallConn gives access to the descriptor.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// pin keeps the connection in this generation.
func (c *Conn) pin() {
	if before := c.entry.SetFlags(pinned); before&poked != 0 {
		c.givePlaceBack()
	}
}
