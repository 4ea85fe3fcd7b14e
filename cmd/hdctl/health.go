package main

import (
	"fmt"
	"strconv"

	"github.com/hdctl/handoff/upgrade/control"
)

// healthColumns are the columns for how a generation answers.
func healthColumns() []column {
	return []column{right("REQUESTS"), right("RATE"), right("ERRORS"), right("MEDIAN"), right("P95")}
}

func healthRow(h control.Health) []cell {
	failed := "-"
	if h.Requests > 0 {
		failed = fmt.Sprintf("%.2f%%", 100*float64(h.Errors)/float64(h.Requests))
	}
	return []cell{
		{text: strconv.FormatUint(h.Requests, 10)},
		{text: rate(h.PerSecond)},
		{text: failed},
		{text: latency(h.Median)},
		{text: latency(h.P95)},
	}
}

// rate is "9.8/s", "1203/s".
func rate(perSecond float64) string {
	if perSecond >= 99.95 {
		return fmt.Sprintf("%.0f/s", perSecond)
	}
	return fmt.Sprintf("%.1f/s", perSecond)
}

// latency prints how long an answer takes, in seconds, with two digits or more:
// 410µs, 1.9ms, 41ms, 2.04s; "-" for not known.
func latency(seconds float64) string {
	switch {
	case !(seconds > 0):
		return "-"
	case seconds < 0.0009995:
		return fmt.Sprintf("%.0fµs", seconds*1e6)
	case seconds < 0.00995:
		return fmt.Sprintf("%.1fms", seconds*1e3)
	}
	return lasted(seconds)
}

// verdict is the table of the two generations that a verdict compares.
func verdict(r *control.Result) *table {
	t := &table{columns: append([]column{left(""), right("GEN"), left("VERSION")}, healthColumns()...)}
	for _, g := range []struct {
		name    string
		number  int
		version string
		health  control.Health
	}{
		{"old", r.From, r.FromVersion, r.Verdict.Old},
		{"new", r.To, r.Version, r.Verdict.New},
	} {
		t.add(append([]cell{text(g.name), {text: strconv.Itoa(g.number)}, text(g.version)}, healthRow(g.health)...)...)
	}
	return t
}
