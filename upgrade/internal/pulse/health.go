package pulse

import (
	"math"
	"math/bits"
	"runtime"
	"time"
)

// Sample is the totals of a page at one moment, or, as the result of Minus, what
// was counted between two moments.
type Sample struct {
	// Requests is how many requests were answered, and Errors how many of them
	// not well. Errors is never more than Requests.
	Requests, Errors uint64

	// Latency is the sum of the times that these requests took, 0 if it is
	// unknown.
	Latency time.Duration

	// Buckets is how many of them took how long, see [Sample.Quantile]. All are 0
	// if the service reports totals of its own. Their sum is less than Requests if
	// there are some whose time says nothing, such as streams.
	Buckets [NBuckets]uint64
}

// Observe counts one request that was answered: took is the time it took, and
// failed whether the answer was an error of the service. If took is negative, it
// counts as a request only, and not among the times.
//
// It takes a few atomic additions, and allocates nothing.
func (p *Page) Observe(took time.Duration, failed bool) {
	if p == nil {
		return
	}
	m := p.mapping.Load()
	if m == nil {
		return
	}
	h := &m.health
	// The request before its error: see Sample.
	if took >= 0 {
		h.buckets[bucket(took)].Add(1)
	} else {
		h.untimed.Add(1)
	}
	if failed {
		h.errors.Add(1)
	}
	if took > 0 {
		h.latency.Add(int64(took))
	}
	runtime.KeepAlive(m)
}

// Report sets totals that the service has counted itself: of all requests, of
// those with errors, and of the times they took, 0 if unknown. From the first
// call on they are what Sample returns, in place of what Observe counts.
//
// Calls replace each other. A sample that is taken during a call may have
// some of its totals from the call before.
func (p *Page) Report(requests, errors uint64, latency time.Duration) {
	if p == nil {
		return
	}
	m := p.mapping.Load()
	if m == nil {
		return
	}
	h := &m.health
	h.reportedRequests.Store(requests)
	h.reportedErrors.Store(errors)
	h.reportedLatency.Store(int64(latency))
	h.reported.Store(1)
	runtime.KeepAlive(m)
}

// Sample reads the totals.
func (p *Page) Sample() Sample {
	var s Sample
	if p == nil {
		return s
	}
	m := p.mapping.Load()
	if m == nil {
		return s
	}
	h := &m.health
	// Errors first: so they are errors of requests that are counted, too.
	if h.reported.Load() != 0 {
		s.Errors = h.reportedErrors.Load()
		s.Latency = time.Duration(h.reportedLatency.Load())
		s.Requests = h.reportedRequests.Load()
	} else {
		s.Errors = h.errors.Load()
		s.Latency = time.Duration(h.latency.Load())
		s.Requests = h.untimed.Load()
		for i := range s.Buckets {
			s.Buckets[i] = h.buckets[i].Load()
			s.Requests = add(s.Requests, s.Buckets[i])
		}
	}
	runtime.KeepAlive(m)
	s.Errors = min(s.Errors, s.Requests)
	s.Latency = max(s.Latency, 0)
	return s
}

// Minus returns what was counted between earlier and s. A total that has gone
// backwards, which only a broken process brings about, counts as 0.
func (s Sample) Minus(earlier Sample) Sample {
	s.Requests = sub(s.Requests, earlier.Requests)
	// A request and its error are two additions, and earlier may lie between.
	s.Errors = min(sub(s.Errors, earlier.Errors), s.Requests)
	s.Latency = time.Duration(sub(uint64(max(s.Latency, 0)), uint64(max(earlier.Latency, 0))))
	for i := range s.Buckets {
		s.Buckets[i] = sub(s.Buckets[i], earlier.Buckets[i])
	}
	return s
}

// Mean is the average time of a request, of those whose time is known; 0 if there
// are none.
func (s Sample) Mean() time.Duration {
	timed := uint64(0)
	for _, n := range s.Buckets {
		timed = add(timed, n)
	}
	if timed == 0 {
		timed = s.Requests // totals
	}
	if timed == 0 || s.Latency <= 0 {
		return 0
	}
	return time.Duration(uint64(s.Latency) / timed)
}

// add is a + b, saturated.
func add(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	if carry != 0 {
		return math.MaxUint64
	}
	return sum
}

// sub is a - b, saturated.
func sub(a, b uint64) uint64 { return a - min(a, b) }
