package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// percent is a share of more than nothing: 5, 5% or 0.5%.
type percent float64

// UnmarshalText reads a share.
func (p *percent) UnmarshalText(text []byte) error {
	v, err := strconv.ParseFloat(strings.TrimSuffix(string(text), "%"), 64)
	switch {
	case err != nil || math.IsNaN(v):
		return fmt.Errorf("%q is not a share, as 5%% or 0.5%%", text)
	case v <= 0 || v > 100:
		return fmt.Errorf("%q is not more than 0%% and at most 100%%", text)
	}
	*p = percent(v)
	return nil
}

// String is "5%", "0.5%".
func (p percent) String() string {
	return strconv.FormatFloat(math.Round(float64(p)*100)/100, 'f', -1, 64) + "%"
}

// rolloutStep is a step of an automatic upgrade: 5%:30s.
type rolloutStep control.Step

// UnmarshalText reads a step.
func (s *rolloutStep) UnmarshalText(text []byte) error {
	share, duration, ok := strings.Cut(string(text), ":")
	if !ok {
		return fmt.Errorf("%q is not a step, as 5%%:30s", text)
	}
	var p percent
	if err := p.UnmarshalText([]byte(share)); err != nil {
		return err
	}
	d, err := time.ParseDuration(duration)
	if err != nil || d <= 0 {
		return fmt.Errorf("%q is not a duration, as 30s or 5m", duration)
	}
	*s = rolloutStep{Share: float64(p), Time: d.Seconds()}
	return nil
}

// stepsTime is how long the steps take; none are the default ones, see
// [control.Auto].
func stepsTime(steps []control.Step) time.Duration {
	if len(steps) == 0 {
		return 3 * 30 * time.Second
	}
	var sum float64
	for _, s := range steps {
		sum += s.Time
	}
	return seconds(sum)
}

// stageText is "at 5% for 12s (60 new connections of 1200), step 1 of 3 for 18s
// more, rolled back in 14m48s".
func stageText(s *control.Stage, now time.Time) string {
	text := fmt.Sprintf("at %s for %s (%d of %s)", percent(s.Share), since(now, s.Since), s.Passed, count(s.Passed+s.Kept, "new connection"))
	if s.Auto != nil {
		text += fmt.Sprintf(", step %d of %d", s.Auto.Step, s.Auto.Steps)
		switch {
		case s.Auto.Frozen:
			text += ", where it stays while upgrades are paused"
		case !s.Auto.Until.IsZero():
			text += fmt.Sprintf(" for %s more", age(s.Auto.Until.Sub(now)))
		}
	}
	if !s.Deadline.IsZero() {
		text += fmt.Sprintf(", rolled back in %s", age(s.Deadline.Sub(now)))
	}
	return text
}

// stages is the table of the two generations of a staged upgrade; nil if there is
// none.
func (a *app) stages(s *control.Status) *table {
	if s.Upgrade == nil || s.Upgrade.Stage == nil {
		return nil
	}
	stage := s.Upgrade.Stage
	t := &table{columns: append([]column{right("GEN"), right("SHARE"), right("ACCEPTED")}, healthColumns()...)}
	for _, g := range s.Generations {
		switch g.Number {
		case s.Upgrade.To:
			t.add(stageRow(g, stage.Share, stage.Passed)...)
		case s.Upgrade.From:
			t.add(stageRow(g, 100-stage.Share, stage.Kept)...)
		}
	}
	return t
}

func stageRow(g control.Generation, share float64, accepted int) []cell {
	row := []cell{{text: strconv.Itoa(g.Number)}, {text: percent(share).String()}, {text: strconv.Itoa(accepted)}}
	h := g.Health
	if h == nil {
		h = new(control.Health)
	}
	return append(row, healthRow(*h)...)
}
