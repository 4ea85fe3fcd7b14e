package upgrade

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/hdctl/handoff/upgrade/internal/gate"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

// How the serving generation gets connections from those that drain: it makes a
// transfer link for each and sends one end of it over the ordinary link (Adopt). So
// a draining generation whose successor does not know of this, being of an older
// version, is offered nothing, and serves as a lame duck.

// adoptWorkers is how many connections are adopted from one generation at the same
// time. Most of the work is system calls.
const adoptWorkers = 4

// expectTimeout is how long a draining generation waits for its successor to open
// the way before it tells its clients that it leaves.
const expectTimeout = 2 * time.Second

// verify finds out, once a process, whether idle HTTP connections may move.
var verify = sync.OnceValues(verifyReads)

// adoptFrom opens the way for connections of the draining generations that main
// knows, if it is not open yet. The driver calls it.
func (u *Upgrader) adoptFrom(drainers []int) {
	for _, number := range drainers {
		p := u.peers[number]
		if p == nil || p.receiver != nil || p.adoptLater {
			continue
		}
		err := u.openTransfer(p)
		if err == nil || errors.Is(err, link.ErrPeerClosed) { // it is on its way out
			continue
		}
		u.log.LogAttrs(u.ctx, slog.LevelError, "the way for connections is not open; trying again", slog.Int("generation", number), slog.Any("err", err))
		p.adoptLater = true
		u.after(retryDelay, func() {
			p.adoptLater = false
			if s := u.state; s.Main && s.Life == machine.Serving && !s.Held {
				u.adoptFrom(s.Drainers)
			}
		})
	}
}

func (u *Upgrader) openTransfer(p *peer) error {
	ours, theirs, err := link.Pair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	conn, err := link.New(ours)
	if err != nil {
		return err
	}
	if err := p.conn.Send(link.Adopt{Generation: u.number, Listeners: u.adoptables()}, theirs); err != nil {
		_ = conn.Close()
		return err
	}
	p.receiver = transfer.Receive(conn, adoptWorkers, u.adopt)
	return nil
}

// adoptables says what of a predecessor's connections has a place here.
func (u *Upgrader) adoptables() []link.Adoptable {
	u.mu.Lock()
	defer u.mu.Unlock()
	var list []link.Adoptable
	for _, l := range u.listeners {
		list = append(list, l.adoptable())
	}
	return list
}

func (l *Listener) adoptable() link.Adoptable {
	s := l.served.Load()
	return link.Adoptable{
		Name:     l.name,
		HTTP:     s != nil && !s.tls,
		Sessions: l.decode != nil && (s == nil || s.sessions != nil),
	}
}

// refuseConnections answers no to what is still offered: this generation drains
// itself.
func (u *Upgrader) refuseConnections() (receivers []*transfer.Receiver) {
	code, message := transfer.CodeDraining, fmt.Sprintf("generation %d drains itself", u.number)
	if u.state.Held { // nobody else is about to take them
		code, message = transfer.CodeHeld, fmt.Sprintf("the door of generation %d is closed", u.number)
	}
	for _, p := range u.peers {
		if p.receiver != nil {
			p.receiver.Refuse(code, message)
			receivers = append(receivers, p.receiver)
		}
	}
	return receivers
}

// adoption is a connection that is on its way to us.
type adoption struct {
	listener *Listener
	conn     *Conn
	fresh    bool
}

// adopt prepares a connection that a draining generation offers. Nothing is read
// from it.
func (u *Upgrader) adopt(o link.Offer, files []*os.File) (transfer.Adoption, error) {
	var l *Listener
	u.mu.Lock()
	for _, candidate := range u.listeners {
		if candidate.name == o.Listener {
			l = candidate
		}
	}
	u.mu.Unlock()
	if l == nil {
		return nil, &transfer.Refused{Code: transfer.CodeListener, Message: fmt.Sprintf("there is no listener %q", o.Listener)}
	}
	if !l.reserve() {
		return nil, &transfer.Refused{Code: transfer.CodeBusy, Message: fmt.Sprintf("%q has not accepted those that came before", l.name)}
	}
	c, err := l.prepare(o, files)
	if err != nil {
		l.reserved.Add(-1)
		return nil, err
	}
	return &adoption{l, c, o.Fresh}, nil
}

// reserve makes sure of a place in the queue of Accept, for a connection that is
// about to be adopted: once that is answered it cannot be refused any more.
func (l *Listener) reserve() bool {
	if int(l.reserved.Add(1))+l.gates[0].Pushed() > gate.MaxPushed {
		l.reserved.Add(-1)
		return false
	}
	return true
}

// prepare makes a connection of an offer.
func (l *Listener) prepare(o link.Offer, files []*os.File) (*Conn, error) {
	if o.Fresh { // as if it had been accepted here
		nc, err := connOf(files[0])
		if err != nil {
			return nil, err
		}
		return l.newConn(nc, time.Unix(0, o.Accepted)), nil
	}
	a := l.adoptable()
	if o.Session == nil && !a.HTTP || o.Session != nil && !a.Sessions {
		return nil, &transfer.Refused{Code: transfer.CodeListener, Message: fmt.Sprintf("%q takes no such connection", l.name)}
	}
	var session any
	if o.Session != nil {
		s, err := unpackSession(o.Session, files[1:])
		if err != nil {
			return nil, err
		}
		if session, err = l.decodeSession(s); err != nil {
			return nil, &transfer.Refused{Code: transfer.CodeSession, Message: err.Error()}
		}
	}
	nc, err := connOf(files[0])
	if err != nil {
		return nil, err
	}
	c := l.newConn(nc, time.Unix(0, o.Accepted))
	c.entry.SetBytes(o.In, o.Out, time.Unix(0, o.Moved))
	c.entry.SetLabel(o.Label)
	if o.Session != nil {
		c.withExtra(func(x *extra) { x.session = session })
	} else {
		c.inherit()
	}
	return c, nil
}

// decodeSession calls the service's decoder, whose panic is a refusal.
func (l *Listener) decodeSession(s Session) (session any, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the decoder of %q panicked: %v\n%s", l.name, v, debug.Stack())
		}
	}()
	session, err = l.decode(s)
	if err == nil && session == nil {
		err = errors.New("the decoder returned no session")
	}
	return session, err
}

// Commit makes the connection ours.
func (a *adoption) Commit() {
	if a.listener.push(a.conn) == nil && !a.fresh {
		a.listener.adopted.Add(1)
	}
	a.listener.reserved.Add(-1)
}

// Abort drops our copy.
func (a *adoption) Abort() {
	_ = a.conn.Close()
	a.listener.reserved.Add(-1)
}

// startMoving begins to hand connections to main, which has opened the way. The
// driver calls it; keep says that the file is used.
func (u *Upgrader) startMoving(p *peer, m link.Adopt, file *os.File) (keep bool) {
	if u.state.Life != machine.Draining || u.state.Stopping || p.number != u.state.Lead || u.set.noMigration {
		return false
	}
	conn, err := link.New(file)
	if err != nil {
		u.log.LogAttrs(u.ctx, slog.LevelError, "way for connections not opened", slog.Int("generation", p.number), slog.Any("err", err))
		return true
	}
	mv := &mover{
		to: p.number, sender: transfer.NewSender(conn), listeners: make(map[string]link.Adoptable),
		places: u.places, log: u.log, again: make(chan struct{}, 1), over: make(chan struct{}),
	}
	http := false
	for _, a := range m.Listeners {
		mv.listeners[a.Name] = a
		http = http || a.HTTP
	}
	mv.lost = func() { u.expectNext(mv) }
	older := u.mover
	u.mover = mv
	u.movers++
	mv.order = u.movers
	listeners, expected := u.allListeners(), u.expectation
	u.wg.Go(func() {
		note := mv.note(listeners)
		if http {
			if mv.buffer, err = verify(); err != nil {
				u.log.LogAttrs(u.ctx, slog.LevelWarn, "idle HTTP connections do not move", slog.Any("err", err))
				note = "idle connections end with their next answer: " + err.Error()
			}
		}
		u.box.post(func() {
			if u.mover == mv {
				u.setNote(note)
			}
		})
		for _, l := range listeners {
			l.moveWith(mv)
		}
		if older != nil { // only now: in between, answers would announce the end of connections
			u.wg.Go(func() { older.end(errors.New("a newer generation takes connections")) })
		}
		if expected != nil {
			expected.end()
		}
		mv.run(listeners)
		<-mv.over
		for _, l := range listeners {
			l.mover.CompareAndSwap(mv, nil)
		}
		u.box.post(func() {
			if u.mover == mv { // it ended by itself
				u.mover = nil
				u.setNote(fmt.Sprintf("idle connections end with their next answer: generation %d has not answered", mv.to))
			}
		})
	})
	return true
}

// moveWith has connections move with m, unless they do with a later one already.
func (l *Listener) moveWith(m *mover) {
	for {
		old := l.mover.Load()
		if old != nil && old.order > m.order || l.mover.CompareAndSwap(old, m) {
			return
		}
	}
}

// note says which idle HTTP connections the receiver does not take.
func (m *mover) note(listeners []*Listener) string {
	var names []string
	for _, l := range listeners {
		if l.adoptable().HTTP && !m.listeners[l.name].HTTP {
			names = append(names, l.name)
		}
	}
	if names == nil {
		return ""
	}
	return fmt.Sprintf("idle connections of %s end with their next answer: generation %d takes none", strings.Join(names, ", "), m.to)
}

// stopMoving keeps what has not moved yet. The driver calls it.
func (u *Upgrader) stopMoving(cause error) {
	if mv := u.mover; mv != nil {
		u.mover = nil
		// Not here: it waits until it is decided who has what is in transit, which
		// depends on nobody but the kernel, but the driver waits for nothing.
		u.wg.Go(func() { mv.end(cause) })
	}
}

// expectMover has HTTP connections that finish a request wait for the way to open,
// instead of being told to leave.
func (u *Upgrader) expectMover() {
	if u.set.noMigration {
		u.setNote("idle connections end with their next answer: migration is turned off (HANDOFF_MIGRATE)")
		return
	}
	e := u.expect()
	u.expectation = e
	u.after(expectTimeout, func() {
		if e.end() && u.mover == nil && u.state.Life == machine.Draining && !u.state.Stopping {
			u.setNote("idle connections end with their next answer: the successor takes none (an older version of the library?)")
		}
	})
}

// expectNext is expectMover for connections whose receiver has ended: it may have
// drained itself, and its successor is about to open a way, perhaps a moment too late.
func (u *Upgrader) expectNext(old *mover) {
	e := u.expect()
	timer := u.after(expectTimeout, func() { e.end() })
	if !u.box.post(func() {
		if u.state.Life != machine.Draining || u.state.Stopping || u.mover != nil && u.mover != old {
			timer.Stop()
			e.end() // it is not needed
			return
		}
		u.expectation = e
	}) {
		e.end()
	}
}

// expectation is the time between the begin of a drain and the opening of the way
// for connections.
type expectation struct {
	over chan struct{}
	once sync.Once
}

// expect begins one, for all listeners.
func (u *Upgrader) expect() *expectation {
	e := &expectation{over: make(chan struct{})}
	for _, l := range u.allListeners() {
		l.expects.Store(e)
	}
	return e
}

// end ends it, and tells whether it was not over before.
func (e *expectation) end() (first bool) {
	e.once.Do(func() {
		close(e.over)
		first = true
	})
	return first
}

// setNote says why connections stay, in status.
func (u *Upgrader) setNote(note string) {
	if u.note != note {
		u.note = note
		u.publish()
	}
}
