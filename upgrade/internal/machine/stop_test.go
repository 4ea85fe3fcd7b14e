package machine_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"github.com/hdctl/handoff/upgrade/internal/machine"
)

func stopped(at machine.Phase) machine.Effect {
	return machine.Report{Outcome: machine.Stopped, At: at, Number: 2}
}

func TestMainIsStopped(t *testing.T) {
	goodbye := does(machine.TellStopping{}, machine.NotifyStopping{})
	end := does(machine.CloseGate{}, machine.Drain{Stop: true})
	for _, p := range []path{
		{"before it is ready", machine.First(atMostOne), []step{
			{machine.Stop{}, "main exited to stop", does(machine.TellStopping{}, machine.Exit{})},
		}},
		{"no candidate", at(machine.None), []step{
			{machine.Stop{}, "main draining to stop", and(goodbye, end)},
			{machine.Stop{}, "main draining to stop", nil},
			{machine.Drained{}, "main exited to stop", does(machine.Exit{})},
		}},
		{"a candidate is checked", at(machine.Preflight), []step{
			{machine.Stop{}, "main draining to stop, 2 preflight (stopped)", and(goodbye, does(machine.Cancel{}), calm, does(stopped(machine.Preflight)), end)},
			{machine.Checked{OK: true}, "main draining to stop", quiet},
		}},
		{"a candidate is started", at(machine.Spawning), []step{
			{machine.Stop{}, "main draining to stop, 2 spawning (stopped)", and(goodbye,
				does(machine.Cancel{}), calm, does(stopped(machine.Spawning)), end)},
			{machine.Spawned{OK: true}, "main draining to stop, 2 dying (stopped)", kill2},
			{machine.PeerGone{Number: 2}, "main draining to stop", quiet},
		}},
		{"a candidate has accepted nothing", at(machine.Preparing), []step{
			{machine.Stop{}, "main draining to stop, 2 dying (stopped)", and(goodbye, does(machine.Kill{Number: 2}), calm, does(stopped(machine.Preparing)), end)},
		}},
		{"a candidate may accept: it says goodbye as well", at(machine.Opening), []step{
			{machine.Stop{}, "main draining to stop, 2 dying (stopped)", and(goodbye, calm, does(stopped(machine.Opening)), end)},
			{machine.CandidateServing{}, "main draining to stop, 2 dying (stopped)", nil},
			{machine.PeerGone{Number: 2}, "main draining to stop", quiet},
		}},
		{"a candidate on probation: no fall back", at(machine.Probation), []step{
			{machine.Stop{}, "main draining to stop, 2 dying (stopped)", and(goodbye, calm, does(stopped(machine.Probation)), does(machine.Drain{Stop: true}))},
			{machine.PeerStopping{Number: 2}, "main draining to stop, 2 dying (stopped)", nil},
			{machine.PeerGone{Number: 2}, "main draining to stop", quiet},
		}},
		{"systemd is being told of the candidate", at(machine.Notifying), []step{
			{machine.Stop{}, "main draining to stop, 2 dying (stopped)", and(goodbye, calm, does(stopped(machine.Notifying)), does(machine.Drain{Stop: true}))},
			{machine.Notified{Number: 2, OK: true}, "main draining to stop, 2 dying (stopped)", nil},
		}},
		{"a candidate was doomed: the answer is the stop", after(at(machine.Preparing), machine.Fired{Timer: machine.ReadyTimer}), []step{
			{machine.Stop{}, "main draining to stop, 2 dying (stopped)", and(goodbye, calm, does(stopped(machine.Preparing)), end)},
			{machine.Fired{Timer: machine.KillTimer}, "main draining to stop, 2 dying (stopped)", nil},
		}},
	} {
		t.Run(p.name, p.test)
	}
}

func TestCandidateIsStopped(t *testing.T) {
	stopping, gone := machine.PeerStopping{Number: 2}, machine.PeerGone{Number: 2}
	for _, p := range []path{
		{"before it accepts", at(machine.Preparing), []step{
			{stopping, "main serving, 2 dying (failed)", kill2},
			{gone, "main serving", report(machine.Failed, machine.Preparing)},
		}},
		{"on probation", at(machine.Probation), []step{
			{stopping, "main serving, 2 dying (failed)", and(calm, does(machine.Arm{Timer: machine.GoodbyeTimer}, machine.OpenGate{}))},
			{gone, "main serving", report(machine.Failed, machine.Probation)},
		}},
		{"on probation, and does not end", after(at(machine.Probation), stopping), []step{
			{machine.Fired{Timer: machine.GoodbyeTimer}, "main serving, 2 dying (failed)", kill2},
		}},
		{"when systemd holds it for main: the service stops", at(machine.Notifying), []step{
			{stopping, "main parked, 2 notifying", nil},
			{machine.Notified{Number: 2, OK: true}, "draining to stop, follows 2", does(machine.Yield{}, machine.TellPromoted{Number: 2},
				machine.TellStopping{}, stopped(machine.Notifying), machine.Drain{Stop: true})},
		}},
		{"when systemd holds it for main, and it is gone first", after(at(machine.Notifying), stopping), []step{
			{gone, "main serving, 2 reclaiming (fell-back)", does(machine.OpenGate{})},
		}},
		{"itself, not ready", young(machine.Starting), []step{
			{machine.Stop{}, "exited to stop, follows 1", does(machine.TellStopping{}, machine.Exit{})},
		}},
		{"itself, on probation", young(machine.Serving), []step{
			{machine.Stop{}, "draining to stop, follows 1", does(machine.TellStopping{}, machine.CloseGate{}, machine.Drain{Stop: true})},
			{machine.PeerGone{Number: 1}, "draining to stop, follows 1", nil}, // a death close to a stop is a stop
		}},
		{"itself, and is promoted after that", after(young(machine.Serving), machine.Stop{}), []step{
			{machine.Promoted{}, "main draining to stop, drainers [1]", does(machine.Lead{}, machine.NotifyStopping{})},
		}},
	} {
		t.Run(p.name, p.test)
	}
}

func TestPredecessorStopsOrDies(t *testing.T) {
	stopping, gone := machine.PeerStopping{Number: 1}, machine.PeerGone{Number: 1}
	for _, p := range []path{
		{"stops before we accept", young(machine.Waiting), []step{
			{stopping, "exited to stop, follows 1", does(machine.Exit{Orphaned: true})},
		}},
		{"stops when we accept", young(machine.Serving), []step{
			{stopping, "draining to stop, follows 1", does(machine.CloseGate{}, machine.Drain{Stop: true})},
		}},
		{"dies before we are ready", young(machine.Starting), []step{{gone, "exited, follows 1", does(machine.Exit{Orphaned: true})}}},
		{"dies before we accept", young(machine.Waiting), []step{{gone, "exited, follows 1", does(machine.Exit{Orphaned: true})}}},
		{"dies in our probation", young(machine.Serving), []step{
			{gone, "main serving", does(machine.Lead{}, machine.NotifyMain{Number: 2})},
			{machine.Notified{Number: 2, OK: true}, "main serving", nil},
		}},
		{"dies in our probation, and systemd answers late", after(young(machine.Serving), append([]machine.Event{gone}, goodUpgrade...)...), []step{
			{machine.Notified{Number: 2, OK: true}, "main parked, 3 notifying", nil}, // that was about us
			{machine.PeerGone{Number: 3}, "main serving, 3 reclaiming (fell-back)", does(machine.OpenGate{})},
			{machine.Notified{Number: 3, OK: true, Gone: true}, "main serving, 3 restoring (fell-back)", does(machine.NotifyMain{Number: 2})},
		}},
	} {
		t.Run(p.name, p.test)
	}
}

func TestDrainer(t *testing.T) {
	drainer := after(at(machine.Notifying), machine.Notified{Number: 2, OK: true})
	for _, p := range []path{
		{"main stops", drainer, []step{
			{machine.PeerStopping{Number: 2}, "draining to stop, follows 2", does(machine.TellStopping{}, machine.Drain{Stop: true})},
			{machine.PeerGone{Number: 2}, "draining to stop, follows 2", nil},
			{machine.Drained{}, "exited to stop, follows 2", does(machine.Exit{})},
		}},
		{"another drainer stops", after(drainer, machine.Met{Number: 3}), []step{
			{machine.PeerStopping{Number: 2}, "draining, follows 3", nil}, // it is no reserve any more
		}},
		{"it is stopped, and meets a new main", drainer, []step{
			{machine.Stop{}, "draining to stop, follows 2", does(machine.TellStopping{}, machine.Drain{Stop: true})},
			{machine.Met{Number: 3}, "draining to stop, follows 3 or 2", does(machine.TellStopping{})},
		}},
		{"main hears that a drainer stops", mainWithDrainers, []step{
			{machine.PeerStopping{Number: 1}, "main serving, drainers [1 2]", nil},
			{machine.PeerGone{Number: 1}, "main serving, drainers [2]", nil},
		}},
		{"who becomes main while it stops tells the drainers that it meets", after(young(machine.Serving), machine.Stop{}), []step{
			{machine.Met{Number: 1}, "draining to stop, follows 1", does(machine.TellStopping{})},
		}},
	} {
		t.Run(p.name, p.test)
	}
}

// anyEvent draws an event, sensible or not.
func anyEvent(t *rapid.T) machine.Event {
	number, yes := rapid.IntRange(0, 4).Draw(t, "number"), rapid.Bool().Draw(t, "yes")
	return rapid.SampledFrom([]machine.Event{
		machine.Ready{},
		machine.Stop{},
		machine.Upgrade{Stage: yes},
		machine.Promote{Manual: yes},
		machine.Confirm{},
		machine.Rollback{},
		machine.Hold{},
		machine.Release{},
		machine.Drained{},
		machine.Fired{Timer: machine.Timer(rapid.IntRange(0, int(machine.RetireTimer)).Draw(t, "timer"))},
		machine.Checked{OK: yes},
		machine.Spawned{OK: yes},
		machine.Greeted{OK: yes},
		machine.CandidateReady{Late: yes},
		machine.CandidateStaged{},
		machine.CandidateServing{},
		machine.Notified{Number: number, OK: yes},
		machine.PeerStopping{Number: number},
		machine.PeerGone{Number: number, TooLate: yes},
		machine.Hung{Number: number, TooLate: yes},
		machine.Retired{Number: number},
		machine.Numbered{Number: number, Next: number, Covered: yes},
		machine.StageNow{},
		machine.ServeNow{},
		machine.Retire{},
		machine.Promoted{},
		machine.Met{Number: number},
		machine.Hurried{},
	}).Draw(t, "event")
}

// Whatever happens, sensible or not: a step does not touch the state that it is
// given, a stop is never taken back, an exit is the end, the next number never falls,
// and nothing but serving goes on behind a door that is held.
func TestAnyEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.SampledFrom([]machine.State{
			at(machine.None), at(machine.Probation), staging(machine.OnStage), young(machine.Staged), young(machine.Serving),
			after(at(machine.Notifying), machine.Notified{Number: 2, OK: true}), mainWithDrainers, full(onlyOne),
		}).Draw(t, "from")
		for range 30 {
			e := anyEvent(t)
			before := s
			before.Drainers = append([]int(nil), s.Drainers...)
			before.Hurried = append([]int(nil), s.Hurried...)
			next, effects := machine.Step(s, e)
			if summary(s) != summary(before) || len(s.Hurried) != len(before.Hurried) {
				t.Fatalf("%T%+v changed the state it was given", e, e)
			}
			if s.Stopping && !next.Stopping {
				t.Fatalf("%T%+v took back a stop", e, e)
			}
			if next.Next < s.Next {
				t.Fatalf("%T%+v gives numbers away twice", e, e)
			}
			if next.Held && (next.Life != machine.Serving || !next.Main || next.Stopping || next.Candidate.Phase != machine.None) {
				t.Fatalf("after %T%+v: %v", e, e, summary(next))
			}
			if s.Life == machine.Exited {
				assert.Empty(t, effects)
				assert.Equal(t, s, next)
			}
			s = next
		}
	})
}
