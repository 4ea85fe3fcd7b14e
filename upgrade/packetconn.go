package upgrade

import (
	"net"
	"time"

	"github.com/hdctl/handoff/upgrade/internal/gate"
)

// PacketConn is the gate of a datagram socket: reads block while another
// generation reads and end with [net.ErrClosed] when this generation is over;
// writes always pass, also for a service that answers after [Upgrader.Run] has
// returned what it had read before. It is safe for concurrent use.
//
// Every datagram is read by exactly one generation, but the kernel knows no
// conversations: what belongs together may come to two generations, one after
// the other.
type PacketConn struct {
	name string
	gate *gate.PacketConn
}

// ReadFrom reads the next datagram.
func (c *PacketConn) ReadFrom(p []byte) (int, net.Addr, error) { return c.gate.ReadFrom(p) }

// WriteTo sends a datagram. While another generation reads it does not block: a
// full socket buffer is an error then.
func (c *PacketConn) WriteTo(p []byte, to net.Addr) (int, error) { return c.gate.WriteTo(p, to) }

// Close ends reading and writing in this generation for good. The shared socket
// stays, and a successor inherits it.
func (c *PacketConn) Close() error { return c.gate.Close() }

// LocalAddr returns the address of the socket.
func (c *PacketConn) LocalAddr() net.Addr { return c.gate.LocalAddr() }

// Name returns the name that was given to [Upgrader.ListenPacket].
func (c *PacketConn) Name() string { return c.name }

// SetDeadline sets both deadlines.
func (c *PacketConn) SetDeadline(t time.Time) error { return c.gate.SetDeadline(t) }

// SetReadDeadline bounds ReadFrom, also while another generation reads.
func (c *PacketConn) SetReadDeadline(t time.Time) error { return c.gate.SetReadDeadline(t) }

// SetWriteDeadline bounds WriteTo.
func (c *PacketConn) SetWriteDeadline(t time.Time) error { return c.gate.SetWriteDeadline(t) }
