package verdict

import (
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
)

// Health returns the figures of s, which was counted in period, as status shows
// them. The median and what follows it are 0 where nothing is known of latencies.
func Health(s pulse.Sample, period time.Duration) control.Health {
	h := control.Health{
		Period:   max(period, 0).Seconds(),
		Requests: s.Requests,
		Errors:   s.Errors,
		Median:   s.Quantile(0.5).Seconds(),
		P95:      s.Quantile(0.95).Seconds(),
		Mean:     s.Mean().Seconds(),
	}
	if h.Period > 0 {
		h.PerSecond = float64(s.Requests) / h.Period
	}
	return h
}

// group is one generation in a comparison.
type group struct {
	pulse.Sample
	timed uint64 // requests whose latency is in a bucket
}

func groupOf(s pulse.Sample) group {
	g := group{Sample: s}
	for _, n := range s.Buckets {
		g.timed += n
	}
	return g
}

// failed is the fraction of requests that failed.
func (g group) failed() float64 {
	if g.Requests == 0 {
		return 0
	}
	return float64(g.Errors) / float64(g.Requests)
}

// slowerThan returns how many requests took longer than d.
func (g group) slowerThan(d time.Duration) uint64 {
	// Quantile grows with its argument: look for the first request, in the order of
	// their latencies, that took longer.
	low, high := uint64(1), g.timed+1
	for low < high {
		mid := low + (high-low)/2
		if g.Quantile(float64(mid)/float64(g.timed)) > d {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return g.timed + 1 - low
}
