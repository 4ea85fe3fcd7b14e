package upgrade

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/internal/track"
)

// A Read that waits for the client is interrupted by a read deadline in the past.
// The deadline that the service has set is remembered, in milliseconds, so
// that the two can be told apart, and put back. Others may set theirs at the same
// time (net/http aborts its background read in this way): it is always noted
// first, and set then, and who puts it back looks once more.

var past = time.Unix(1, 0)

// Values of the remembered deadline, besides milliseconds.
const (
	noDeadline = iota
	deadlinePassed
	firstMillisecond
)

// setReadDeadline is what all deadlines for reading but ours go through.
func (c *Conn) setReadDeadline(t time.Time) error {
	note := uint32(noDeadline)
	if !t.IsZero() {
		note = deadlinePassed
		switch left := time.Until(t); {
		case left > horizon:
			note = noDeadline
		case left > 0:
			note = max(firstMillisecond, milliseconds(t))
		}
	}
	c.entry.Spare.Store(note)
	return c.conn.SetReadDeadline(t)
}

// horizon is how far away a deadline can be remembered; one that is further away
// is as good as none.
const horizon = 20 * 24 * time.Hour

// clock is what deadlines are remembered by: the time that passes, whatever is done
// to the clock on the wall.
var clock = time.Now()

// milliseconds is t by the clock, rounded up, modulo 2^32.
func milliseconds(t time.Time) uint32 {
	return uint32((t.Sub(clock) + time.Millisecond - 1) / time.Millisecond)
}

// left is how long it is until note.
func left(note uint32) time.Duration {
	now := uint32(time.Since(clock) / time.Millisecond)
	return time.Duration(int32(note-now)) * time.Millisecond
}

// expired tells whether a Read that ran into a deadline has run into one of the
// service's, or shall end because the service stops.
func (c *Conn) expired() bool {
	if s := c.entry.State(); s&evicted != 0 && evictable(s) {
		return true
	}
	switch note := c.entry.Spare.Load(); note {
	case noDeadline:
		return false
	case deadlinePassed:
		return true
	default:
		return left(note) <= 0
	}
}

// restoreReadDeadline puts the service's deadline back, at most a millisecond late.
func (c *Conn) restoreReadDeadline() {
	for {
		note := c.entry.Spare.Load()
		t := past
		switch {
		case note == noDeadline:
			t = time.Time{}
		case note >= firstMillisecond:
			t = time.Now().Add(left(note))
		}
		_ = c.conn.SetReadDeadline(t) // of a closed connection: the next Read says so
		if c.entry.Spare.Load() == note {
			return
		}
	}
}

// interrupt makes a Read that waits look around.
func (c *Conn) interrupt() { _ = c.conn.SetReadDeadline(past) }

// evictable tells whether s is without a request. What has been read since is the
// beginning of one only where what is read is HTTP/1: TLS shakes hands, and HTTP/2
// has frames of other kinds.
func evictable(s track.State) bool {
	return (s.Phase() == track.New || s.Phase() == track.Idle) && (s&begun == 0 || s&(plain|multiplexed) != plain)
}

// evict ends the connection if it is idle: its Read fails, upon which net/http
// closes it. It does nothing if a request has arrived or this was done before.
func (c *Conn) evict() bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	pending := false
	var b [1]byte
	if err := raw.Control(func(fd uintptr) {
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		pending = n > 0 || err == nil // a request, or the client has left
	}); err != nil || pending {
		return false
	}
	_, changed := c.entry.Update(func(s track.State) (track.State, bool) {
		return s | evicted, evictable(s) && s&(evicted|closed) == 0
	})
	if changed {
		c.listener().evicted.Add(1) // before it is gone: the drain may end with it
		c.interrupt()
	}
	return changed
}
