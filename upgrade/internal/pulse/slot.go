package pulse

import (
	"math"
	"runtime"
)

// Slot is the part of a page that is about one listening socket.
//
// All methods are safe for concurrent use. A nil *Slot is valid: it counts
// nothing and reads as zero, as does one of a closed page.
type Slot struct {
	page  *Page
	index int
}

// Slot returns slot i of the page, or nil if there is none of this number.
// Which socket has which number is for the two processes to agree on.
func (p *Page) Slot(i int) *Slot {
	if p == nil || i < 0 || i >= Slots {
		return nil
	}
	return &p.slots[i]
}

// load returns the memory of the slot, and what has to be kept alive while that
// is used; nil if there is none.
func (s *Slot) load() (*slotLayout, *mapping) {
	if s == nil {
		return nil, nil
	}
	m := s.page.mapping.Load()
	if m == nil {
		return nil, nil
	}
	return &m.slots[s.index], m
}

// Accepted counts one more connection that the service has got from Accept.
func (s *Slot) Accepted() {
	if l, m := s.load(); l != nil {
		l.accepts.Add(1)
		runtime.KeepAlive(m)
	}
}

// Accepts is how often Accepted was called, by all processes that have counted
// in this page.
func (s *Slot) Accepts() (n uint64) {
	if l, m := s.load(); l != nil {
		n = l.accepts.Load()
		runtime.KeepAlive(m)
	}
	return n
}

// SetWaiting says that n connections have been handed over by the other
// process and not been accepted by the service yet.
func (s *Slot) SetWaiting(n int) {
	if l, m := s.load(); l != nil {
		l.waiting.Store(int64(n))
		runtime.KeepAlive(m)
	}
}

// Waiting is what SetWaiting has said last, and never negative.
func (s *Slot) Waiting() int {
	l, m := s.load()
	if l == nil {
		return 0
	}
	n := l.waiting.Load()
	runtime.KeepAlive(m)
	return int(min(max(n, 0), math.MaxInt32))
}

// SetBusy declares whether the service is not accepting on purpose, such as for
// a limit of connections.
func (s *Slot) SetBusy(busy bool) {
	if l, m := s.load(); l != nil {
		var n uint64
		if busy {
			n = 1
		}
		l.busy.Store(n)
		runtime.KeepAlive(m)
	}
}

// Busy is what SetBusy has said last.
func (s *Slot) Busy() (busy bool) {
	if l, m := s.load(); l != nil {
		busy = l.busy.Load() != 0
		runtime.KeepAlive(m)
	}
	return busy
}
