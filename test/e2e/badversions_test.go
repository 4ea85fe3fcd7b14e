package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/faulty/fault"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// badEnding is how a process ended that a fault has killed, in the words of a result.
func badEnding(f fault.Fault) string {
	switch f {
	case fault.Kill:
		return "killed by SIGKILL"
	case fault.Panic:
		return "exit status 2"
	case fault.Exit0:
		return "exit status 0"
	case fault.Exit3:
		return "exit status 3"
	}
	return ""
}

// TestBadVersionsBeforeConfirm has a new version die, in each way, at each moment up
// to the end of its probation, under new connections at a fixed rate. The old one
// serves as if nothing had been, the answer says what has happened, and the next good
// version takes over.
func TestBadVersionsBeforeConfirm(t *testing.T) {
	moments := []fault.Moment{fault.Init, fault.Started, fault.Listening, fault.Ready, fault.Serving, fault.Probation}
	faults := []fault.Fault{fault.Kill, fault.Panic, fault.Exit0, fault.Exit3}
	var plans []fault.Plan
	for i, at := range moments {
		for j, f := range faults {
			if at != fault.Serving && at != fault.Probation && (i+j)%2 == 1 {
				continue // of what has not served, each fault at every other moment
			}
			plans = append(plans, fault.Plan{Fault: f, At: at})
		}
	}
	plans = append(
		plans,
		fault.Plan{Fault: fault.Kill, At: fault.Probation, Memory: 2048},
	)
	s := newTrials(t, nil)
	for i, plan := range plans {
		via := []string{control.ViaHdctl, control.ViaSystemctl}[(i+i/len(faults))%2]
		s.tryDeath(t, plan, via)
	}
}

// TestPanicAtTheHundredthRequest is one of them that takes its time: on a slow machine
// a hundred requests are not there at once.
func TestPanicAtTheHundredthRequest(t *testing.T) {
	t.Parallel()
	s := newTrials(t, func(u *units.Service) { u.Probation = 3 * time.Second })
	s.tryDeath(t, fault.Plan{Fault: fault.Panic, At: fault.Request, Request: 100}, control.ViaHdctl)
}

// tryDeath tries a version that dies before it is confirmed.
func (s *trials) tryDeath(t *testing.T, plan fault.Plan, via string) {
	t.Run(plan.String()+" by "+via, func(t *testing.T) {
		s.t = t
		outcome := control.OutcomeFailed
		served := slices.Contains([]fault.Moment{fault.Serving, fault.Probation, fault.Request}, plan.At)
		if served {
			outcome = control.OutcomeFellBack
		}
		tr := s.begin(plan)
		tr.upgrade(via)
		tr.end()

		assert.Equal(t, 1, tr.command.ExitCode, "%s%s", tr.command.Stdout, tr.command.Stderr)
		assert.Equal(t, outcome, tr.result.Outcome)
		assert.Equal(t, via, tr.result.Trigger.Via)
		require.NotNil(t, tr.result.Error)
		assert.Contains(t, tr.result.Error.Message, badEnding(plan.Fault))
		assert.Contains(t, strings.Join(tr.result.Output, "\n"), "faulty: going to "+plan.String())
		assert.NotZero(t, tr.struck(), "it was this fault")
		tr.assertTold(tr.result)
		assert.Equal(t, mainOf(t, tr.before).PID, mainOf(t, tr.after).PID, "the same process is main")
		assert.Len(t, tr.after.Generations, 1, "nothing is left of it")
		tr.requireNoRestart()
		tr.assertAnswered(served)
		s.afterwards()
	})
}

// hangs are versions that live on probation, and do not serve.
var hangs = []struct {
	plan    fault.Plan
	message string // in the error
}{
	{fault.Plan{Fault: fault.Stop, At: fault.Serving}, "its process is stopped (SIGSTOP) for "},
	{fault.Plan{Fault: fault.Stop, At: fault.Probation}, "its process is stopped (SIGSTOP) for "},
	{fault.Plan{Fault: fault.Deadlock, At: fault.Serving}, `it accepts nothing on "http" for `},
	{fault.Plan{Fault: fault.Deadlock, At: fault.Probation}, `it accepts nothing on "http" for `},
	{fault.Plan{Fault: fault.Accept, At: fault.Serving}, `it accepts nothing on "http" for `},
	{fault.Plan{Fault: fault.Accept, At: fault.Probation}, `it accepts nothing on "http" for `},
}

// TestHangsInProbation has a new version hang after it has begun to serve: the old
// one ends it, and serves again.
func TestHangsInProbation(t *testing.T) {
	s := newTrials(t, func(u *units.Service) { u.Probation = 2 * time.Second })
	for i, tt := range hangs {
		via := []string{control.ViaHdctl, control.ViaSystemctl}[i%2]
		t.Run(tt.plan.String()+" by "+via, func(t *testing.T) {
			s.t = t
			tr := s.begin(tt.plan)
			tr.upgrade(via)
			if tt.plan.Fault == fault.Stop {
				tr.goOn()
			}
			tr.end()

			assert.Equal(t, 1, tr.command.ExitCode, "%s%s", tr.command.Stdout, tr.command.Stderr)
			assert.Equal(t, control.OutcomeFellBack, tr.result.Outcome)
			require.NotNil(t, tr.result.Error)
			assert.Equal(t, control.CodeHung, tr.result.Error.Code)
			assert.Contains(t, tr.result.Error.Message, tt.message)
			assert.Contains(t, tr.result.Error.Message, "; it was killed")
			assert.NotZero(t, tr.struck(), "it was this fault")
			tr.assertTold(tr.result)
			s.waitGone(tr.result.ToPID)
			assert.Equal(t, mainOf(t, tr.before).PID, mainOf(t, tr.after).PID, "the same process is main")
			tr.requireNoRestart()
			tr.assertAnswered(true)
			tr.assertServedOnce()
			s.afterwards()
		})
	}
}
