package upgrade

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/gate"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

// newPilot returns generation 1, on its own and with nobody who drives it, in the
// middle of an automatic upgrade to generation 2: step 1 of two has begun.
func newPilot(t *testing.T, auto control.Auto) (*Upgrader, *attempt) {
	t.Helper()
	leak.Check(t)
	page := func() *pulse.Page {
		p, err := pulse.New()
		require.NoError(t, err)
		t.Cleanup(func() { _ = p.Close() })
		return p
	}
	conn := func() *link.Conn {
		ours, theirs, err := link.Pair()
		require.NoError(t, err)
		t.Cleanup(func() { _ = theirs.Close() })
		c, err := link.New(ours)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	log := slog.New(slog.DiscardHandler)
	a := &attempt{number: 2, stage: &stage{
		percent: auto.Steps[0].Share,
		share:   &share{sender: transfer.NewSender(conn()), places: transfer.NewPlaces(gate.MaxPushed), log: log},
		auto:    newAutopilot(auto),
	}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	u := &Upgrader{
		number: 1, pid: os.Getpid(), ctx: context.Background(), log: log, box: newMailbox(), events: newEventLog(),
		systemd: newSystemd("", log), timers: make(map[machine.Timer]*time.Timer), page: page(),
		peers:   map[int]*peer{2: {number: 2, pid: os.Getpid(), conn: conn(), page: page()}},
		attempt: a,
	}
	u.state = machine.First(machine.Limits{MaxDraining: 8})
	u.state.Life, u.state.Next = machine.Serving, 3
	u.state.Candidate = machine.Candidate{Number: 2, Phase: machine.OnStage}
	pilot := a.stage.auto
	u.setStage(auto.Steps[0].Share)
	pilot.until = time.Now().Add(time.Hour)
	t.Cleanup(func() {
		pilot.stop()
		for _, timer := range u.timers {
			timer.Stop()
		}
		a.cancel()
		a.stage.share.end(0)
		u.wg.Wait()
		u.systemd.close()
	})
	return u, a
}

// drivePosted does what has been posted to the driver.
func drivePosted(u *Upgrader) {
	u.wg.Wait()
	for _, f := range u.box.take() {
		f()
	}
}

// observe has a generation answer so many requests, some of which fail.
func observe(p *pulse.Page, requests, errors int) {
	for n := range requests {
		p.Observe(time.Millisecond, n < errors)
	}
}

// TestJudge has an automatic upgrade looked at once, in the middle of a step or at
// its end.
func TestJudge(t *testing.T) {
	const first, last = 0, 1
	for _, tt := range []struct {
		name            string
		requests, fails int // of the new generation
		step            int
		over, paused    bool
		phase           machine.Phase // then; None: it is over
		next            int           // step
		verdict, code   string
		outcome         string
	}{
		{name: "good so far", requests: 400, phase: machine.OnStage},
		{name: "too few so far", requests: 4, phase: machine.OnStage},
		{name: "bad", requests: 400, fails: 40, phase: machine.None, verdict: control.VerdictBad, code: control.CodeRolledBack, outcome: control.OutcomeRolledBack},
		{name: "bad, at the end of the step", requests: 400, fails: 40, over: true, phase: machine.None, verdict: control.VerdictBad, code: control.CodeRolledBack, outcome: control.OutcomeRolledBack},
		{name: "bad, while paused", requests: 400, fails: 40, paused: true, phase: machine.None, verdict: control.VerdictBad, code: control.CodeRolledBack, outcome: control.OutcomeRolledBack},
		{name: "bad in the last step", requests: 400, fails: 40, step: last, phase: machine.None, verdict: control.VerdictBad, code: control.CodeRolledBack, outcome: control.OutcomeRolledBack},
		{name: "too few", requests: 4, over: true, phase: machine.None, verdict: control.VerdictInconclusive, code: control.CodeInconclusive, outcome: control.OutcomeInconclusive},
		{name: "too few, while paused", requests: 4, over: true, paused: true, phase: machine.OnStage},
		{name: "good", requests: 400, over: true, phase: machine.OnStage, next: last},
		{name: "good, while paused", requests: 400, over: true, paused: true, phase: machine.OnStage},
		{name: "good in the last step", requests: 400, step: last, over: true, phase: machine.Opening, verdict: control.VerdictGood},
		{name: "good so far in the last step", requests: 400, step: last, phase: machine.OnStage, next: last},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, a := newPilot(t, control.Auto{Steps: []control.Step{{Share: 5, Time: 1}, {Share: 25, Time: 1}}})
			st := a.stage
			p := st.auto
			if tt.step != first {
				p.step = tt.step
				u.setStage(p.steps[p.step].Share)
			}
			st.since = st.since.Add(-time.Minute)
			observe(u.page, 4000, 0)
			observe(u.pageOf(2), tt.requests, tt.fails)
			if tt.over {
				p.until = time.Now().Add(-time.Millisecond)
			}
			if tt.paused {
				u.paused = new(control.Pause)
			}

			u.judge(p)
			assert.Equal(t, tt.phase, u.state.Candidate.Phase)
			if tt.verdict == "" {
				assert.Nil(t, a.verdict)
				assert.Equal(t, tt.next, p.step)
				assert.Equal(t, p.steps[p.step].Share, st.percent)
				assert.True(t, p.until.After(time.Now()), "the step, or the next one, goes on")
				assert.NotNil(t, p.timer, "somebody will look again")
			} else {
				require.NotNil(t, a.verdict)
				assert.Equal(t, tt.verdict, a.verdict.Verdict, a.verdict.Reason)
			}
			drivePosted(u)
			if tt.code == "" {
				assert.Nil(t, a.problem)
				assert.Nil(t, u.last)
				return
			}
			require.NotNil(t, a.problem)
			assert.Equal(t, tt.code, a.problem.Code)
			assert.Contains(t, a.problem.Message, a.verdict.Reason)
			require.NotNil(t, u.last)
			assert.Equal(t, tt.outcome, u.last.Outcome)
			assert.Equal(t, a.verdict, u.last.Verdict)
		})
	}
}

// TestJudgeOfAllTheTraffic compares, where the old generation gets nothing any more,
// with what it did before.
func TestJudgeOfAllTheTraffic(t *testing.T) {
	u, a := newPilot(t, control.Auto{Steps: []control.Step{{Share: 5, Time: 1}, {Share: 100, Time: 1}}})
	st := a.stage
	p := st.auto
	observe(u.page, 4000, 0)
	observe(u.pageOf(2), 200, 0)
	st.since, st.first = st.since.Add(-time.Minute), st.first.Add(-time.Minute)
	p.until = time.Now().Add(-time.Millisecond)
	u.judge(p)
	require.Equal(t, 1, p.step)
	observe(u.pageOf(2), 4000, 0)
	p.until = time.Now().Add(-time.Millisecond)
	u.judge(p)
	require.NotNil(t, a.verdict)
	assert.Equal(t, control.VerdictGood, a.verdict.Verdict, a.verdict.Reason)
	assert.EqualValues(t, 4200, a.verdict.New.Requests)
	assert.Equal(t, machine.Opening, u.state.Candidate.Phase)
}

// TestJudgeOfAnUpgradeThatIsOver does nothing: an operator was faster.
func TestJudgeOfAnUpgradeThatIsOver(t *testing.T) {
	u, a := newPilot(t, control.Auto{Steps: []control.Step{{Share: 5, Time: 1}}})
	p := a.stage.auto
	a.stage.auto = nil
	observe(u.pageOf(2), 400, 400)
	u.judge(p)
	assert.Nil(t, a.verdict)
	assert.Equal(t, machine.OnStage, u.state.Candidate.Phase)
}
