package gate

import (
	"fmt"
	"net"
	"os"
	"sync"
)

// Listener is a gate in front of a listening socket. It is a [net.Listener],
// closed at first. It is safe for concurrent use.
type Listener struct {
	fd   int
	addr net.Addr

	mu      sync.Mutex
	reserve reserve
	ln      net.Listener // nil while the gate is closed
	shut    bool
	changed chan struct{} // closed at the next change
}

// NewListener makes a closed gate for fd, a listening socket, which is borrowed
// until Close. addr is what Addr answers.
func NewListener(fd int, addr net.Addr) *Listener {
	g := &Listener{fd: fd, addr: addr, changed: make(chan struct{}), reserve: noReserve}
	g.reserve.fill(fd)
	return g
}

// Addr returns the address of the socket.
func (g *Listener) Addr() net.Addr { return g.addr }

// Open lets Accept accept. An error leaves the gate closed; it may be tried again.
func (g *Listener) Open() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.shut:
		return net.ErrClosed
	case g.ln != nil:
		return nil
	}
	g.reserve.release()
	err := borrow(g.fd, func(f *os.File) (err error) {
		g.ln, err = net.FileListener(f)
		return err
	})
	if err != nil {
		g.reserve.fill(g.fd)
		return fmt.Errorf("open gate of %s: %w", g.addr, err)
	}
	g.wake()
	return nil
}

// Pause closes the gate: once it has returned, Accept starts no further accept.
// A connection that was being accepted in that moment is still returned by it.
func (g *Listener) Pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ln == nil {
		return
	}
	_ = g.ln.Close() // close(2) only: a listener made of a file neither unlinks nor shuts down
	g.ln = nil
	g.reserve.fill(g.fd)
	g.wake()
}

// Close shuts the gate for good. Accept ends with [net.ErrClosed]. The
// descriptor is the caller's again.
func (g *Listener) Close() error {
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

// wake tells all that wait that the gate has changed. The caller holds mu.
func (g *Listener) wake() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// Accept returns the next connection. It blocks while the gate is closed.
func (g *Listener) Accept() (net.Conn, error) {
	for {
		g.mu.Lock()
		ln, shut, changed := g.ln, g.shut, g.changed
		g.mu.Unlock()
		switch {
		case shut:
			return nil, &net.OpError{Op: "accept", Net: g.addr.Network(), Addr: g.addr, Err: net.ErrClosed}
		case ln == nil:
			<-changed
			continue
		}
		c, err := ln.Accept()
		if err == nil {
			return c, nil
		}
		g.mu.Lock()
		current := g.ln == ln
		g.mu.Unlock()
		if current { // a real error, not our own doing
			return nil, err
		}
	}
}
