package load

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Timeline is all arrivals of a load, in the order in which they ended.
type Timeline []Arrival

// Failed counts those that failed, by cause.
func (t Timeline) Failed() map[Cause]int {
	failed := make(map[Cause]int)
	for _, a := range t {
		if a.Cause != "" {
			failed[a.Cause]++
		}
	}
	return failed
}

// Late is how late the client was at most to begin one. What is of that order in
// the other figures is the client's doing.
func (t Timeline) Late() time.Duration {
	var late time.Duration
	for _, a := range t {
		late = max(late, a.Begun)
	}
	return late
}

// Gap is a time in which no answer came.
type Gap struct {
	From, To      time.Time // the good answers before it and after it
	Before, After int       // the generations that gave them
	PID           int       // of who gave the one after it
}

// Length is its length.
func (g Gap) Length() time.Duration { return g.To.Sub(g.From) }

// String describes it in a line.
func (g Gap) String() string {
	const clock = "15:04:05.000"
	return fmt.Sprintf("%s, from %s (generation %d) to %s (generation %d)",
		g.Length().Round(10*time.Microsecond), g.From.Format(clock), g.Before, g.To.Format(clock), g.After)
}

// Longest is the longest time between two good answers, one after the other. It is
// the zero Gap if there were fewer than two.
func (t Timeline) Longest() Gap { return t.longest(func(Gap) bool { return true }) }

// Around is the same, but of those times alone that have a part within so much of
// an instant. An answer that had been given at the instant comes in a moment later,
// so that the gap that the instant is the reason of does not always contain it.
func (t Timeline) Around(at time.Time, within time.Duration) Gap {
	return t.longest(func(g Gap) bool { return !g.To.Before(at.Add(-within)) && !g.From.After(at.Add(within)) })
}

// Next is the good answer of a generation that came first after an instant; false if
// there was none. Where another generation has served in between, it is how the
// given one is back.
func (t Timeline) Next(at time.Time, generation int) (next Arrival, ok bool) {
	for _, a := range t {
		if a.Answered > 0 && a.Generation == generation && a.End().After(at) && (!ok || a.End().Before(next.End())) {
			next, ok = a, true
		}
	}
	return next, ok
}

func (t Timeline) longest(in func(Gap) bool) Gap {
	good := slices.DeleteFunc(slices.Clone(t), func(a Arrival) bool { return a.Answered == 0 })
	slices.SortFunc(good, func(a, b Arrival) int { return cmp.Compare(a.End().UnixNano(), b.End().UnixNano()) })
	var longest Gap
	for i := 1; i < len(good); i++ {
		a, b := good[i-1], good[i]
		g := Gap{From: a.End(), To: b.End(), Before: a.Generation, After: b.Generation, PID: b.PID}
		if in(g) && g.Length() > longest.Length() {
			longest = g
		}
	}
	return longest
}

// String is a line of figures.
func (t Timeline) String() string {
	if len(t) == 0 {
		return "no arrivals"
	}
	var b strings.Builder
	failed := t.Failed()
	n := 0
	for _, c := range failed {
		n += c
	}
	fmt.Fprintf(&b, "%d arrivals, %d failed", len(t), n)
	for _, cause := range slices.Sorted(maps.Keys(failed)) {
		fmt.Fprintf(&b, ", %d %s", failed[cause], cause)
	}
	fmt.Fprintf(&b, "; longest gap %v; begun at most %v late", t.Longest(), t.Late().Round(10*time.Microsecond))
	return b.String()
}
