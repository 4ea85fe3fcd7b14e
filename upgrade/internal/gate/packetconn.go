package gate

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// PacketConn is a gate in front of a datagram socket: reads block while it is
// closed, writes always pass. It is a [net.PacketConn], closed at first. It is
// safe for concurrent use.
type PacketConn struct {
	door[net.PacketConn]

	// Guarded by the door's mu.
	deadline time.Time // for reads
	deaf     bool      // reading has ended for good
}

// NewPacketConn makes a closed gate for fd, a datagram socket, which is borrowed
// until Close. addr is what LocalAddr answers.
func NewPacketConn(fd int, addr net.Addr) *PacketConn {
	g := new(PacketConn)
	g.init(fd, addr, func(f *os.File) (net.PacketConn, error) {
		pc, err := net.FilePacketConn(f)
		if err != nil {
			return nil, err
		}
		return pc, pc.SetReadDeadline(g.deadline)
	})
	return g
}

// LocalAddr returns the address of the socket.
func (g *PacketConn) LocalAddr() net.Addr { return g.addr }

// CloseRead ends reading for good: ReadFrom fails with [net.ErrClosed]. Writes
// pass as through a closed gate, and the descriptor stays borrowed, until Close.
func (g *PacketConn) CloseRead() error {
	g.Pause()
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.deaf {
		g.deaf = true
		g.wake()
	}
	return nil
}

// ReadFrom reads the next datagram. It blocks while the gate is closed.
func (g *PacketConn) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		o, changed, err := g.enter("read")
		switch {
		case err != nil:
			return 0, nil, err
		case o == nil:
			deadline, deaf := g.reading()
			if deaf {
				return 0, nil, g.fail("read", net.ErrClosed)
			}
			if !wait(changed, deadline) {
				return 0, nil, g.fail("read", os.ErrDeadlineExceeded)
			}
			continue
		}
		n, from, err := o.via.ReadFrom(p)
		o.entered.Done()
		if err == nil || g.isOpen(o) {
			return n, from, err
		}
	}
}

func (g *PacketConn) reading() (deadline time.Time, deaf bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.deadline, g.deaf
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
	o, _, err := g.enter("write")
	if err != nil {
		return 0, err
	}
	if o != nil {
		n, err := o.via.WriteTo(p, to)
		o.entered.Done()
		if err == nil || g.isOpen(o) {
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
	if g.opening != nil {
		return g.opening.via.SetReadDeadline(t)
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
	if g.opening != nil {
		return g.opening.via.SetWriteDeadline(t)
	}
	return nil
}
