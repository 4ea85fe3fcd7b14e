package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

// What a status says about an attempt whose answer was lost.
func TestJudge(t *testing.T) {
	asked := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	staged := func(share float64, auto *control.AutoStep) *control.Status {
		s := serviceStatus(7)
		s.Generations = append(s.Generations, control.Generation{Number: 8, PID: 88, State: control.StateStaged})
		s.Upgrade = &control.Progress{Phase: control.PhaseStaged, From: 7, To: 8, PID: 88, Stage: &control.Stage{Share: share, Auto: auto}}
		return s
	}
	ended := func(s *control.Status, r control.Result) *control.Status {
		s.Last = &control.Record{Time: asked.Add(time.Second), Result: r}
		return s
	}
	for _, tt := range []struct {
		name   string
		at     attempt
		before *control.Status // nil: generation 7 serves
		now    *control.Status
		want   string // outcome, or "" for go on
		fails  string
	}{
		{name: "staged", at: attempt{share: 5, generation: 8}, now: staged(5, nil), want: control.OutcomeStaged},
		{name: "not as far yet", at: attempt{share: 50, generation: 8}, now: staged(5, nil)},
		{name: "somebody else's stage", at: attempt{share: 5, generation: 9, queue: true}, now: staged(5, nil)},
		{name: "automatic", at: attempt{steps: time.Minute, generation: 8}, now: staged(100, &control.AutoStep{Step: 3, Steps: 3})},
		{name: "automatic, inconclusive", at: attempt{steps: time.Minute, generation: 8}, now: ended(serviceStatus(7), control.Result{Outcome: control.OutcomeInconclusive, To: 8}), want: control.OutcomeInconclusive},
		{name: "promoted", at: attempt{what: aPromotion, generation: 8}, now: serviceStatus(8, 7), want: control.OutcomeConfirmed},
		{name: "promoted, and fell back", at: attempt{what: aPromotion, generation: 8}, now: ended(serviceStatus(7), control.Result{Outcome: control.OutcomeFellBack, To: 8}), want: control.OutcomeFellBack},
		{name: "rolled back", at: attempt{what: aRollback, generation: 8, undoes: 8}, before: staged(5, nil), now: serviceStatus(7), want: control.OutcomeRolledBack},
		{name: "not rolled back yet", at: attempt{what: aRollback, generation: 8, undoes: 8}, before: staged(5, nil), now: staged(5, nil)},
		{name: "rolled back to a new generation", at: attempt{what: aRollback, generation: 9}, before: serviceStatus(8, 7), now: serviceStatus(9, 8), want: control.OutcomeConfirmed},
		{name: "the main one died", at: attempt{generation: 9}, before: serviceStatus(8, 7), now: serviceStatus(7), fails: "generation 8, which was asked, is gone; generation 7 serves again"},
		{name: "started again", at: attempt{generation: 9}, before: serviceStatus(8, 7), now: serviceStatus(1), fails: "was started again: generation 1 serves now"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at := tt.at
			at.target, at.asked, at.before = target{name: "app"}, asked, tt.before
			if at.before == nil {
				at.before = serviceStatus(7)
			}
			var r *control.Result
			var err error
			for range 3 { // what has no record must be so twice
				if r, err = at.judge(tt.now, 1); r != nil || err != nil {
					break
				}
			}
			switch {
			case tt.fails != "":
				assert.ErrorContains(t, err, tt.fails)
			case tt.want == "":
				assert.NoError(t, err)
				assert.Nil(t, r)
			default:
				require.NoError(t, err)
				require.NotNil(t, r)
				assert.Equal(t, tt.want, r.Outcome)
				assert.Equal(t, at.what == aRollback && at.undoes == 0, r.Rollback)
			}
		})
	}
}
