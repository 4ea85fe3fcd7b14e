package control_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/hdctl/handoff/upgrade/control"
)

func TestReadHistory(t *testing.T) {
	upgrade := func(invocation, outcome string, from, to int) string {
		return fmt.Sprintf(`{"invocation_id":%q,"outcome":%q,"from":%d,"to":%d}`, invocation, outcome, from, to)
	}
	confirmed := func(from, to int) string { return upgrade("a", control.OutcomeConfirmed, from, to) }
	drained := func(invocation string, from, migrated int) string {
		return fmt.Sprintf(`{"invocation_id":%q,"outcome":"","from":%d,"migrated":%d,"drain_ended":"2026-07-01T12:00:00Z"}`, invocation, from, migrated)
	}
	for _, tt := range []struct {
		name    string
		lines   []string // oldest first
		limit   int
		want    []string // from, to, what was migrated if the drain has ended
		skipped int
	}{
		{name: "none"},
		{name: "a drain goes on", lines: []string{confirmed(1, 2)}, want: []string{"1-2"}},
		{name: "a drain has ended", lines: []string{confirmed(1, 2), drained("a", 1, 7)}, want: []string{"1-2:7"}},
		{
			name:  "after two more upgrades",
			lines: []string{confirmed(1, 2), confirmed(2, 3), drained("a", 2, 8), upgrade("a", control.OutcomeFailed, 3, 4), drained("a", 1, 7)},
			want:  []string{"3-4", "2-3:8", "1-2:7"},
		},
		{
			name:  "after a fall back",
			lines: []string{confirmed(1, 2), upgrade("a", control.OutcomeFellBack, 1, 2), confirmed(1, 3), drained("a", 1, 7)},
			want:  []string{"1-3:7", "1-2", "1-2"},
		},
		{
			name:  "not of another start",
			lines: []string{confirmed(1, 2), upgrade("b", control.OutcomeConfirmed, 1, 2), drained("b", 1, 7)},
			want:  []string{"1-2:7", "1-2"},
		},
		{name: "of one that is not there", lines: []string{drained("a", 1, 7), confirmed(2, 3)}, want: []string{"2-3"}},
		{name: "limit", lines: []string{confirmed(1, 2), confirmed(2, 3), drained("a", 2, 8)}, limit: 1, want: []string{"2-3:8"}},
		{name: "other lines", lines: []string{confirmed(1, 2), "{}", `{"outco`, "7", "\x00"}, want: []string{"1-2"}, skipped: 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var lines [][]byte
			for _, line := range slices.Backward(tt.lines) {
				lines = append(lines, []byte(line))
			}
			entries, skipped := control.ReadHistory(slices.Values(lines), tt.limit)
			var got []string
			for _, e := range entries {
				text := fmt.Sprintf("%d-%d", e.From, e.To)
				assert.Equal(t, e.Drained, !e.DrainEnded.IsZero())
				if e.Drained {
					assert.Equal(t, time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC), e.DrainEnded)
					text += fmt.Sprintf(":%d", e.Migrated)
				}
				got = append(got, text)
			}
			assert.Equal(t, tt.want, got, "%s", strings.Join(tt.lines, "\n"))
			assert.Equal(t, tt.skipped, skipped)
		})
	}
}
