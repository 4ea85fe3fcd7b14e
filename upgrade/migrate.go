package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/track"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

// How a draining generation hands its connections to the serving one.
//
// A connection moves by its own goroutine: the server's Read of an idle HTTP/1.1
// connection, or the handler that calls Handoff. In there nothing else touches the
// connection, the descriptor is passed, and the answer is awaited; a client that
// sends something meanwhile finds it read by whoever has the connection then, since
// the kernel's buffers travel with it. Connections that wait for their clients are
// interrupted to do so, a few at a time, so that no request has to wait long for
// its connection to arrive.

// transitPlaces is how many connections are on their way at the same time. Each
// takes some 100 µs on a small machine; all at once, the last of 10,000 would be
// unreachable for half a second.
const transitPlaces = 32

// stallTimeout is how long a receiver may take for one connection. What it has not
// answered by then stays here, and so do all others.
const stallTimeout = 5 * time.Second

// retryDelay is how long a connection waits that the receiver had no room for, at
// first; the longer it has none, the longer they wait, up to maxRetryDelay.
const (
	retryDelay    = 100 * time.Millisecond
	maxRetryDelay = 5 * time.Second
)

func newPlaces() transfer.Places { return transfer.NewPlaces(transitPlaces) }

// mover hands connections to one receiver, the generation number to. Its methods
// may be called concurrently.
type mover struct {
	to        int
	order     int // among those of the generation
	sender    *transfer.Sender
	listeners map[string]link.Adoptable // what the receiver takes, by name
	buffer    int                       // see movable; 0: HTTP connections stay
	places    transfer.Places
	log       *slog.Logger

	lost  func()        // called when the receiver has closed its end, before the mover ends
	again chan struct{} // has room for one: look for connections to interrupt
	over  chan struct{} // closed by end
	ended sync.Once

	mu    sync.Mutex
	stay  map[*Conn]time.Time // refused, until then; the zero time: for good
	delay time.Duration       // of those that there was no room for
	since time.Time           // of that delay
}

// run interrupts connections that wait, until the mover ends.
func (m *mover) run(listeners []*Listener) {
	stalled := time.NewTicker(stallTimeout / 5)
	defer stalled.Stop()
	for {
		for _, l := range listeners {
			for _, c := range l.conns.All() {
				if !m.wants(c) {
					continue
				}
				select {
				case m.places <- struct{}{}:
				case <-stalled.C:
					if m.stalled() {
						return
					}
					m.wake() // c is looked at again
					continue
				case <-m.sender.Done():
					m.tellLost()
					m.end(link.ErrPeerClosed)
					return
				case <-m.over:
					return
				}
				if !c.poke() {
					m.places.Release()
				}
			}
		}
		select {
		case <-m.again:
		case <-stalled.C:
			if m.stalled() {
				return
			}
		case <-m.sender.Done(): // the receiver has closed its end
			m.tellLost()
			m.end(link.ErrPeerClosed)
			return
		case <-m.over:
			return
		}
	}
}

func (m *mover) tellLost() {
	if m.lost != nil {
		m.lost()
	}
}

// stalled gives the receiver up if it does not answer.
func (m *mover) stalled() bool {
	oldest := m.sender.Oldest()
	if oldest.IsZero() || time.Since(oldest) < stallTimeout {
		return false
	}
	m.log.LogAttrs(context.Background(), slog.LevelWarn, "the successor does not take connections; they stay here", slog.Int("generation", m.to))
	m.end(errors.New("the successor does not answer"))
	return true
}

// end stops the mover: what the receiver has not taken by now stays.
func (m *mover) end(cause error) {
	m.ended.Do(func() {
		m.sender.Withdraw(cause)
		close(m.over)
		_ = m.sender.Close()
	})
}

// isOver tells whether the mover has ended.
func (m *mover) isOver() bool { return isClosed(m.over) }

// wake has run look again.
func (m *mover) wake() {
	select {
	case m.again <- struct{}{}:
	default:
	}
}

// takesHTTP tells whether idle HTTP connections of the listener move.
func (m *mover) takesHTTP(l *Listener) bool { return m.buffer > 0 && m.listeners[l.name].HTTP }

// wants tells whether c is worth an interruption.
func (m *mover) wants(c *Conn) bool {
	l := c.listener()
	s := c.entry.State()
	switch {
	case s&(poked|closed) != 0:
		return false
	case s&awaiting != 0:
		if !m.listeners[l.name].Sessions {
			return false
		}
	case !quiet(s) || !m.takesHTTP(l):
		return false
	}
	return !m.stays(c)
}

// quiet tells whether s is a plaintext HTTP connection without a request, as far
// as one can see from outside of its Read.
func quiet(s track.State) bool {
	return s&plain != 0 && s&(pinned|begun|closed) == 0 && (s.Phase() == track.New || s.Phase() == track.Idle)
}

// movable tells whether a Read into n bytes may end because its connection has
// moved. This leans on how net/http reads; verifyReads makes sure that it does.
//
// (A) No byte was ever read from the connection here. (B) It is idle, no byte was
// read since, the server has set the one deadline with which it waits for a request
// (resting), and the buffer is all there: bufio slides what is left over of the
// request before, a pipelined one, to its beginning, and a shorter buffer means that
// the server still has some.
//
// The phase alone is not enough, since a request's header is read while the
// connection is still idle, and neither is an empty buffer with it: after a first
// line that has come alone the buffer is empty again. If that line has come together
// with the request before, no Read tells of it, but the second deadline, which the
// server sets when it has the beginning of a request.
func (m *mover) movable(c *Conn, n int) bool {
	s := c.entry.State()
	switch {
	case !quiet(s) || !m.takesHTTP(c.listener()):
		return false
	case s&touched == 0:
		return true
	}
	return s.Phase() == track.Idle && s&resting != 0 && n == m.buffer
}

// beforeRead moves c if it may, and returns [io.EOF] then; it is called by c's
// Read, for n bytes. nil: read on.
func (m *mover) beforeRead(c *Conn, n int) error {
	place := c.takePoke()
	if !m.movable(c, n) || m.isOver() || m.stays(c) {
		if place {
			m.places.Release()
		}
		return nil
	}
	if !place && !m.places.TryAcquire() {
		m.wake() // its turn will come
		return nil
	}
	defer m.places.Release()
	if m.give(c, nil) != nil {
		return nil
	}
	return io.EOF
}

// give passes c to the receiver, for whom the caller has a place. After nil it is
// no longer ours: our copy is closed, and the client has not noticed.
func (m *mover) give(c *Conn, s *Session) error {
	sc, ok := c.conn.(syscall.Conn)
	if !ok {
		return errors.New("not a socket")
	}
	l := c.listener()
	o := link.Offer{Listener: l.name, Label: c.entry.Label(), Accepted: c.entry.Accepted().UnixNano(), Moved: c.entry.Moved().UnixNano()}
	o.In, o.Out = c.entry.Bytes()
	var files []*os.File
	if s != nil {
		session, file, err := s.pack()
		if err != nil {
			m.keep(c, time.Time{})
			return err
		}
		o.Session = session
		if file != nil {
			defer file.Close()
			files = append(files, file)
		}
	}
	err := m.sender.Give(sc, o, files...)
	if refused, ok := errors.AsType[*transfer.Refused](err); ok {
		m.refused(c, refused)
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if errors.Is(err, transfer.ErrWithdrawn) {
		c.entry.SetFlags(doubled)
	}
	if err != nil {
		m.keep(c, time.Now().Add(retryDelay)) // it could not be sent
		return err
	}
	m.mu.Lock()
	m.delay = 0 // there is room
	m.mu.Unlock()
	c.entry.SetFlags(moved)
	l.migrated.Add(1)  // before it is forgotten: the drain may end with it
	_ = c.conn.Close() // close(2), not shutdown(2): the receiver has the socket
	c.forget()
	return nil
}

// refused remembers a no.
func (m *mover) refused(c *Conn, r *transfer.Refused) {
	until := time.Time{}
	switch r.Code {
	case transfer.CodeBusy, transfer.CodeFiles: // it may have room later
		until = time.Now().Add(m.backOff())
	case transfer.CodeDraining: // its own successor is about to open a way
		until = time.Now().Add(expectTimeout)
	}
	m.keep(c, until)
	m.log.LogAttrs(context.Background(), slog.LevelDebug, "connection refused by the successor", slog.String("listener", c.listener().name), slog.Any("err", r))
}

// backOff returns how long to wait for room.
func (m *mover) backOff() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	switch {
	case m.delay == 0:
		m.delay, m.since = retryDelay, now
	case now.Sub(m.since) > m.delay: // a whole round was in vain
		m.delay, m.since = min(2*m.delay, maxRetryDelay), now
	}
	return m.delay
}

// keep has c not offered until then; never, if that is the zero time.
func (m *mover) keep(c *Conn, until time.Time) {
	if !until.IsZero() {
		time.AfterFunc(time.Until(until), m.wake)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stay == nil {
		m.stay = make(map[*Conn]time.Time)
	}
	m.stay[c] = until
}

// stays tells whether c was refused, and is not to be offered now.
func (m *mover) stays(c *Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	until, refused := m.stay[c]
	return refused && (until.IsZero() || time.Now().Before(until))
}

// staysForGood tells whether c was refused, and is not offered again.
func (m *mover) staysForGood(c *Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	until, refused := m.stay[c]
	return refused && until.IsZero()
}

// poke interrupts c, which gets the caller's place in transit. It does nothing if
// c has gone on in the meantime.
func (c *Conn) poke() bool {
	_, ok := c.entry.Update(func(s track.State) (track.State, bool) {
		return s | poked, s&(poked|closed) == 0 && (s&awaiting != 0 || quiet(s))
	})
	if ok {
		c.interrupt()
	}
	return ok
}

// takePoke returns whether c has a place in transit, which is the caller's then.
func (c *Conn) takePoke() bool {
	return c.entry.State()&poked != 0 && c.entry.ClearFlags(poked)&poked != 0
}

// givePlaceBack is for who finds that a connection with a place does not move.
func (c *Conn) givePlaceBack() {
	if c.takePoke() {
		c.listener().places.Release()
	}
}

// Totals of a listener.
type totals struct {
	migrated atomic.Int64 // handed to later generations
	adopted  atomic.Int64 // got from earlier ones
	evicted  atomic.Int64 // idle, ended by a stop
}
