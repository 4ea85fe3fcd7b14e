package upgrade

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// rememberedEvents is how many events a service remembers.
const rememberedEvents = 200

// eventLog remembers the latest events of the service and wakes those who
// follow them. A slow follower misses the oldest, nobody waits for it.
type eventLog struct {
	mu      sync.Mutex
	events  []control.Event
	seq     uint64
	changed chan struct{} // closed at the next event
}

func newEventLog() *eventLog { return &eventLog{changed: make(chan struct{})} }

func (l *eventLog) add(e control.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	e.Seq, e.Time = l.seq, time.Now()
	l.events = append(l.events, e)
	l.trim()
	close(l.changed)
	l.changed = make(chan struct{})
}

// skip leaves a gap in the numbers that is wider than what another generation may
// have added meanwhile, so that who follows by number misses nothing from now on.
func (l *eventLog) skip() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq += control.FallBackSeqs
}

func (l *eventLog) trim() {
	if extra := len(l.events) - rememberedEvents; extra > 0 {
		l.events = append(l.events[:0:0], l.events[extra:]...)
	}
}

// after returns the remembered events with a number above seq, the number to
// ask with next, and a channel that is closed when there are more.
func (l *eventLog) after(seq uint64) ([]control.Event, uint64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range l.events {
		if e.Seq > seq {
			return append([]control.Event(nil), l.events[i:]...), l.seq, l.changed
		}
	}
	return nil, l.seq, l.changed
}

// last returns the number of the last event.
func (l *eventLog) last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq
}

// export returns the latest events as JSON of at most limit bytes.
func (l *eventLog) export(limit int) json.RawMessage {
	events, _, _ := l.after(0)
	for len(events) > 0 {
		if data, err := json.Marshal(events); err == nil && len(data) <= limit {
			return data
		}
		events = events[(len(events)+1)/2:]
	}
	return nil
}

// adopt puts a predecessor's events before our own. What cannot be decoded is
// left out: a generation does not fail for the sake of old events.
func (l *eventLog) adopt(data json.RawMessage) {
	var old []control.Event
	if json.Unmarshal(data, &old) != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range old {
		l.seq = max(l.seq, e.Seq)
	}
	for _, e := range l.events {
		l.seq++
		e.Seq = l.seq
		old = append(old, e)
	}
	l.events = old
	l.trim()
	close(l.changed)
	l.changed = make(chan struct{})
}
