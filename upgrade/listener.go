package upgrade

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"github.com/hdctl/handoff/upgrade/internal/gate"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
	"github.com/hdctl/handoff/upgrade/internal/track"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

// Listener is where a service accepts from, all its life. It is a gate in front
// of the real sockets: Accept blocks while this generation may not accept
// (starting, parked, draining) and ends with [net.ErrClosed] only when the
// generation is over. So the service never learns that it was parked, and no
// server is ever restarted. Connections that an earlier generation hands over come
// out of Accept, too.
//
// It is safe for concurrent use.
type Listener struct {
	name  string
	gates []*gate.Listener
	conns *track.Set[*Conn]

	goodbyes *goodbyes                   // of the generation
	pulse    *pulse.Page                 // of the generation; nil: requests are not counted
	places   transfer.Places             // of the generation
	mover    atomic.Pointer[mover]       // where connections go; nil: nowhere
	share    atomic.Pointer[share]       // where a part of the new ones goes; nil: nowhere
	slots    []*pulse.Slot               // where each gate counts
	expects  atomic.Pointer[expectation] // a mover is expected, unless it is over
	served   atomic.Pointer[httpServer]  // the HTTP server that takes connections handed over, if there is one
	reserved atomic.Int32                // places in the queue of Accept
	decode   func(Session) (any, error)  // see Adopt; fixed before Run
	totals

	httpParent atomic.Pointer[context.Context] // see connContext

	extrasMu sync.Mutex
	extras   map[*Conn]*extra

	// Several sockets: one goroutine each accepts from its gate and hands the
	// connection, or the error, to Accept.
	fanIn    sync.Once
	accepted chan acceptResult
	closing  chan struct{}
	closed   sync.Once
	wg       sync.WaitGroup
}

type acceptResult struct {
	conn net.Conn
	err  error
}

func newListener(name string, socks []*socket, g *goodbyes, p transfer.Places) *Listener {
	l := &Listener{name: name, goodbyes: g, places: p, closing: make(chan struct{}), accepted: make(chan acceptResult)}
	l.conns = track.NewSet(l, func(c *Conn) *track.Entry[*Conn] { return &c.entry })
	for _, s := range socks {
		l.slots = append(l.slots, s.slot)
		l.gates = append(l.gates, gate.NewListener(s.fd, s.addr(), l.admit, s.slot))
	}
	return l
}

// Accept returns the next connection; its dynamic type is *[Conn].
func (l *Listener) Accept() (net.Conn, error) {
	if len(l.gates) == 1 {
		return l.gates[0].Accept()
	}
	l.fanIn.Do(func() {
		for _, g := range l.gates {
			l.wg.Go(func() { l.feed(g) })
		}
	})
	select {
	case r := <-l.accepted:
		return r.conn, r.err
	case <-l.closing:
		return nil, &net.OpError{Op: "accept", Net: l.Addr().Network(), Addr: l.Addr(), Err: net.ErrClosed}
	}
}

// feed accepts from one gate until it is shut.
func (l *Listener) feed(g *gate.Listener) {
	for {
		c, err := g.Accept()
		select {
		case l.accepted <- acceptResult{c, err}:
		case <-l.closing:
			if c != nil {
				c.Close()
			}
			return
		}
	}
}

// push has c, which was handed over, come out of Accept. Where there are several
// sockets it does not matter through which gate.
func (l *Listener) push(c *Conn) error {
	l.conns.Add(c)
	if err := l.gates[0].Push(c); err != nil {
		_ = c.Close()
		return err
	}
	return nil
}

// Close ends accepting in this generation for good. It does not shut down or
// unlink the shared socket, which a successor inherits all the same.
func (l *Listener) Close() error {
	l.closed.Do(func() {
		close(l.closing)
		for _, g := range l.gates {
			_ = g.Close()
		}
		l.wg.Wait()
	})
	return nil
}

// SetBusy declares that the service accepts nothing from l on purpose, since it has
// as many connections as it wants, or does so again. Without that, a new generation
// that keeps clients waiting for the HangTimeout while its predecessor stands by is
// taken for one that hangs.
func (l *Listener) SetBusy(busy bool) {
	for _, s := range l.slots {
		s.SetBusy(busy)
	}
}

// Addr returns the address of the first socket.
func (l *Listener) Addr() net.Addr { return l.gates[0].Addr() }

// Name returns the name that was given to [Upgrader.Listen].
func (l *Listener) Name() string { return l.name }

func (l *Listener) open() error {
	for _, g := range l.gates {
		if err := g.Open(); err != nil {
			return fmt.Errorf("listener %q: %w", l.name, err)
		}
	}
	return nil
}

func (l *Listener) pause() {
	for _, g := range l.gates {
		g.Pause()
	}
}

// settle waits, after a pause, until what was being accepted is counted.
func (l *Listener) settle() {
	for _, g := range l.gates {
		g.Settle()
	}
}

// cut closes the connections that are left, or those in the given phases.
func (l *Listener) cut(phases ...track.Phase) {
	for _, c := range l.conns.All() {
		p := c.entry.Phase()
		cut := len(phases) == 0
		for _, q := range phases {
			cut = cut || p == q
		}
		if cut {
			_ = c.Close()
		}
	}
}
