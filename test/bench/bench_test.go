package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
)

// This test binary is the services, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == serveCommand {
		main()
		os.Exit(0)
	}
	leak.Main(m)
}

// So that it does not rot. What the numbers are does not matter, but for those that
// are promised on any machine.
func TestSmall(t *testing.T) {
	leak.Check(t)
	// With the race detector each service would take a second to exit.
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	var out, log bytes.Buffer
	b := &bench{scale: tiny, out: &out, log: &log}
	for _, topic := range topics {
		require.NoError(t, topic.run(b, t.Context()), "%s\n%s", topic.name, log.String())
	}
	b.summary.print(&out)
	t.Logf("%s", out.String())

	for _, l := range b.summary.tracking.lines {
		for side := range sideCount {
			assert.Len(t, l.sides[side], tiny.rounds, "%s, side %d", l.name, side)
		}
	}
	require.Len(t, b.summary.migrations, 1)
	assert.Equal(t, tiny.pools[0].conns, b.summary.migrations[0].conns)
	assert.Zero(t, b.summary.migrations[0].failed)
	require.Len(t, b.summary.upgrades, len(ways))
	for i, n := range b.summary.upgrades {
		assert.Len(t, n.gone, tiny.upgrades, ways[i].name)
		assert.Len(t, n.answers, tiny.upgrades, ways[i].name)
		assert.Len(t, n.cpu, tiny.loadRounds, ways[i].name)
		if ways[i].kind == kindHandoff {
			assert.Zero(t, n.failed.max(), ways[i].name)
		}
		if ways[i].name == "migration" {
			assert.Zero(t, n.reconnects.max())
		}
	}
	require.Len(t, b.felt, len(faultKinds))
	for i, n := range b.felt {
		assert.Zero(t, n.refused, faultKinds[i].name)
		assert.Positive(t, n.back.min(), faultKinds[i].name)
	}
	assert.Equal(t, 6, strings.Count(out.String(), "\n### "), "tables")
}

func TestUnknownTopic(t *testing.T) {
	err := run(t.Context(), new(bytes.Buffer), new(bytes.Buffer), tiny, []string{"speed"})
	assert.ErrorContains(t, err, `unknown topic "speed" (there are: tracking, migrate, upgrades, faults)`)
}

func TestSeries(t *testing.T) {
	s := series{4, 1, 3, 2}
	assert.Equal(t, 2.5, s.median())
	assert.Equal(t, 1.0, s.min())
	assert.Equal(t, 4.0, s.max())
	assert.InDelta(t, 3.97, s.quantile(0.99), 1e-9)
	assert.Equal(t, series{4, 1, 3, 2}, s, "not sorted in place")
	assert.Equal(t, series{2, 3}, combine(series{4, 9}, series{2, 3, 5}, func(a, b float64) float64 { return a / b }))
}

func TestFormat(t *testing.T) {
	tests := []struct{ want, got string }{
		{"0", plain(0.2)},
		{"999", plain(999)},
		{"1,000", plain(1000)},
		{"-1,234,567", plain(-1234567)},
		{"0.50 µs", micros(0.5)},
		{"12.3 ms", millis(12.34)},
		{"1,234 ms", millis(1234)},
		{"2.00 ms (1.00 to 3.00 ms)", spread(series{1, 2, 3}, millis)},
		{"2 (1 to 3)", spread(series{1, 2, 3}, plain)},
		{"2.00 ms", spread(series{2}, millis)},
		{"-", spread(nil, millis)},
		{"+0 B", signed(octets(0))},
		{"-8 B", signed(octets(-8))},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.want, tt.got)
	}
}

func TestTable(t *testing.T) {
	var tab table
	tab.row("", "one", "b")
	tab.row("µs", "1", "1,000")
	var out bytes.Buffer
	tab.print(&out, "### Title")
	assert.Equal(t, `
### Title

|     | one |     b |
| --- | --: | ----: |
| µs  |   1 | 1,000 |
`, out.String())
}
