package control

import "time"

// Totals count what has happened to a service since systemd started it, whichever of
// its generations was main: they go on at an upgrade, and begin again where
// [Status.Invocation] changes. No count is ever lower than one that was seen before,
// but where main died and the generation that took its place had not heard of the
// latest.
type Totals struct {
	// Since is when counting began: the start of the service, or of the first main
	// generation with a library that counts.
	Since time.Time `json:"since"`
	// Upgrades that ended, by outcome. A request that was refused, or changed
	// nothing, is none. One whose new generation was confirmed, and failed after
	// that, is in there as confirmed and as fell-back: both have been true.
	Upgrades map[string]int `json:"upgrades"`
	// FallBacks are those: after the confirm the old generation served again.
	FallBacks int `json:"fall_backs"`

	Serving   Durations `json:"serving"`   // of confirmed upgrades: from the trigger until the new generation served
	Confirmed Durations `json:"confirmed"` // of the same: from the trigger until it was confirmed
	Drained   Durations `json:"drained"`   // of old generations that are gone: from the begin of the drain to the end

	Migrated int    `json:"migrated"` // connections that were handed to a later generation
	Cut      Counts `json:"cut"`      // connections that a deadline has ended, by what they were doing
}

// Durations are a histogram.
type Durations struct {
	Count int     `json:"count"`
	Sum   float64 `json:"sum_s"` // seconds
	// Buckets are in the order of their limits. Those of a service stay what they
	// were when it was started, whatever later versions of the library have.
	Buckets []Bucket `json:"buckets,omitempty"`
}

// Bucket counts the durations up to a limit.
type Bucket struct {
	Limit float64 `json:"le_s"`  // seconds
	Count int     `json:"count"` // those of the buckets before included
}

// NewDurations returns an empty histogram with buckets of these limits, in seconds
// and in rising order.
func NewDurations(limits ...float64) Durations {
	d := Durations{Buckets: make([]Bucket, len(limits))}
	for i, limit := range limits {
		d.Buckets[i].Limit = limit
	}
	return d
}

// Plus returns d with one more duration, in seconds. It leaves d as it is.
func (d Durations) Plus(seconds float64) Durations {
	d.Count++
	d.Sum += seconds
	buckets := make([]Bucket, len(d.Buckets))
	for i, b := range d.Buckets {
		if seconds <= b.Limit {
			b.Count++
		}
		buckets[i] = b
	}
	d.Buckets = buckets
	return d
}
