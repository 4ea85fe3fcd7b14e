// Package track keeps the open connections of a generation: which there are, on
// which listener, and in which phase.
//
// A Set is one mutex and one intrusive list, touched when a connection comes
// and when it goes; the phase of a connection is an atomic inside it. A request
// therefore costs the set nothing.
package track

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Phase is what a connection is doing.
type Phase uint32

// The phases of a connection.
const (
	New    Phase = iota // accepted, no request yet
	Active              // in a request
	Idle                // between two requests
	Stream              // hijacked, or a protocol without requests that we could see
	phases
)

var phaseNames = [phases]string{"new", "active", "idle", "stream"}

func (p Phase) String() string { return phaseNames[p] }

// Entry is a connection in a set: embed it in the connection's type. Its zero
// value is in no set.
type Entry struct {
	set        *Set
	prev, next *Entry
	accepted   time.Time
	phase      atomic.Uint32
	owner      Owner
}

// Owner is a tracked connection.
type Owner interface{ Close() error }

// Phase returns the phase of the connection.
func (e *Entry) Phase() Phase { return Phase(e.phase.Load()) }

// SetPhase sets the phase of the connection.
func (e *Entry) SetPhase(p Phase) { e.phase.Store(uint32(p)) }

// Owner returns what was given to Add.
func (e *Entry) Owner() Owner { return e.owner }

// Accepted returns when the connection was added.
func (e *Entry) Accepted() time.Time { return e.accepted }

// Set is a set of open connections. Its zero value is empty and ready for use.
// It is safe for concurrent use.
type Set struct {
	mu    sync.Mutex
	root  Entry // of the circular list, oldest first
	n     int
	empty chan struct{} // closed when n falls to 0; nil while nobody waits
}

// Add adds e, which must be in no set, as a new connection.
func (s *Set) Add(e *Entry, owner Owner) {
	e.accepted = time.Now()
	e.owner = owner
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root.next == nil {
		s.root.next, s.root.prev = &s.root, &s.root
	}
	e.set = s
	e.prev, e.next = s.root.prev, &s.root
	e.prev.next, e.next.prev = e, e
	s.n++
}

// Remove takes e out of its set. It does nothing if e is in none.
func (e *Entry) Remove() {
	s := e.set
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.next == nil {
		return
	}
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
	s.n--
	if s.n == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// Len returns the number of connections.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// Counts are numbers of connections by phase.
type Counts [phases]int

// Total is the sum over all phases.
func (c Counts) Total() int {
	n := 0
	for _, v := range c {
		n += v
	}
	return n
}

// Plus adds d.
func (c Counts) Plus(d Counts) Counts {
	for i := range c {
		c[i] += d[i]
	}
	return c
}

// Counts counts the connections by phase, and tells when the oldest one came;
// the zero time if there is none.
func (s *Set) Counts() (c Counts, oldest time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == 0 {
		return c, oldest
	}
	for e := s.root.next; e != &s.root; e = e.next {
		c[e.Phase()]++
	}
	return c, s.root.next.accepted
}

// Entries returns the connections, oldest first.
func (s *Set) Entries() []*Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*Entry, 0, s.n)
	if s.n == 0 {
		return list
	}
	for e := s.root.next; e != &s.root; e = e.next {
		list = append(list, e)
	}
	return list
}

// WaitEmpty returns nil when the set is empty, or the cause of ctx.
func (s *Set) WaitEmpty(ctx context.Context) error {
	s.mu.Lock()
	if s.n == 0 {
		s.mu.Unlock()
		return nil
	}
	if s.empty == nil {
		s.empty = make(chan struct{})
	}
	empty := s.empty
	s.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Cut closes every connection and returns how many there were, by phase.
func (s *Set) Cut() Counts {
	var cut Counts
	for _, e := range s.Entries() {
		cut[e.Phase()]++
		_ = e.owner.Close()
	}
	return cut
}
