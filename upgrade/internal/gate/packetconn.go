package gate

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// PacketConn is a gate in front of a datagram socket: reads block while it is
// closed, writes always pass. It is a [net.PacketConn], closed at first. It is
// safe for concurrent use.
type PacketConn struct {
	fd   int
	addr net.Addr

	mu       sync.Mutex
	reserve  reserve
	pc       net.PacketConn // nil while the gate is closed
	shut     bool
	deadline time.Time     // for reads
	changed  chan struct{} // closed at the next change, of the deadline as well
}

// NewPacketConn makes a closed gate for fd, a datagram socket, which is borrowed
// until Close. addr is what LocalAddr answers.
func NewPacketConn(fd int, addr net.Addr) *PacketConn {
	g := &PacketConn{fd: fd, addr: addr, changed: make(chan struct{}), reserve: noReserve}
	g.reserve.fill(fd)
	return g
}

// LocalAddr returns the address of the socket.
func (g *PacketConn) LocalAddr() net.Addr { return g.addr }

// Open lets ReadFrom read. An error leaves the gate closed; it may be tried again.
func (g *PacketConn) Open() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.shut:
		return net.ErrClosed
	case g.pc != nil:
		return nil
	}
	g.reserve.release()
	err := borrow(g.fd, func(f *os.File) (err error) {
		g.pc, err = net.FilePacketConn(f)
		return err
	})
	if err != nil {
		g.reserve.fill(g.fd)
		return fmt.Errorf("open gate of %s: %w", g.addr, err)
	}
	_ = g.pc.SetReadDeadline(g.deadline)
	g.wake()
	return nil
}

// Pause closes the gate. A datagram that was being read in that moment is still
// returned by ReadFrom.
func (g *PacketConn) Pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pc == nil {
		return
	}
	_ = g.pc.Close()
	g.pc = nil
	g.reserve.fill(g.fd)
	g.wake()
}

// Close shuts the gate for good: reads and writes end with [net.ErrClosed]. The
// descriptor is the caller's again.
func (g *PacketConn) Close() error {
	g.Pause()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return nil
	}
	g.shut = true
	g.reserve.release()
	g.wake()
	return nil
}

func (g *PacketConn) wake() {
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *PacketConn) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: g.addr.Network(), Addr: g.addr, Err: err}
}

// ReadFrom reads the next datagram. It blocks while the gate is closed.
func (g *PacketConn) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		g.mu.Lock()
		pc, shut, deadline, changed := g.pc, g.shut, g.deadline, g.changed
		g.mu.Unlock()
		switch {
		case shut:
			return 0, nil, g.fail("read", net.ErrClosed)
		case pc == nil:
			if !wait(changed, deadline) {
				return 0, nil, g.fail("read", os.ErrDeadlineExceeded)
			}
			continue
		}
		n, from, err := pc.ReadFrom(p)
		if err == nil {
			return n, from, nil
		}
		g.mu.Lock()
		current := g.pc == pc
		g.mu.Unlock()
		if current {
			return n, from, err
		}
	}
}

// wait waits for changed, and says whether it came before the deadline.
func wait(changed <-chan struct{}, deadline time.Time) bool {
	if deadline.IsZero() {
		<-changed
		return true
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-changed:
		return true
	case <-timer.C:
		return false
	}
}

// WriteTo sends a datagram, whether the gate is open or not: a generation that
// drains may still have answers to give.
func (g *PacketConn) WriteTo(p []byte, to net.Addr) (int, error) {
	g.mu.Lock()
	pc, shut := g.pc, g.shut
	g.mu.Unlock()
	if shut {
		return 0, g.fail("write", net.ErrClosed)
	}
	if pc != nil {
		n, err := pc.WriteTo(p, to)
		if err == nil || !errors.Is(err, net.ErrClosed) {
			return n, err
		} // the gate was closed under us
	}
	sa, err := sockaddr(g.fd, to)
	if err != nil {
		return 0, g.fail("write", err)
	}
	for {
		// Not in the netpoller, and never blocking: a full socket buffer is
		// an error here, which for datagrams is as good as lost on the way.
		err := unix.Sendto(g.fd, p, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, sa)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, g.fail("write", os.NewSyscallError("sendto", err))
		}
		return len(p), nil
	}
}

// sockaddr converts a for the socket fd: an IPv4 address is mapped for an IPv6
// socket, as package net does.
func sockaddr(fd int, a net.Addr) (unix.Sockaddr, error) {
	switch a := a.(type) {
	case *net.UnixAddr:
		return &unix.SockaddrUnix{Name: a.Name}, nil
	case *net.UDPAddr:
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return nil, os.NewSyscallError("getsockopt", err)
		}
		ip := a.AddrPort().Addr()
		if domain == unix.AF_INET {
			return &unix.SockaddrInet4{Port: a.Port, Addr: ip.Unmap().As4()}, nil
		}
		return &unix.SockaddrInet6{Port: a.Port, Addr: ip.As16(), ZoneId: zone(ip)}, nil
	}
	return nil, fmt.Errorf("cannot send to an address of type %T", a)
}

func zone(ip netip.Addr) uint32 {
	if ip.Zone() == "" {
		return 0
	}
	i, err := net.InterfaceByName(ip.Zone())
	if err != nil {
		return 0
	}
	return uint32(i.Index)
}

// SetDeadline sets both deadlines.
func (g *PacketConn) SetDeadline(t time.Time) error {
	if err := g.SetReadDeadline(t); err != nil {
		return err
	}
	return g.SetWriteDeadline(t)
}

// SetReadDeadline bounds ReadFrom, also while the gate is closed.
func (g *PacketConn) SetReadDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return g.fail("set", net.ErrClosed)
	}
	g.deadline = t
	if g.pc != nil {
		return g.pc.SetReadDeadline(t)
	}
	g.wake()
	return nil
}

// SetWriteDeadline bounds WriteTo while the gate is open; while it is closed
// WriteTo never blocks.
func (g *PacketConn) SetWriteDeadline(t time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return g.fail("set", net.ErrClosed)
	}
	if g.pc != nil {
		return g.pc.SetWriteDeadline(t)
	}
	return nil
}
