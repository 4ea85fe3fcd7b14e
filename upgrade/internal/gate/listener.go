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

	admit func(net.Conn) net.Conn

	mu      sync.Mutex
	reserve reserve
	opening *opening // nil while the gate is closed
	last    *opening // the latest one, if it was closed again
	shut    bool
	changed chan struct{} // closed at the next change
}

// opening is the time from an Open to the next Pause.
type opening struct {
	ln      net.Listener
	accepts sync.WaitGroup // calls of Accept that are in ln.Accept or admit
}

// NewListener makes a closed gate for fd, a listening socket, which is borrowed
// until Close. addr is what Addr answers. Accept returns what admit, if it is not
// nil, makes of a new connection.
func NewListener(fd int, addr net.Addr, admit func(net.Conn) net.Conn) *Listener {
	g := &Listener{fd: fd, addr: addr, admit: admit, changed: make(chan struct{}), reserve: noReserve}
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
	case g.opening != nil:
		return nil
	}
	g.reserve.release()
	o := new(opening)
	err := borrow(g.fd, func(f *os.File) (err error) {
		o.ln, err = net.FileListener(f)
		return err
	})
	if err != nil {
		g.reserve.fill(g.fd)
		return fmt.Errorf("open gate of %s: %w", g.addr, err)
	}
	g.opening = o
	g.wake()
	return nil
}

// Pause closes the gate: once it has returned, Accept starts no further accept.
// A connection that was being accepted in that moment is still admitted, and
// returned by Accept; Settle waits for that.
func (g *Listener) Pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opening == nil {
		return
	}
	_ = g.opening.ln.Close() // close(2) only: a listener made of a file neither unlinks nor shuts down
	g.last, g.opening = g.opening, nil
	g.reserve.fill(g.fd)
	g.wake()
}

// Settle waits, after a Pause, until every connection that was being accepted
// has been admitted.
func (g *Listener) Settle() {
	g.mu.Lock()
	last := g.last
	g.mu.Unlock()
	if last != nil {
		last.accepts.Wait()
	}
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
		o, changed, err := g.enter()
		switch {
		case err != nil:
			return nil, err
		case o == nil:
			<-changed
			continue
		}
		c, err := o.ln.Accept()
		if err == nil && g.admit != nil {
			c = g.admit(c)
		}
		o.accepts.Done()
		if err == nil {
			return c, nil
		}
		g.mu.Lock()
		current := g.opening == o
		g.mu.Unlock()
		if current { // a real error, not our own doing
			return nil, err
		}
	}
}

// enter announces an accept if the gate is open. No accept is announced to an
// opening that has ended, so that Settle can wait for those that were.
func (g *Listener) enter() (*opening, <-chan struct{}, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.shut:
		return nil, nil, &net.OpError{Op: "accept", Net: g.addr.Network(), Addr: g.addr, Err: net.ErrClosed}
	case g.opening != nil:
		g.opening.accepts.Add(1)
	}
	return g.opening, g.changed, nil
}
