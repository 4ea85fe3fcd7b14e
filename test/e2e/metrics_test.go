package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/faulty/fault"
	"github.com/hdctl/handoff/upgrade/control"
)

// TestMetrics upgrades to good and to bad versions, and looks at the counters right
// after each: they go on, whichever generation has counted before.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := newLateTrials(t)
	seen := s.metrics()
	assert.Equal(t, 1.0, seen[`handoff_up{service="demo"}`])
	assert.Equal(t, 1.0, seen[`handoff_generation{service="demo"}`])
	began := seen[`handoff_start_time_seconds{service="demo"}`]
	assert.Positive(t, began)

	want := make(map[string]float64) // by outcome
	fallBacks := 0.0
	look := func() map[string]float64 {
		t.Helper()
		now := s.metrics()
		for name, value := range seen {
			if family, _, _ := strings.Cut(name, "{"); isCounter(family) {
				assert.GreaterOrEqual(t, now[name], value, name)
			}
		}
		got := make(map[string]float64)
		for name, value := range now {
			if _, labels, ok := strings.Cut(name, `handoff_upgrades_total{outcome="`); ok && value != 0 {
				outcome, _, _ := strings.Cut(labels, `"`)
				got[outcome] = value
			}
		}
		assert.Equal(t, want, got, "upgrades by outcome")
		for _, until := range []string{"serving", "confirmed"} {
			count := now[fmt.Sprintf(`handoff_upgrade_duration_seconds_count{service="demo",until=%q}`, until)]
			assert.Equal(t, want[control.OutcomeConfirmed], count, until)
		}
		assert.Equal(t, fallBacks, now[`handoff_fall_backs_total{service="demo"}`], "fall backs")
		assert.Equal(t, began, now[`handoff_start_time_seconds{service="demo"}`], "no restart")
		seen = now
		return now
	}
	try := func(p fault.Plan, outcome string) {
		t.Helper()
		version := s.install(p)
		r := upgradeResult(t, s.hdctl("upgrade", "-o", "json", "demo"))
		require.Equal(t, outcome, r.Outcome)
		want[outcome]++
		now := look()
		assert.Equal(t, map[bool]float64{true: 1, false: 0}[outcome == control.OutcomeConfirmed], now[`handoff_last_upgrade_success{service="demo"}`])
		if outcome == control.OutcomeConfirmed && p.Fault == "" {
			s.number, s.version = r.To, version
		}
	}
	good := fault.Plan{}
	look()
	try(good, control.OutcomeConfirmed)
	try(fault.Plan{Fault: fault.Exit3, At: fault.Init}, control.OutcomeFailed)
	assert.Equal(t, 1.0, seen[`handoff_disk_failed{service="demo"}`])
	assert.Equal(t, 1.0, seen[`handoff_disk_differs{service="demo"}`])
	try(good, control.OutcomeConfirmed)
	assert.Equal(t, 0.0, seen[`handoff_disk_failed{service="demo"}`])
	try(fault.Plan{Fault: fault.Kill, At: fault.Serving}, control.OutcomeFellBack)

	// One that dies when it is confirmed already, while the one before still drains.
	kept := s.hold(aRequest)
	main := s.number
	try(fault.Plan{Fault: fault.Kill, At: fault.Drain}, control.OutcomeConfirmed)
	want[control.OutcomeFellBack]++
	fallBacks++
	s.WaitFor(t, "the fall back", func() bool {
		return s.counted(`handoff_fall_backs_total{service="demo"}`) == fallBacks
	})
	look()
	assert.Equal(t, float64(main), seen[`handoff_generation{service="demo"}`])
	kept.leave()
	try(good, control.OutcomeConfirmed)

	s.waitOnly(s.number)
	s.WaitFor(t, "the drains to be counted", func() bool {
		return s.counted(`handoff_drain_duration_seconds_count{service="demo"}`) == 3 // of four confirmed upgrades, one of which was taken back
	})
	look()

	// The same in a file, for node_exporter.
	s.MustRun(t, "hdctl", "metrics", "--textfile", "/run", "demo")
	text, err := s.ReadFile("/run/handoff-demo.prom")
	require.NoError(t, err)
	filed := parseMetrics(t, string(text))
	for name, value := range seen {
		if family, _, _ := strings.Cut(name, "{"); isCounter(family) {
			assert.Equal(t, value, filed[name], name)
		}
	}
}

// isCounter tells whether values of these names never fall.
func isCounter(name string) bool {
	for _, suffix := range []string{"_total", "_count", "_sum", "_bucket"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// metrics asks for those of the service, by hdctl.
func (s *site) metrics() map[string]float64 {
	s.t.Helper()
	return parseMetrics(s.t, s.mustHdctl("metrics", "demo"))
}

// counted returns one of the metrics, -1 if nobody answers.
func (s *site) counted(name string) float64 {
	s.t.Helper()
	r := s.hdctl("metrics", "-q", "demo")
	if r.ExitCode != 0 {
		return -1
	}
	return parseMetrics(s.t, r.Stdout)[name]
}

// parseMetrics reads the text format of Prometheus: names with their labels, and values.
func parseMetrics(t testing.TB, text string) map[string]float64 {
	t.Helper()
	values := make(map[string]float64)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		require.Positive(t, i, line)
		v, err := strconv.ParseFloat(line[i+1:], 64)
		require.NoError(t, err, line)
		values[line[:i]] = v
	}
	return values
}
