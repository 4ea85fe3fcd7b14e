package units_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hdctl/handoff/units"
)

// TestDeadlinesAreNested draws deadlines of all sizes: what is rendered has them in
// the right order, and what is refused is what has them in a wrong one.
func TestDeadlinesAreNested(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Many sizes, and the borders between them.
		duration := func(name string, least time.Duration, special ...time.Duration) time.Duration {
			unit := rapid.SampledFrom([]time.Duration{time.Millisecond, time.Second, time.Minute, time.Hour, 24 * time.Hour}).Draw(t, name+" unit")
			d := max(time.Duration(rapid.IntRange(1, 300).Draw(t, name))*unit, least)
			return rapid.SampledFrom(append([]time.Duration{d, d, d}, special...)).Draw(t, name+" or not")
		}
		s := units.Service{
			Name: "app", Exec: "/usr/bin/app", Sockets: []units.Socket{http8080()},
			Systemd:      257,
			NotifyReload: rapid.Bool().Draw(t, "notify-reload"),
			Profile:      rapid.SampledFrom([]units.Profile{"", units.Plain, units.Strict}).Draw(t, "profile"),
			ReadyTimeout: duration("ready", 0, 0), Probation: duration("probation", 0, 0, units.None),
			DrainTimeout: duration("drain", 0, 0, units.None), StopTimeout: duration("stop", 0, 0),
			DrainDelay: duration("delay", 0, 0, units.None), HangTimeout: duration("hang", 0, 0, units.None),
			StoppedTimeout: duration("stopped", 0, 0, units.None), Watchdog: duration("watchdog", time.Second, 0),
		}
		files, err := s.Render()
		or := func(d, byDefault time.Duration) time.Duration {
			if d == 0 {
				return byDefault
			}
			return max(d, 0)
		}
		probation, drain := or(s.Probation, units.DefaultProbation), or(s.DrainTimeout, units.DefaultDrainTimeout)
		wrong := s.HangTimeout > 0 && probation > 0 && s.HangTimeout >= probation ||
			s.StoppedTimeout > 0 && s.Watchdog > 0 && s.StoppedTimeout >= s.Watchdog ||
			s.DrainDelay > 0 && drain > 0 && s.DrainDelay >= drain
		if wrong {
			if err == nil || !strings.Contains(err.Error(), "not shorter than") {
				t.Fatalf("%+v: %v", s, err)
			}
			return
		}
		if err != nil {
			t.Fatalf("%+v: %v", s, err)
		}
		text := string(files["app.service"])
		span := func(name string) time.Duration {
			_, rest, ok := strings.Cut(text, "\n"+name+"=")
			if !ok {
				return 0
			}
			value, _, _ := strings.Cut(rest, "\n")
			d, err := time.ParseDuration(value) // systemd's s, ms and us are Go's as well
			if err != nil {
				t.Fatalf("%s=%s: %v", name, value, err)
			}
			return d
		}
		upgrade := or(s.ReadyTimeout, units.DefaultReadyTimeout) + probation + 10*time.Second
		if got := span("TimeoutStartSec"); got <= upgrade || got < 90*time.Second {
			t.Fatalf("TimeoutStartSec=%v, an upgrade may take %v", got, upgrade)
		}
		if got, stop := span("TimeoutStopSec"), or(s.StopTimeout, units.DefaultStopTimeout); got <= stop {
			t.Fatalf("TimeoutStopSec=%v, a stop may take %v", got, stop)
		}
		if watchdog := span("WatchdogSec"); watchdog > 0 {
			const byDefault = 5 * time.Second // of package upgrade
			stopped := span("Environment=HANDOFF_STOPPED_TIMEOUT")
			if stopped == 0 {
				stopped = byDefault
			}
			if stopped >= watchdog {
				t.Fatalf("WatchdogSec=%v, and an old version takes over after %v", watchdog, stopped)
			}
		}
	})
}

// A watchdog that is faster than the default of what must come before it.
func TestFastWatchdog(t *testing.T) {
	for _, tt := range []struct {
		watchdog, stopped time.Duration
		want              string // HANDOFF_STOPPED_TIMEOUT, "" is not written
	}{
		{0, 0, ""},
		{10 * time.Second, 0, ""},
		{5 * time.Second, 0, "2.5s"},
		{2 * time.Second, 0, "1s"},
		{2 * time.Second, 500 * time.Millisecond, "500ms"},
		{2 * time.Second, units.None, "-1s"},
	} {
		s := units.Service{
			Name: "app", Exec: "/usr/bin/app", Sockets: []units.Socket{http8080()},
			Watchdog: tt.watchdog, StoppedTimeout: tt.stopped,
		}
		files, err := s.Render()
		require.NoError(t, err)
		got := ""
		for _, v := range settings(t, files["app.service"], "Service", "Environment") {
			if value, ok := strings.CutPrefix(v, "HANDOFF_STOPPED_TIMEOUT="); ok {
				got = value
			}
		}
		assert.Equal(t, tt.want, got, "%v", tt)
	}
}
