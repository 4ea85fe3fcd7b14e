package machine_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// What has too many interleavings is walked through at random: up to six
// generations, of which two may drain at leisure, staged or not, and more trouble.
func TestRandomWalksKeepThePromises(t *testing.T) {
	memory := newMemory(machine.Step)
	moves, most := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		m := &model{memory: memory, limits: machine.Limits{MaxDraining: 2, Refuse: fair(t, "refuse", 4) == 0}}
		defer func() { memory = m.memory }()
		for range 10 {
			w := m.begin(budget{
				upgrades: 5,
				kills:    uint8(fair(t, "kills", 4)),
				terms:    uint8(fair(t, "terms", 3)),
				faults:   uint8(fair(t, "faults", 4)),
				hangs:    uint8(fair(t, "hangs", 2)),
				wedges:   uint8(fair(t, "wedges", 2)),
				holds:    uint8(fair(t, "holds", 4)),
				stages:   uint8(fair(t, "stages", 3)),
				manuals:  uint8(fair(t, "manuals", 2)),
				rollback: uint8(fair(t, "rollback", 3)),
			})
			var story strings.Builder
			for {
				v, ok := m.choose(t, &w)
				if !ok {
					break
				}
				m.tell(&story, &w, v)
				m.checkAlways(&w)
				if m.broken != nil {
					break
				}
				moves++
			}
			if m.broken != nil {
				t.Fatalf("%v\n%s", m.broken, story.String())
			}
			most = max(most, strings.Count(story.String(), "Outcome:confirmed"))
		}
	})
	t.Logf("%d moves, at most %d upgrades in one walk, %d states of a machine", moves, most, len(memory.states)-1)
	if most < 4 {
		t.Error("the walks do not lead far")
	}
}

// choose draws the next move. There is none when the service is over, or when
// nothing can happen any more.
func (m *model) choose(t *rapid.T, w *world) (move, bool) {
	all, own, ends := m.moves(w, nil)
	if own == 0 {
		m.checkSettled(w, ends > 0)
	}
	if len(all) == 0 || m.broken != nil {
		return move{}, false
	}
	// Things go well most of the time, or no walk would lead far.
	moves := all
	switch luck := fair(t, "luck", 64); {
	case own > 0 && luck > 1 && (luck <= 4 || patient(all[:own]) != nil):
		moves = all[:own]
		if luck > 4 {
			moves = patient(moves)
		}
	case ends > 0 && luck > 32:
		moves = all[own : own+ends]
	case luck > 4:
		for _, v := range all {
			if v.what == asksRelease || v.what == asksUpgrade || v.what == asksPromote {
				return v, true
			}
		}
	}
	moves = m.withCuts(w, moves)
	return moves[fair(t, "move", len(moves))], true
}

// patient leaves out the timers of what is only slow. That may be all.
func patient(moves []move) []move {
	var others []move
	for _, v := range moves {
		if v.what != fires || machine.Timer(v.arg) == machine.ProbationTimer {
			others = append(others, v)
		}
	}
	return others
}

// fair draws a number below n, at most 64. rapid's own integers are small
// rather than large.
func fair(t *rapid.T, label string, n int) int {
	return rapid.Custom(func(t *rapid.T) int {
		v := 0
		for range 8 {
			v <<= 1
			if rapid.Bool().Draw(t, "bit") {
				v++
			}
		}
		return v * n >> 8
	}).Draw(t, label)
}
