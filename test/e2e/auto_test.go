package e2e

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/faulty/fault"
	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/upgrade/control"
)

// usual is how long a request takes in these tests: so long that what the machine
// adds to it, under load, makes no verdict.
const usual = 20 * time.Millisecond

// newAutoTrials starts a good version with the usual latency.
func newAutoTrials(t testing.TB) *trials {
	t.Helper()
	s := newTrials(t, nil)
	s.good = fault.Plan{Latency: usual}
	s.version = s.install(s.good)
	s.MustSystemctl(t, "restart", service)
	s.requireServing(1, s.version)
	return s
}

// autoLoad is enough for a verdict on a tenth of it within some seconds, and little
// enough for latencies to be those of the service.
func autoLoad() load.Options { return load.Options{Arrivals: 300} }

// beginAuto installs a version, puts load on the service, and runs an automatic
// upgrade in the background.
func (s *trials) beginAuto(p fault.Plan, args ...string) (*trial, <-chan testbed.Result) {
	s.t.Helper()
	if p.Latency == 0 {
		p.Latency = usual
	}
	tr := s.beginUnder(autoLoad(), p)
	return tr, s.inBackground(append([]string{"hdctl", "upgrade", "-o", "json", "--auto", "demo"}, args...)...)
}

// shares are those that the generation was given, by the events of the service.
func (s *trials) shares(number int) []string {
	s.t.Helper()
	var shares []string
	gets := regexp.MustCompile(`^generation \d+ \(\w+\) gets (\S+) of the new connections`)
	for line := range strings.Lines(s.mustHdctl("events", "-o", "jsonl", "demo")) {
		var e control.Event
		require.NoError(s.t, json.Unmarshal([]byte(line), &e), "%s", line)
		if m := gets.FindStringSubmatch(e.Message); m != nil && e.Generation == number {
			shares = append(shares, m[1])
		}
	}
	return shares
}

// TestAutoRollsBackABadVersion has an automatic upgrade meet versions that answer,
// but not well: each is rolled back while it has its first share, with the figures
// that were against it.
func TestAutoRollsBackABadVersion(t *testing.T) {
	s := newAutoTrials(t)
	for _, tt := range []struct {
		plan   fault.Plan
		reason string
		check  func(t *testing.T, v *control.Verdict)
	}{
		{fault.Plan{Errors: 5}, "requests failed", func(t *testing.T, v *control.Verdict) {
			assert.InDelta(t, 0.05, float64(v.New.Errors)/float64(v.New.Requests), 0.01)
		}},
		{fault.Plan{Slow: 3}, "median", func(t *testing.T, v *control.Verdict) {
			assert.Zero(t, v.New.Errors)
			assert.Greater(t, v.New.Median, 2*v.Old.Median)
		}},
	} {
		t.Run(tt.plan.String(), func(t *testing.T) {
			s.t = t
			tr, upgrade := s.beginAuto(tt.plan, "--step", "10%:30s", "--step", "50%:30s", "--step", "100%:30s")
			tr.command = <-upgrade
			tr.result = upgradeResult(t, tr.command)
			tr.end()
			t.Logf("%s\n%s", tr.command.Stderr, tr.command.Stdout)

			assert.Equal(t, 1, tr.command.ExitCode)
			assert.Equal(t, control.OutcomeRolledBack, tr.result.Outcome)
			assert.Equal(t, control.PhaseStaged, tr.result.Phase)
			require.NotNil(t, tr.result.Error)
			assert.Equal(t, control.CodeRolledBack, tr.result.Error.Code)
			v := tr.result.Verdict
			require.NotNil(t, v)
			assert.Equal(t, control.VerdictBad, v.Verdict)
			assert.Contains(t, v.Reason, tt.reason)
			assert.Contains(t, tr.result.Error.Message, v.Reason)
			assert.Contains(t, tr.command.Stderr, "was rolled back at 10% of the new connections: "+v.Reason+"; generation")
			assert.Zero(t, v.Old.Errors)
			assert.Equal(t, v.Old.Period, v.New.Period)
			assert.GreaterOrEqual(t, v.New.Requests, uint64(50))
			tt.check(t, v)
			assert.Equal(t, []string{"10%"}, s.shares(tr.result.To), "it has had its first share, and no more")
			assert.InDelta(t, 0.1, float64(v.New.Requests)/float64(v.New.Requests+v.Old.Requests), 0.02)

			require.NotNil(t, tr.after.Last)
			assert.Equal(t, v, tr.after.Last.Verdict)
			var history []control.Entry
			require.NoError(t, json.Unmarshal([]byte(s.mustHdctl("history", "-n1", "-o", "json", "demo")), &history))
			require.Len(t, history, 1)
			assert.Equal(t, tr.result.To, history[0].To)
			assert.Equal(t, v, history[0].Verdict)
			failed := tr.report.Arrivals.Failed()
			delete(failed, load.Content) // the new version's own
			assert.Empty(t, failed, "%v", tr.report)
			assert.Equal(t, mainOf(t, tr.before).PID, s.MainPID(service), "the same process is main")
			tr.requireNoRestart()
			s.afterwards()
		})
	}
}

// TestAutoPromotesAGoodVersion has an automatic upgrade go through all of its steps.
func TestAutoPromotesAGoodVersion(t *testing.T) {
	s := newAutoTrials(t)
	tr, upgrade := s.beginAuto(fault.Plan{}, "--step", "20%:3s", "--step", "50%:2s", "--step", "100%:2s")
	tr.command = <-upgrade
	tr.result = upgradeResult(t, tr.command)
	tr.end()
	t.Logf("%s\n%s", tr.command.Stderr, tr.command.Stdout)

	assert.Equal(t, 0, tr.command.ExitCode)
	assert.Equal(t, control.OutcomeConfirmed, tr.result.Outcome)
	assert.Nil(t, tr.result.Error)
	require.NotNil(t, tr.result.Verdict)
	assert.Equal(t, control.VerdictGood, tr.result.Verdict.Verdict)
	assert.Positive(t, tr.result.Verdict.Old.Requests, "the whole time, for in the last step the old one gets nothing")
	assert.Equal(t, []string{"20%", "50%", "100%"}, s.shares(tr.result.To))
	assert.Equal(t, tr.result.ToPID, s.MainPID(service))
	tr.requireNoRestart()
	tr.assertAnswered(false)
	s.number, s.version = tr.result.To, tr.label
	s.afterwards()
}

// TestAutoIsInconclusiveWithoutRequests has nobody ask anything: that is neither good
// nor bad, and the old version stays.
func TestAutoIsInconclusiveWithoutRequests(t *testing.T) {
	t.Parallel()
	s := newTrials(t, nil)
	s.install(fault.Plan{})
	r := s.hdctl("upgrade", "-o", "json", "--auto", "--step", "5%:1s", "--step", "100%:1s", "demo")
	result := upgradeResult(t, r)
	assert.Equal(t, 1, r.ExitCode)
	assert.Equal(t, control.OutcomeInconclusive, result.Outcome)
	require.NotNil(t, result.Error)
	assert.Equal(t, control.CodeInconclusive, result.Error.Code)
	assert.Contains(t, result.Error.Message, "0 requests are too few, 50 are needed")
	assert.Contains(t, result.Error.Hint, "--min-requests")
	assert.Contains(t, r.Stderr, "was inconclusive, and rolled back at 5% of the new connections: 0 requests are too few")
	require.NotNil(t, result.Verdict)
	assert.Equal(t, control.VerdictInconclusive, result.Verdict.Verdict)
	assert.Equal(t, []string{"5%"}, s.shares(result.To))
	assert.Contains(t, s.mustHdctl("status", "demo"), "INCONCLUSIVE")
	assert.Contains(t, s.mustHdctl("history", "demo"), control.OutcomeInconclusive)
	s.afterwards()
}

// waitStep waits until an automatic upgrade is at a step.
func (s *trials) waitStep(what string, at func(control.Stage) bool) control.Status {
	s.t.Helper()
	var st control.Status
	s.WaitFor(s.t, what, func() bool {
		st = s.status()
		return st.Upgrade != nil && st.Upgrade.Stage != nil && at(*st.Upgrade.Stage)
	})
	return st
}

// automatic tells whether it decides by itself.
func automatic(stage control.Stage) bool { return stage.Auto != nil }

// TestOperatorInterruptsAuto has an operator pause an automatic upgrade, resume it,
// and decide in its place, in each way.
func TestOperatorInterruptsAuto(t *testing.T) {
	t.Parallel()
	s := newAutoTrials(t)
	t.Run("pause and resume", func(t *testing.T) {
		s.t = t
		tr, upgrade := s.beginAuto(fault.Plan{}, "--step", "30%:1s", "--step", "60%:1s")
		s.waitStep("the first step", automatic)
		s.mustHdctl("pause", "--reason", "the pager is mine", "demo")
		st := s.waitStep("it to be frozen", func(stage control.Stage) bool { return automatic(stage) && stage.Auto.Frozen })
		until := st.Upgrade.Stage.Auto.Until
		st = s.waitStep("twice the time of the step", func(stage control.Stage) bool {
			return stage.Auto.Until.After(until.Add(time.Second))
		})
		assert.Equal(t, 1, st.Upgrade.Stage.Auto.Step)
		assert.Equal(t, 30., st.Upgrade.Stage.Share)
		assert.Contains(t, s.mustHdctl("status", "demo"), "where it stays while upgrades are paused")
		s.mustHdctl("resume", "demo")
		tr.command = <-upgrade
		tr.result = upgradeResult(t, tr.command)
		tr.end()
		assert.Equal(t, 0, tr.command.ExitCode, "%s%s", tr.command.Stdout, tr.command.Stderr)
		assert.Equal(t, control.OutcomeConfirmed, tr.result.Outcome)
		assert.Equal(t, []string{"30%", "60%"}, s.shares(tr.result.To))
		tr.assertAnswered(false)
		s.number, s.version = tr.result.To, tr.label
	})
	for _, tt := range []struct {
		words   []string
		outcome string // of the upgrade, and of the word
		word    int    // exit status of the word
		code    int    // of the upgrade
		event   string
	}{
		{[]string{"promote", "--reason", "all is well"}, control.OutcomeConfirmed, 0, 0, "promoted and gets everything, via hdctl: all is well"},
		{[]string{"rollback", "--reason", "no"}, control.OutcomeRolledBack, 0, 1, "rolled back in staged: via hdctl: no"},
		{[]string{"promote", "--share", "70%"}, control.OutcomeStaged, 0, 0, "gets 70% of the new connections, via hdctl"},
	} {
		t.Run(strings.Join(tt.words, " "), func(t *testing.T) {
			s.t = t
			tr, upgrade := s.beginAuto(fault.Plan{}, "--step", "30%:1h")
			st := s.waitStep("the first step", automatic)
			to := st.Upgrade.To
			r := s.hdctl(append(tt.words, "-o", "json", "demo")...)
			assert.Equal(t, tt.word, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
			assert.Equal(t, tt.outcome, upgradeResult(t, r).Outcome)
			tr.command = <-upgrade
			tr.result = upgradeResult(t, tr.command)
			assert.Equal(t, tt.code, tr.command.ExitCode, "%s%s", tr.command.Stdout, tr.command.Stderr)
			assert.Equal(t, tt.outcome, tr.result.Outcome)
			assert.Equal(t, to, tr.result.To)
			assert.Nil(t, tr.result.Verdict, "an operator has decided")
			assert.Contains(t, s.mustHdctl("events", "demo"), tt.event)
			tr.end()
			tr.assertAnswered(false)
			switch tt.outcome {
			case control.OutcomeConfirmed:
				s.number, s.version = to, tr.label
			case control.OutcomeStaged:
				st := s.requireStaged(tr.result, 70)
				assert.Nil(t, st.Upgrade.Stage.Auto, "it decides nothing any more")
				assert.False(t, st.Upgrade.Stage.Deadline.IsZero(), "nor does it stay for ever")
				s.mustHdctl("rollback", "demo")
			}
			s.afterwards()
		})
	}
}
