package machine_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// From wherever a machine can get, an upgrade ends when its timers run out, even if
// the candidate never says another word, and who asked gets one answer. What cannot be
// silent is the kernel, that ends what is killed, and systemd's notify socket, that
// takes or refuses what is sent. Nor is the operator, where a probation has no end of
// its own.
func TestTimersEndEveryUpgrade(t *testing.T) {
	x := newExplorer(machine.Step, atMostOne)
	x.explore(x.begin(budget{upgrades: 1, stages: 1, manuals: 1, rollback: 1, kills: 1, terms: 1, faults: 1, wedges: 1}))
	upgrades := 0
	for _, s := range x.states {
		if s.Candidate.Phase == machine.None && s.Retiring == 0 || s.Life == machine.Exited {
			continue
		}
		upgrades++
		end, answers := runOut(s)
		require.Equal(t, machine.Candidate{}, end.Candidate, "from %+v", s)
		require.Zero(t, end.Retiring, "from %+v", s)
		want := 1
		if s.Candidate.Told || s.Candidate.Phase == machine.None {
			want = 0
		}
		require.Equal(t, want, answers, "from %+v", s)
	}
	assert.Greater(t, upgrades, 100)
}

// runOut lets all timers of an upgrade fire, and counts the answers.
func runOut(s machine.State) (end machine.State, answers int) {
	give := func(e machine.Event) {
		var effects []machine.Effect
		s, effects = machine.Step(s, e)
		for _, e := range effects {
			if is[machine.Report](e) {
				answers++
			}
		}
	}
	for range 5 {
		for timer := machine.ReadyTimer; timer <= machine.RetireTimer; timer++ {
			give(machine.Fired{Timer: timer})
		}
		if e := kernelSays(s); e != nil {
			give(e)
		}
	}
	return s, answers
}

// kernelSays is what must follow, once what was asked for has been given up.
func kernelSays(s machine.State) machine.Event {
	switch c := s.Candidate; c.Phase {
	case machine.Preflight:
		return machine.Checked{}
	case machine.Spawning:
		return machine.Spawned{}
	case machine.Notifying:
		return machine.Notified{Number: c.Number}
	case machine.Reclaiming:
		return machine.Notified{Number: c.Number, Gone: true}
	case machine.Restoring:
		return machine.Notified{Number: s.Number, OK: true}
	case machine.Dying:
		return machine.PeerGone{Number: c.Number}
	}
	return nil
}
