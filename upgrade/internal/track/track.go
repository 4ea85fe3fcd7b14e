// Package track keeps the open connections of a generation: which there are, on
// which listener, and what each is doing.
//
// A [Set] is one mutex and one intrusive list, touched when a connection comes
// and when it goes; everything else about a connection is in its [Entry], in
// atomics. A request therefore costs the set nothing, and no allocation: 80 bytes
// of entry are all that a connection costs.
package track

import (
	"context"
	"sync"
	"time"
)

// Set is a set of open connections, oldest first. It is safe for concurrent use.
// C is a pointer to the type that embeds the Entry.
type Set[C comparable] struct {
	entry func(C) *Entry[C]
	owner any

	mu         sync.Mutex
	head, tail C
	n          int
	empty      chan struct{} // closed when n falls to 0; nil while nobody waits
}

// NewSet makes an empty set. entry finds the Entry in a connection; owner is what
// [Set.Owner] returns.
func NewSet[C comparable](owner any, entry func(C) *Entry[C]) *Set[C] {
	return &Set[C]{entry: entry, owner: owner}
}

// Owner returns what was given to NewSet.
func (s *Set[C]) Owner() any { return s.owner }

// Init makes the entry of c, which is in no set yet, one of s. It may be used then,
// but is not listed before Add.
func (s *Set[C]) Init(c C, accepted time.Time) {
	e := s.entry(c)
	e.set, e.accepted = s, accepted.UnixNano()
}

// Add lists c, which Init was called for.
func (s *Set[C]) Add(c C) {
	var none C
	e := s.entry(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	e.prev, e.next, e.listed = s.tail, none, true
	if s.tail == none {
		s.head = c
	} else {
		s.entry(s.tail).next = c
	}
	s.tail = c
	s.n++
}

// Remove takes c out of the set. It does nothing if c is not listed.
func (s *Set[C]) Remove(c C) {
	var none C
	e := s.entry(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !e.listed {
		return
	}
	if e.prev == none {
		s.head = e.next
	} else {
		s.entry(e.prev).next = e.next
	}
	if e.next == none {
		s.tail = e.prev
	} else {
		s.entry(e.next).prev = e.prev
	}
	e.prev, e.next, e.listed = none, none, false
	s.n--
	if s.n == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// Len returns the number of connections.
func (s *Set[C]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

// All returns the connections in the order of their coming.
func (s *Set[C]) All() []C {
	var none C
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]C, 0, s.n)
	for c := s.head; c != none; c = s.entry(c).next {
		list = append(list, c)
	}
	return list
}

// Each yields the connections in the order of their coming, with the set locked:
// for a short look, which must not touch the set. It is an [iter.Seq].
func (s *Set[C]) Each(yield func(C) bool) {
	var none C
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := s.head; c != none && yield(c); c = s.entry(c).next {
	}
}

// Counts counts the connections by phase, and tells when the oldest one was
// accepted; the zero time if there is none.
func (s *Set[C]) Counts() (counts Counts, oldest time.Time) {
	var none C
	s.mu.Lock()
	defer s.mu.Unlock()
	first := int64(0)
	for c := s.head; c != none; {
		e := s.entry(c)
		counts[e.Phase()]++
		if first == 0 || e.accepted < first { // adopted ones are older than they came
			first = e.accepted
		}
		c = e.next
	}
	if first != 0 {
		oldest = time.Unix(0, first)
	}
	return counts, oldest
}

// WaitEmpty returns nil when the set is empty, or the cause of ctx.
func (s *Set[C]) WaitEmpty(ctx context.Context) error {
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
