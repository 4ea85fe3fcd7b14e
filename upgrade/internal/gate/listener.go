package gate

import (
	"errors"
	"net"
	"os"
	"time"
)

// MaxPushed is how many pushed connections may wait for an Accept.
const MaxPushed = 128

// ErrFull is the answer of [Listener.Push] while 128 connections wait to be
// accepted: the service does not keep up.
var ErrFull = errors.New("gate: too many connections wait to be accepted")

// Listener is a gate in front of a listening socket. It is a [net.Listener],
// closed at first. It is safe for concurrent use.
type Listener struct {
	door[listener]

	admit  func(net.Conn) net.Conn
	meter  Meter
	pushed []net.Conn // wait to be accepted, the next one first; guarded by the door's mu
}

// Meter counts what comes out of Accept, for who watches from outside whether
// anything does.
type Meter interface {
	Accepted()        // one more connection
	SetWaiting(n int) // how many that were pushed wait to be accepted
}

// noMeter counts nothing.
type noMeter struct{}

func (noMeter) Accepted()      {}
func (noMeter) SetWaiting(int) {}

// listener is what *[net.TCPListener] and *[net.UnixListener] have in common.
type listener interface {
	net.Listener
	SetDeadline(time.Time) error
}

// NewListener makes a closed gate for fd, a listening socket, which is borrowed
// until Close. addr is what Addr answers. Accept returns what admit, if it is not
// nil, makes of a new connection; if that is nil, admit has kept the connection, and
// Accept waits for the next one. meter may be nil.
func NewListener(fd int, addr net.Addr, admit func(net.Conn) net.Conn, meter Meter) *Listener {
	if meter == nil {
		meter = noMeter{}
	}
	g := &Listener{admit: admit, meter: meter}
	g.init(fd, addr, func(f *os.File) (listener, error) {
		ln, err := net.FileListener(f)
		if err != nil {
			return nil, err
		}
		return ln.(listener), nil // package net has no others
	})
	return g
}

// Addr returns the address of the socket.
func (g *Listener) Addr() net.Addr { return g.addr }

// Accept returns the next connection: one that was pushed, if there is any,
// otherwise one from the socket. It blocks while the gate is closed and nothing
// is pushed.
func (g *Listener) Accept() (net.Conn, error) {
	for {
		c, o, changed, err := g.next()
		switch {
		case err != nil:
			return nil, err
		case c != nil:
			g.meter.Accepted()
			return c, nil
		case o == nil:
			<-changed
			continue
		}
		c, err = o.via.Accept()
		if err == nil {
			g.meter.Accepted()
			if g.admit != nil {
				c = g.admit(c)
			}
		}
		o.entered.Done()
		switch {
		case err == nil && c == nil: // kept
		case errors.Is(err, os.ErrDeadlineExceeded): // there was a push; another Accept may have got it
		case err == nil || g.isOpen(o):
			return c, err
		}
	}
}

// next returns what Accept has to do: return a connection that was pushed, or an
// error, or what enter says. That is one look under the lock, so that no Accept
// goes to the socket while a pushed connection waits.
func (g *Listener) next() (net.Conn, *opening[listener], <-chan struct{}, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.pop(); c != nil {
		return c, nil, nil, nil
	}
	o, changed, err := g.enterLocked("accept")
	return nil, o, changed, err
}

// pop takes the next pushed connection, nil if there is none. The caller holds
// mu.
func (g *Listener) pop() net.Conn {
	if len(g.pushed) == 0 {
		return nil
	}
	c := g.pushed[0]
	g.pushed[0] = nil
	if g.pushed = g.pushed[1:]; len(g.pushed) == 0 {
		g.pushed = nil
		if g.opening != nil {
			_ = g.opening.via.SetDeadline(time.Time{}) // it succeeded in Push
		}
	}
	g.meter.SetWaiting(len(g.pushed))
	return c
}

// Push has Accept return c, as it is, whether the gate is open or closed. An
// Accept that is blocked is woken.
//
// On success c belongs to the gate: it comes out of exactly one Accept, or is
// closed by Close. It stays the caller's if there is an error: [net.ErrClosed] of
// a gate that is shut, [ErrFull], or why a blocked Accept could not be woken.
func (g *Listener) Push(c net.Conn) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.shut:
		return g.fail("push", net.ErrClosed)
	case len(g.pushed) >= MaxPushed:
		return ErrFull
	}
	if g.opening != nil {
		// All that are blocked in accept(2) come back, and who comes first takes
		// c. The deadline stays until nothing is left to take; who enters the
		// opening does so after that, having found nothing.
		if err := g.opening.via.SetDeadline(time.Unix(1, 0)); err != nil {
			return g.fail("push", err)
		}
	} else {
		g.wake()
	}
	g.pushed = append(g.pushed, c)
	g.meter.SetWaiting(len(g.pushed))
	return nil
}

// Close shuts the gate for good: Accept fails with [net.ErrClosed], and what was
// pushed and not accepted is closed. The descriptor is the caller's again.
func (g *Listener) Close() error {
	err := g.door.Close()
	g.mu.Lock()
	left := g.pushed
	g.pushed = nil
	g.meter.SetWaiting(0)
	g.mu.Unlock()
	for _, c := range left { // their Close is not ours: it may take its time
		_ = c.Close()
	}
	return err
}

// Pushed returns how many pushed connections wait to be accepted.
func (g *Listener) Pushed() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.pushed)
}
