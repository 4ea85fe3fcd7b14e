package load

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// recorder collects what the workers see.
type recorder struct {
	start time.Time
	max   int // requests

	mu       sync.Mutex
	end      time.Time // zero while it runs
	requests int
	kinds    map[Kind]*Counters
	served   []Served
	latest   int // generation
	failures []Failure
	arrivals Timeline
	changed  chan struct{} // closed at the next change, nil: nobody waits
}

func newRecorder(maxRequests int, kinds []Kind) *recorder {
	r := &recorder{start: time.Now(), max: maxRequests, kinds: map[Kind]*Counters{}}
	for _, k := range kinds {
		r.kinds[k] = &Counters{}
	}
	return r
}

// change runs f on the counters of kind.
func (r *recorder) change(kind Kind, f func(c *Counters)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.kinds[kind])
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// begin counts n requests. It is false if there may not be as many.
func (r *recorder) begin(kind Kind, n int) bool {
	ok := false
	r.change(kind, func(c *Counters) {
		if ok = r.requests+n <= r.max; ok {
			r.requests += n
			c.Requests += n
		}
	})
	return ok
}

// dialed counts a connection, and the time that it took.
func (r *recorder) dialed(kind Kind, wait time.Duration) {
	r.change(kind, func(c *Counters) {
		c.Dials++
		c.LongestWait = max(c.LongestWait, wait)
	})
}

// waited notes how long a request waited for the header of its answer.
func (r *recorder) waited(kind Kind, wait time.Duration) {
	r.change(kind, func(c *Counters) { c.LongestWait = max(c.LongestWait, wait) })
}

// answered counts a good answer.
func (r *recorder) answered(kind Kind, from origin, announced bool) {
	now := time.Now()
	r.change(kind, func(c *Counters) {
		c.Responses++
		if announced {
			c.Announced++
		}
		r.latest = from.generation
		for i := range r.served {
			s := &r.served[i]
			if s.Generation == from.generation && s.PID == from.pid && s.Version == from.version {
				s.Responses++
				s.Last = now
				return
			}
		}
		r.served = append(r.served, Served{
			Generation: from.generation, PID: from.pid, Version: from.version,
			Responses: 1, First: now, Last: now,
		})
	})
}

// arrived keeps an arrival, which has ended.
func (r *recorder) arrived(a Arrival) {
	r.change(Arrivals, func(*Counters) { r.arrivals = append(r.arrivals, a) })
}

func (r *recorder) message(kind Kind) { r.change(kind, func(c *Counters) { c.Messages++ }) }
func (r *recorder) closed(kind Kind)  { r.change(kind, func(c *Counters) { c.Closed++ }) }
func (r *recorder) aborted(kind Kind) { r.change(kind, func(c *Counters) { c.Aborted++ }) }

// failed counts a failure and, if it is one of the first of its kind, keeps it.
func (r *recorder) failed(f Failure) {
	f.Time = time.Now()
	r.change(f.Kind, func(c *Counters) {
		c.Failed++
		f.Latest = r.latest
		if c.Failed <= maxSamples {
			r.failures = append(r.failures, f)
		}
	})
}

// finish stops the clock.
func (r *recorder) finish() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end = time.Now()
}

// report returns a copy of what is known.
func (r *recorder) report() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reportLocked()
}

func (r *recorder) reportLocked() Report {
	end := r.end
	if end.IsZero() {
		end = time.Now()
	}
	rep := Report{
		Elapsed:  end.Sub(r.start),
		ByKind:   make(map[Kind]Counters, len(r.kinds)),
		Served:   slices.Clone(r.served),
		Failures: slices.Clone(r.failures),
		Arrivals: r.arrivals[:len(r.arrivals):len(r.arrivals)], // they are not changed, and there are many
	}
	for k, c := range maps.All(r.kinds) {
		rep.ByKind[k] = *c
	}
	return rep
}

// watch returns a report, and a channel that is closed when it is out of date.
func (r *recorder) watch() (Report, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.reportLocked(), r.changed
}
