package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hdctl/handoff/upgrade/control"
)

// goal is what to wait for: goalReady, goalDrained, or "generation=N".
type goal string

const (
	goalReady   goal = "ready"
	goalDrained goal = "drained"
)

// UnmarshalText reads a goal.
func (g *goal) UnmarshalText(text []byte) error {
	*g = goal(text)
	if *g == goalReady || *g == goalDrained || g.generation() > 0 {
		return nil
	}
	return fmt.Errorf("%q is none of ready, drained and generation=N", text)
}

// generation is the N of generation=N, and otherwise 0.
func (g goal) generation() int {
	text, ok := strings.CutPrefix(string(g), "generation=")
	n, err := strconv.Atoi(text)
	if !ok || err != nil || n < 1 {
		return 0
	}
	return n
}

// reached says that it is so.
func (g goal) reached(s *control.Status) string {
	if g == goalDrained {
		return fmt.Sprintf("drained: only %s is left", currentText(s))
	}
	return currentText(s) + " serves"
}

// obstacle is what is in the way of a goal; its zero value is nothing. The key
// stays the same as long as only times and numbers change.
type obstacle struct{ key, text string }

// Keys of obstacles that are no status.
const (
	absent = "absent"
	silent = "silent"
)

// obstacle tells what is in the way.
func (g goal) obstacle(s *control.Status) obstacle {
	if g == goalDrained {
		return drainObstacle(s)
	}
	if n := g.generation(); s.Main < n {
		return withUpgrade(s, fmt.Sprintf("generation %d is still the main one", s.Main))
	}
	switch text := fmt.Sprintf("%s is %s", currentText(s), clean(string(s.State))); {
	case s.Stopping:
		return obstacle{"stopping", "it is being stopped"}
	case s.Held != nil:
		return obstacle{"held", fmt.Sprintf("%s accepts nothing: %s", currentText(s), holdText(s.Held, s.Time))}
	case s.State != control.StateServing:
		return withUpgrade(s, text)
	}
	return obstacle{}
}

// drainObstacle tells which old generations drain, or will: an upgrade in
// progress is about to make one.
func drainObstacle(s *control.Status) obstacle {
	var key, text []string
	for _, g := range s.Generations {
		if g.State != control.StateDraining || g.Number == s.Main {
			continue
		}
		left := "without a deadline"
		if !g.Deadline.IsZero() {
			left = age(g.Deadline.Sub(s.Time)) + " left"
		}
		key = append(key, strconv.Itoa(g.Number))
		text = append(text, fmt.Sprintf("generation %d drains (%s open, %s)", g.Number, count(g.Conns.Total, "connection"), left))
	}
	if s.Upgrade != nil {
		o := withUpgrade(s, "")
		key, text = append(key, o.key), append(text, o.text)
	}
	return obstacle{strings.Join(key, " "), strings.Join(text, ", ")}
}

// withUpgrade is an obstacle that an upgrade in progress may remove.
func withUpgrade(s *control.Status, text string) obstacle {
	o := obstacle{key: text, text: text}
	if s.Upgrade == nil {
		return o
	}
	if text != "" {
		o.text += "; "
	}
	o.text += "upgrade " + progressText(s.Upgrade, s.Time)
	o.key += " upgrade " + s.Upgrade.Phase
	return o
}
