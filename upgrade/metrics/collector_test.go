package metrics_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade"
	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/metrics"
)

func TestMain(m *testing.M) { leak.Main(m) }

var update = flag.Bool("update", false, "write the files in testdata")

// An Upgrader is a source.
var _ interface{ Status() *control.Status } = (*upgrade.Upgrader)(nil)

// always is a source.
func always(s *control.Status) metrics.Source {
	return func(context.Context) (*control.Status, error) { return s, nil }
}

var now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// busy is a service in which as much as possible is going on.
func busy() *control.Status {
	serving := control.NewDurations(0.1, 1).Plus(0.04).Plus(0.5)
	return &control.Status{
		APIVersion: 1, Library: "v0.1.0", Service: "app", Main: 7, State: control.StateServing, Time: now,
		Paused: &control.Pause{}, Held: &control.Hold{}, Stopping: true,
		Upgrade: &control.Progress{Phase: control.PhaseStaged, From: 7, To: 8, Stage: &control.Stage{Share: 12.5}},
		Last:    &control.Record{Time: ago(192 * time.Second), Result: control.Result{Outcome: control.OutcomeFellBack}},
		Disk:    &control.Disk{Path: "/usr/bin/app", State: control.DiskMissing, Failed: true},
		Generations: []control.Generation{
			{Number: 8, PID: 4300, Version: "v3", State: control.StateStaged, RSS: 1 << 20},
			{Number: 7, PID: 4242, Version: "v2", State: control.StateServing, Main: true, Conns: control.Counts{Total: 15, New: 1, Active: 2, Idle: 3, Stream: 4, Hijacked: 5}, Oldest: ago(time.Hour), RSS: 41 << 20, Goroutines: 12},
			{Number: 6, PID: 4100, Version: "v1", State: control.StateDraining, Deadline: now.Add(408500 * time.Millisecond), Conns: control.Counts{Total: 1, Hijacked: 1}, Oldest: ago(724 * time.Second), RSS: 60 << 20},
			{Number: 5, PID: 4000, Version: "v1", State: control.StateDraining},
		},
		Sockets: []control.Socket{
			{Name: "http", Network: "tcp", Address: "[::]:8080", Claimed: true},
			{Name: "http", Network: "tcp", Address: "[::]:8080", Claimed: true}, // ReusePort=
			{Name: "old", Network: "unix", Address: "@a\xff\"b"},
		},
		Totals: &control.Totals{
			Since: ago(24 * time.Hour), Upgrades: map[string]int{control.OutcomeConfirmed: 2, control.OutcomeFellBack: 1, "eaten": 1}, FallBacks: 1,
			Serving: serving, Confirmed: serving.Plus(2), Drained: control.NewDurations(60).Plus(61),
			Migrated: 1203, Cut: control.Counts{Total: 3, Idle: 1, Stream: 2},
		},
	}
}

// exposition is what a scraper gets, in the registry's order. The registry is one that
// checks that the collector does what it describes.
func exposition(t *testing.T, collectors ...prometheus.Collector) string {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	for _, c := range collectors {
		require.NoError(t, r.Register(c))
	}
	problems, err := testutil.GatherAndLint(r)
	require.NoError(t, err)
	assert.Empty(t, problems)
	families, err := r.Gather()
	require.NoError(t, err)
	var text bytes.Buffer
	for _, f := range families {
		_, err := expfmt.MetricFamilyToText(&text, f)
		require.NoError(t, err)
	}
	return text.String()
}

func TestExposition(t *testing.T) {
	draining := busy()
	draining.Main, draining.State, draining.Totals = 8, control.StateDraining, nil

	first := &control.Status{
		Service: "app", Library: "v0.1.0", Main: 1, State: control.StateServing, Disk: &control.Disk{State: control.DiskSame},
		Generations: []control.Generation{{Number: 1, Version: "v1", State: control.StateServing, Main: true}},
		Totals:      &control.Totals{Since: now},
	}
	older := busy()
	older.Totals = nil
	failing := func(context.Context) (*control.Status, error) { return nil, errors.New("no answer") }
	for _, tt := range []struct {
		name   string
		source metrics.Source
	}{
		{"busy", always(busy())},
		{"first", always(first)},
		{"draining", always(draining)},
		{"older", always(older)},
		{"down", failing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := exposition(t, metrics.New("app", tt.source))
			file := filepath.Join("testdata", tt.name+".prom")
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(got), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			assert.Equal(t, string(want), got)
		})
	}
}

// Of a generation that is not main nothing is said that only main knows.
func TestNotMainIsSilentAboutTheService(t *testing.T) {
	s := busy()
	s.Main = 8 // the one that answers is 7
	r := prometheus.NewRegistry()
	r.MustRegister(metrics.New("app", always(s)))
	families, err := r.Gather()
	require.NoError(t, err)
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	assert.Equal(t, []string{
		"handoff_connections", "handoff_info", "handoff_main", "handoff_oldest_connection_timestamp_seconds",
		"handoff_resident_memory_bytes", "handoff_up",
	}, names)
	n, err := testutil.GatherAndCount(r, "handoff_connections")
	require.NoError(t, err)
	assert.Equal(t, 5, n, "the states of its own connections")
	assert.False(t, metrics.FromMain(s))
	assert.True(t, metrics.FromMain(busy()))
	assert.True(t, metrics.FromMain(&control.Status{}))
}

// Several services in one registry, one of which does not answer.
func TestSeveralServices(t *testing.T) {
	nobody := func(context.Context) (*control.Status, error) { return nil, errors.New("no answer") }
	text := exposition(t, metrics.New("app", always(busy())), metrics.New("web", always(busy())), metrics.New("gone\xff", nobody))
	for _, line := range []string{
		`handoff_up{service="app"} 1`, `handoff_up{service="web"} 1`, `handoff_up{service="gone�"} 0`,
		`handoff_generation{service="app"} 7`, `handoff_generation{service="web"} 7`,
	} {
		assert.Contains(t, text, line+"\n")
	}
	assert.NotContains(t, text, `generation{service="gone`)
}

// A scrape waits for a source, but not for ever.
func TestSourceHasADeadline(t *testing.T) {
	var limit time.Duration
	c := metrics.New("app", func(ctx context.Context) (*control.Status, error) {
		deadline, ok := ctx.Deadline()
		assert.True(t, ok)
		limit = time.Until(deadline)
		return busy(), nil
	})
	testutil.CollectAndCount(c)
	assert.Positive(t, limit)
	assert.LessOrEqual(t, limit, metrics.Timeout)
}
