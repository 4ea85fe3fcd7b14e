package machine_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// endShare is what is done first, whatever ends a candidate's time on stage.
var endShare = does(machine.EndShare{})

// retire2 is what becomes of a candidate that is rolled back and may have clients.
func retire2(at machine.Phase) []machine.Effect {
	return and(does(machine.TellRetire{Number: 2}, machine.Arm{Timer: machine.RetireTimer}), report(machine.RolledBack, at))
}

func TestStagedUpgrade(t *testing.T) {
	for _, p := range []path{
		{"the old generation", at(machine.None), []step{
			{machine.Upgrade{Stage: true}, "main serving, 2 preflight", begin},
			{machine.Checked{OK: true}, "main serving, 2 spawning", does(machine.Spawn{Number: 2})},
			{machine.Spawned{OK: true}, "main serving, 2 greeting", nil},
			{machine.Greeted{OK: true}, "main serving, 2 preparing", nil},
			{machine.CandidateReady{}, "main serving, 2 staging", does(machine.Disarm{Timer: machine.ReadyTimer}, machine.Disarm{Timer: machine.RequestTimer},
				machine.Arm{Timer: machine.OpenTimer}, machine.TellStage{Number: 2})},
			{machine.CandidateStaged{}, "main serving, 2 on stage", does(machine.Disarm{Timer: machine.OpenTimer}, machine.Arm{Timer: machine.StageTimer}, machine.Share{})},
			{machine.Promote{}, "main serving, 2 opening", does(machine.EndShare{}, machine.Disarm{Timer: machine.StageTimer},
				machine.Arm{Timer: machine.OpenTimer}, machine.TellServe{Number: 2})},
			{machine.CandidateServing{}, "main parked, 2 probation", does(machine.Disarm{Timer: machine.OpenTimer},
				machine.CloseGate{}, machine.Arm{Timer: machine.ProbationTimer})},
			{machine.Fired{Timer: machine.ProbationTimer}, "main parked, 2 notifying", does(machine.NotifyMain{Number: 2})},
		}},
		{"the new generation", young(machine.Waiting), []step{
			{machine.StageNow{}, "staged, follows 1", does(machine.TellStaged{})},
			{machine.StageNow{}, "staged, follows 1", nil},
			{machine.Promoted{}, "staged, follows 1", nil}, // never said: it does not accept
			{machine.ServeNow{}, "serving, follows 1", does(machine.OpenGate{}, machine.TellServing{})},
			{machine.StageNow{}, "serving, follows 1", nil},
			{machine.Promoted{}, "main serving, drainers [1]", does(machine.Lead{})},
		}},
		{"a probation without an end", staging(machine.OnStage), []step{
			{machine.Promote{Manual: true}, "main serving, 2 opening", does(machine.EndShare{}, machine.Disarm{Timer: machine.StageTimer},
				machine.Arm{Timer: machine.OpenTimer}, machine.TellServe{Number: 2})},
			{machine.CandidateServing{}, "main parked, 2 probation", does(machine.Disarm{Timer: machine.OpenTimer}, machine.CloseGate{})},
			{machine.Confirm{}, "main parked, 2 notifying", does(machine.NotifyMain{Number: 2})},
			{machine.Confirm{}, "main parked, 2 notifying", nil},
		}},
		{"a probation that is ended before its time", at(machine.Probation), []step{
			{machine.Confirm{}, "main parked, 2 notifying", does(machine.NotifyMain{Number: 2})},
			{machine.Fired{Timer: machine.ProbationTimer}, "main parked, 2 notifying", nil},
		}},
		{"a stage that lasts too long", staging(machine.OnStage), []step{
			{machine.Fired{Timer: machine.StageTimer}, "main serving, drainers [2], 2 retires", and(endShare, retire2(machine.OnStage))},
		}},
	} {
		t.Run(p.name, p.test)
	}
}

// What concerns a stage, and comes at another time, means nothing.
func TestStageEventsMeanNothing(t *testing.T) {
	from := map[string]machine.State{
		"not ready":    machine.First(atMostOne),
		"on probation": young(machine.Serving),
		"draining":     after(at(machine.Notifying), machine.Notified{Number: 2, OK: true}),
		"stopping":     after(at(machine.None), machine.Stop{}),
	}
	for phase := machine.None; phase <= machine.Notifying; phase++ {
		if phase != machine.OnStage {
			from[phase.String()] = staging(phase)
		}
	}
	for name, s := range from {
		t.Run(name, func(t *testing.T) {
			events := []machine.Event{
				machine.Promote{},
				machine.Promote{Manual: true},
				machine.Fired{Timer: machine.StageTimer},
				machine.Fired{Timer: machine.RetireTimer},
				machine.StageNow{},
				machine.Retired{Number: 2},
			}
			if s.Candidate.Phase != machine.Staging {
				events = append(events, machine.CandidateStaged{})
			}
			if s.Candidate.Phase != machine.Probation {
				events = append(events, machine.Confirm{}, machine.Fired{Timer: machine.ProbationTimer})
			}
			if c := s.Candidate.Phase; c == machine.None || c == machine.Notifying {
				events = append(events, machine.Rollback{})
			}
			for _, e := range events {
				next, effects := machine.Step(s, e)
				assert.Equal(t, s, next, "%T", e)
				assert.Empty(t, effects, "%T", e)
			}
		})
	}
}

func TestStagedCandidateFails(t *testing.T) {
	gone, hung, stopping := machine.PeerGone{Number: 2}, machine.Hung{Number: 2}, machine.PeerStopping{Number: 2}
	for _, p := range []path{
		{"it does not open the way", staging(machine.Staging), []step{
			{machine.Fired{Timer: machine.ReadyTimer}, "main serving, 2 staging", nil},
			{machine.Fired{Timer: machine.OpenTimer}, "main serving, 2 dying (timed-out)", kill2},
			{machine.CandidateStaged{}, "main serving, 2 dying (timed-out)", nil}, // too late
			{gone, "main serving", report(machine.TimedOut, machine.Staging)},
		}},
		{"it dies before it is on stage", staging(machine.Staging), []step{
			{gone, "main serving", report(machine.Failed, machine.Staging)},
		}},
		{"it is stopped before it is on stage", staging(machine.Staging), []step{
			{stopping, "main serving, 2 dying (failed)", kill2},
		}},
		{"it is not on stage yet: its silence has a timer", staging(machine.Staging), []step{
			{hung, "main serving, 2 staging", nil},
		}},
		{"it dies on stage", staging(machine.OnStage), []step{
			{gone, "main serving", and(endShare, report(machine.Failed, machine.OnStage))},
			{machine.Upgrade{}, "main serving, 3 preflight", begin},
		}},
		{"it hangs on stage", staging(machine.OnStage), []step{
			{hung, "main serving, 2 dying (failed)", and(endShare, kill2)},
			{gone, "main serving", report(machine.Failed, machine.OnStage)},
		}},
		{"it is stopped on stage, and says goodbye", staging(machine.OnStage), []step{
			{stopping, "main serving, 2 dying (failed)", and(endShare, calm, does(machine.Arm{Timer: machine.GoodbyeTimer}))},
			{hung, "main serving, 2 dying (failed)", nil}, // that has a timer
			{gone, "main serving", report(machine.Failed, machine.OnStage)},
		}},
		{"it hangs on probation: fence first", at(machine.Probation), []step{
			{hung, "main serving, 2 dying (fell-back)", and(kill2, does(machine.OpenGate{}))},
			{gone, "main serving", report(machine.FellBack, machine.Probation)},
		}},
		{"it hangs while systemd is told: fence first, and reclaim", at(machine.Notifying), []step{
			{hung, "main serving, 2 reclaiming (fell-back)", does(machine.Kill{Number: 2}, machine.OpenGate{})},
			{gone, "main serving, 2 reclaiming (fell-back)", nil},
			{machine.Notified{Number: 2, OK: true}, "main serving, 2 restoring (fell-back)", does(machine.NotifyMain{Number: 1})},
			{machine.Notified{Number: 1, OK: true}, "main serving", report(machine.FellBack, machine.Notifying)},
		}},
		{"who leads dies: the one on stage takes over", young(machine.Staged), []step{
			{machine.PeerGone{Number: 1}, "main serving", does(machine.OpenGate{}, machine.Lead{}, machine.NotifyMain{Number: 2})},
		}},
		{"a stop on stage", staging(machine.OnStage), []step{
			{
				machine.Stop{},
				"main draining to stop, 2 dying (stopped)",
				and(does(machine.TellStopping{}, machine.NotifyStopping{}), endShare, calm, does(stopped(machine.OnStage), machine.CloseGate{}, machine.Drain{Stop: true})),
			},
			{machine.Rollback{}, "main draining to stop, 2 dying (stopped)", nil},
			{hung, "main draining to stop, 2 dying (stopped)", nil},
			{gone, "main draining to stop", quiet},
		}},
		{"a stop before it is on stage", staging(machine.Staging), []step{
			{
				machine.Stop{},
				"main draining to stop, 2 dying (stopped)",
				and(does(machine.TellStopping{}, machine.NotifyStopping{}, machine.Kill{Number: 2}), calm, does(stopped(machine.Staging), machine.CloseGate{}, machine.Drain{Stop: true})),
			},
		}},
		{"a stop of itself, on stage", young(machine.Staged), []step{
			{machine.Stop{}, "draining to stop, follows 1", does(machine.TellStopping{}, machine.Drain{Stop: true})},
			{machine.ServeNow{}, "draining to stop, follows 1", nil},
		}},
		{"a stop of who leads, on stage", young(machine.Staged), []step{
			{machine.PeerStopping{Number: 1}, "draining to stop, follows 1", does(machine.Drain{Stop: true})},
		}},
	} {
		t.Run(p.name, p.test)
	}
}

func TestRollback(t *testing.T) {
	cancel := does(machine.Cancel{}, machine.Arm{Timer: machine.KillTimer})
	gone, back := machine.PeerGone{Number: 2}, machine.Rollback{}
	for _, p := range []path{
		{"of a check", at(machine.Preflight), []step{
			{back, "main serving, 2 preflight (rolled-back)", cancel},
			{back, "main serving, 2 preflight (rolled-back)", nil},
			{machine.Checked{OK: true}, "main serving", report(machine.RolledBack, machine.Preflight)},
		}},
		{"of a start", at(machine.Spawning), []step{
			{back, "main serving, 2 spawning (rolled-back)", cancel},
			{machine.Spawned{OK: true}, "main serving, 2 dying (rolled-back)", kill2},
			{gone, "main serving", report(machine.RolledBack, machine.Spawning)},
		}},
		{"of who has said nothing", at(machine.Greeting), []step{
			{back, "main serving, 2 dying (rolled-back)", kill2},
		}},
		{"of who is not ready", at(machine.Preparing), []step{
			{back, "main serving, 2 dying (rolled-back)", kill2},
			{gone, "main serving", report(machine.RolledBack, machine.Preparing)},
		}},
		{"of who is not on stage yet", staging(machine.Staging), []step{
			{back, "main serving, 2 dying (rolled-back)", kill2},
		}},
		{"of who is on stage", staging(machine.OnStage), []step{
			{back, "main serving, drainers [2], 2 retires", and(endShare, retire2(machine.OnStage))},
			{machine.Retired{Number: 2}, "main serving, drainers [2]", does(machine.Disarm{Timer: machine.RetireTimer})},
			{machine.Fired{Timer: machine.RetireTimer}, "main serving, drainers [2]", nil},
			{gone, "main serving", nil},
		}},
		{"of who may accept", at(machine.Opening), []step{
			{back, "main serving, drainers [2], 2 retires", retire2(machine.Opening)},
			{machine.CandidateServing{}, "main serving, drainers [2], 2 retires", nil}, // said before it heard
			{gone, "main serving", does(machine.Disarm{Timer: machine.RetireTimer})},
		}},
		{"of who is on probation", at(machine.Probation), []step{
			{back, "main serving, drainers [2], 2 retires", and(does(machine.OpenGate{}), retire2(machine.Probation))},
			{machine.Fired{Timer: machine.ProbationTimer}, "main serving, drainers [2], 2 retires", nil},
			{machine.Fired{Timer: machine.RetireTimer}, "main serving, drainers [2]", does(machine.Kill{Number: 2})}, // it does not hear
			{machine.Fired{Timer: machine.RetireTimer}, "main serving, drainers [2]", nil},
		}},
		{"of who has failed already", after(at(machine.Probation), machine.PeerStopping{Number: 2}), []step{
			{back, "main serving, 2 dying (failed)", nil},
		}},
		{"and the next upgrade: only one child at a time", after(at(machine.Probation), back), []step{
			{machine.Upgrade{}, "main serving, 3 preflight, drainers [2], 2 retires", and(
				does(machine.TellNumbers{Number: 2, Next: 4}, machine.TellHurry{Number: 2}), begin)},
			{machine.Checked{}, "main serving, drainers [2], 2 retires", and(
				quiet, does(machine.Report{Outcome: machine.Failed, At: machine.Preflight, Number: 3}))},
			{machine.Upgrade{}, "main serving, 4 preflight, drainers [2], 2 retires", and(
				does(machine.TellNumbers{Number: 2, Next: 5}), begin)}, // it hurries as it is
		}},
		{"and a stop", after(at(machine.Probation), back), []step{
			{machine.Stop{}, "main draining to stop, drainers [2], 2 retires", does(
				machine.TellStopping{}, machine.NotifyStopping{}, machine.CloseGate{}, machine.Drain{Stop: true})},
			{machine.Retired{Number: 2}, "main draining to stop, drainers [2]", does(machine.Disarm{Timer: machine.RetireTimer})},
		}},
		{"makes one more drainer: the oldest hurries", until(machine.Opening, full(atMostOne), goodUpgrade), []step{
			{back, "main serving, drainers [1 3], 3 retires", and(
				does(machine.TellRetire{Number: 3}, machine.Arm{Timer: machine.RetireTimer}, machine.TellNumbers{Number: 1, Next: 4}, machine.TellHurry{Number: 1}),
				quiet, does(machine.Report{Outcome: machine.RolledBack, At: machine.Opening, Number: 3}))},
		}},
	} {
		t.Run(p.name, p.test)
	}
}

func TestRetire(t *testing.T) {
	for _, p := range []path{
		{"on stage", young(machine.Staged), []step{
			{machine.Retire{}, "draining, follows 1", does(machine.Drain{})},
			{machine.Retire{}, "draining, follows 1", nil},
			{machine.ServeNow{}, "draining, follows 1", nil},
			{machine.Hurried{}, "draining, follows 1", does(machine.Hasten{})},
			{machine.Drained{}, "exited, follows 1", does(machine.Exit{})},
		}},
		{"on probation", young(machine.Serving), []step{
			{machine.Retire{}, "draining, follows 1", does(machine.CloseGate{}, machine.Drain{})},
			{machine.PeerStopping{Number: 1}, "draining to stop, follows 1", does(machine.TellStopping{}, machine.Drain{Stop: true})},
		}},
		{"and who leads dies", after(young(machine.Serving), machine.Retire{}), []step{
			{machine.PeerGone{Number: 1}, "exited, follows 1", does(machine.Exit{Abandoned: true})},
		}},
		{"and who leads hands over", after(young(machine.Serving), machine.Retire{}), []step{
			{machine.Met{Number: 3}, "draining, follows 3 or 1", nil},
			{machine.PeerGone{Number: 3}, "draining, follows 1, covered", nil}, // 1 serves again
			{machine.Numbered{Number: 1, Next: 5}, "draining, follows 1", nil},
			{machine.PeerGone{Number: 1}, "exited, follows 1", does(machine.Exit{Abandoned: true})},
		}},
		{"before it accepts", young(machine.Waiting), []step{
			{machine.Retire{}, "exited, follows 1", does(machine.Exit{Orphaned: true})},
		}},
		{"while it stops", after(young(machine.Serving), machine.Stop{}), []step{
			{machine.Retire{}, "draining to stop, follows 1", nil},
		}},
		{"as main: never said", full(atMostOne), []step{
			{machine.Retire{}, "main serving, drainers [1]", nil},
		}},
	} {
		t.Run(p.name, p.test)
	}
}
