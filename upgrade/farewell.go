package upgrade

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hdctl/handoff/upgrade/internal/track"
)

// farewell is a function that says goodbye on a connection.
type farewell struct {
	f     func()
	timer *time.Timer // nil: not under way; guarded by the goodbyes' mutex
	over  atomic.Bool // it was called, or taken back
}

func (f *farewell) run() {
	if !f.over.Swap(true) {
		f.f()
	}
}

// cancel has f never run, and tells whether it would have. It does not wait for
// one that runs, which may be about to close the connection.
func (f *farewell) cancel() bool { return !f.over.Swap(true) }

// goodbyes decides when the connections of a generation that drains say goodbye.
// After an upgrade nobody waits for it, and clients that all come back at the same
// moment are a load of their own: each gets a moment of its own, at random. In a
// stop, and at the deadline, there is no time to lose.
type goodbyes struct {
	delay, spread time.Duration

	mu    sync.Mutex
	from  time.Time // of the first one; zero: nobody drains
	now   bool
	until time.Time // of the last one
}

// begin has those say goodbye who are registered with the listeners.
func (g *goodbyes) begin(listeners []*Listener) {
	g.mu.Lock()
	g.from = time.Now().Add(g.delay)
	g.until = g.from.Add(g.spread)
	g.mu.Unlock()
	g.each(listeners, g.schedule)
}

// hasten has those say it now who have not yet.
func (g *goodbyes) hasten(listeners []*Listener) {
	g.mu.Lock()
	if g.from.IsZero() {
		g.from = time.Now()
	}
	g.now = true
	g.mu.Unlock()
	g.each(listeners, g.schedule)
}

// end has nobody say it any more: the door is open again.
func (g *goodbyes) end(listeners []*Listener) {
	g.mu.Lock()
	g.from, g.now = time.Time{}, false
	g.mu.Unlock()
	g.each(listeners, func(f *farewell) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if f.timer != nil && f.timer.Stop() {
			f.timer = nil
		}
	})
}

func (g *goodbyes) each(listeners []*Listener, do func(*farewell)) {
	for _, l := range listeners {
		var all []*farewell
		l.extrasMu.Lock()
		for _, x := range l.extras {
			all = append(all, x.farewell...)
		}
		l.extrasMu.Unlock()
		for _, f := range all {
			do(f)
		}
	}
}

// schedule gives f its moment, if there is a drain.
func (g *goodbyes) schedule(f *farewell) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.from.IsZero():
		return
	case g.now:
		if f.timer == nil || f.timer.Stop() {
			f.timer = time.AfterFunc(0, f.run)
		}
		return
	case f.timer != nil:
		return
	}
	// Those who come late get a moment in what is left.
	wait := max(time.Until(g.from), 0)
	if rest := time.Until(g.until) - wait; rest > 0 {
		wait += rand.N(rest)
	}
	f.timer = time.AfterFunc(wait, f.run)
}

// OnDrain has f called, in a goroutine of its own, when this connection shall come
// to an end: when its generation drains. f says goodbye in the words of the
// protocol, such as a close frame, and has the connection end soon; the drain waits
// for that until its deadline.
//
// After an upgrade that is at a random moment of the HANDOFF_DRAIN_SPREAD that
// begins when HANDOFF_DRAIN_DELAY is over, so that clients do not all come back at
// once; in a stop of the service, and when the deadline has come, it is at once. A
// drain that is taken back before that calls nobody. f is called at most once, and
// not after the connection has been closed, or, of an HTTP request that has not
// been hijacked, after the connection has become idle.
//
// In an HTTP request it also says that the answer has no end of its own: the
// connection is listed as a stream then.
//
// stop takes it back, and tells whether f will not have been called.
func (c *Conn) OnDrain(f func()) (stop func() bool) {
	w := &farewell{f: f}
	open := false
	c.withExtra(func(x *extra) { x.farewell, open = append(x.farewell, w), true })
	if !open {
		return func() bool { return true }
	}
	c.entry.Update(func(s track.State) (track.State, bool) {
		return s.With(track.Stream), s.Phase() == track.Active && s&multiplexed == 0
	})
	c.listener().goodbyes.schedule(w)
	return func() bool {
		c.withExtra(func(x *extra) {
			x.farewell = slices.DeleteFunc(x.farewell, func(other *farewell) bool { return other == w })
		})
		return w.cancel()
	}
}

// forgetFarewells drops what a request that has ended has left.
func (c *Conn) forgetFarewells() {
	var old []*farewell
	c.withExtra(func(x *extra) { old, x.farewell = x.farewell, nil })
	for _, f := range old {
		f.cancel()
	}
	c.trimExtra()
}
