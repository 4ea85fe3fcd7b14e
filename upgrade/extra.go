package upgrade

import (
	"time"

	"github.com/hdctl/handoff/upgrade/internal/track"
)

// extra is what only few connections have. It is kept by the listener, so that the
// others need no room for it.
type extra struct {
	session  any // made by the decoder of Listener.Adopt
	farewell []*farewell

	// Of an inherited connection, until its first request:
	since  time.Time     // when it came here
	idle   time.Duration // how long it may stay idle; 0: for ever
	header time.Time     // the deadline that the server has set for the first request
	shift  time.Duration // how much later than its arrival here that request began
}

// withExtra calls f with the connection's extra, which it makes if there is none.
// It does nothing for a connection that is closed. f must not block.
func (c *Conn) withExtra(f func(*extra)) {
	l := c.listener()
	l.extrasMu.Lock()
	defer l.extrasMu.Unlock()
	if c.entry.SetFlags(extended)&closed != 0 {
		return
	}
	x := l.extras[c]
	if x == nil {
		if l.extras == nil {
			l.extras = make(map[*Conn]*extra)
		}
		x = new(extra)
		l.extras[c] = x
	}
	f(x)
}

// trimExtra lets go of the extra of a connection that does not need one any more, so
// that its further requests do not look for it.
func (c *Conn) trimExtra() {
	l := c.listener()
	l.extrasMu.Lock()
	defer l.extrasMu.Unlock()
	if x := l.extras[c]; x != nil && x.session == nil && len(x.farewell) == 0 {
		delete(l.extras, c)
		c.entry.ClearFlags(extended)
	}
}

// dropExtra forgets what a closed connection had.
func (l *Listener) dropExtra(c *Conn) {
	l.extrasMu.Lock()
	x := l.extras[c]
	delete(l.extras, c)
	l.extrasMu.Unlock()
	if x != nil {
		for _, f := range x.farewell {
			f.cancel()
		}
	}
}

// net/http times the first request of a connection from its start, since a client
// that connects has something to say. A connection that was handed over is an idle
// one, though: it may stay so for the IdleTimeout, and only what it says then is
// to come within the ReadHeaderTimeout and ReadTimeout.

// inherit makes the connection one that was idle when it came here.
func (c *Conn) inherit() {
	c.entry.SetFlags(inherited)
	c.withExtra(func(x *extra) { x.since = time.Now() })
}

// firstRequestDeadline returns the deadline to set instead of t, which the server
// has computed for the first request.
func (c *Conn) firstRequestDeadline(t time.Time) (actual time.Time) {
	c.withExtra(func(x *extra) {
		if c.entry.State()&touched != 0 {
			actual = shifted(t, x.shift)
			return
		}
		x.header = t
		if x.idle > 0 {
			actual = x.since.Add(x.idle)
		}
	})
	return actual
}

// beginFirstRequest is called when the first bytes have arrived.
func (c *Conn) beginFirstRequest() {
	var t time.Time
	c.withExtra(func(x *extra) {
		x.shift = time.Since(x.since)
		t = shifted(x.header, x.shift)
	})
	_ = c.setReadDeadline(t)
}

func shifted(t time.Time, by time.Duration) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(by)
}

// limitIdle says how long an inherited connection may stay idle.
func (c *Conn) limitIdle(d time.Duration) {
	if d <= 0 {
		return
	}
	var until time.Time
	c.withExtra(func(x *extra) { x.idle, until = d, x.since.Add(d) })
	_ = c.setReadDeadline(until) // a server without a ReadHeaderTimeout sets none
}

// phaseFlags is what is left of a connection's flags when its phase changes.
func phaseFlags(s track.State, p track.Phase) track.State {
	if p == track.New && s&inherited != 0 {
		p = track.Idle // that is what it was, and is
	}
	switch p {
	case track.New, track.Idle:
		s &^= begun | resting | evicted
	case track.Active, track.Hijacked:
		s &^= inherited
	}
	return s.With(p)
}
