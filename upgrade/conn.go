package upgrade

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hdctl/handoff/upgrade/internal/track"
)

// Conn is a connection that a [Listener] accepted, TCP or unix. It is counted
// from Accept until Close. It forwards what the standard library looks for in a
// connection, so that sendfile and splice work as without it.
type Conn struct {
	conn  net.Conn
	entry track.Entry
	close sync.Once

	idleSince   atomic.Int64 // unix nanoseconds; valid in the phases New and Idle
	interrupted atomic.Bool
}

// admit makes a Conn of a connection that has just been accepted.
func (l *Listener) admit(c net.Conn) net.Conn {
	conn := &Conn{conn: c}
	conn.entry.SetPhase(track.Stream) // until a server that knows requests says more
	l.conns.Add(&conn.entry, conn)
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

// NetConn returns the connection as the kernel's socket has it, for socket
// options. Do not close it.
func (c *Conn) NetConn() net.Conn { return c.conn }

// Read reads from the connection.
func (c *Conn) Read(p []byte) (int, error) { return c.conn.Read(p) }

// Write writes to the connection.
func (c *Conn) Write(p []byte) (int, error) { return c.conn.Write(p) }

// Close closes the connection and takes it out of the count.
func (c *Conn) Close() error {
	err := c.conn.Close()
	c.close.Do(c.entry.Remove)
	return err
}

// LocalAddr returns the local address.
func (c *Conn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr returns the address of the client.
func (c *Conn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error { return c.conn.SetDeadline(t) }

// SetReadDeadline bounds Read.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SetWriteDeadline bounds Write.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// ReadFrom copies from r to the connection, by sendfile(2) or splice(2) where
// the kernel can.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	if rf, ok := c.conn.(io.ReaderFrom); ok {
		return rf.ReadFrom(r)
	}
	return io.Copy(writerOnly{c.conn}, r)
}

// WriteTo copies from the connection to w, by splice(2) where the kernel can.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	if wt, ok := c.conn.(io.WriterTo); ok {
		return wt.WriteTo(w)
	}
	return io.Copy(w, readerOnly{c.conn})
}

// writerOnly and readerOnly hide the methods that would lead io.Copy back to us.
type (
	writerOnly struct{ io.Writer }
	readerOnly struct{ io.Reader }
)

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
