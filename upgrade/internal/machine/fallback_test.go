package machine_test

import (
	"testing"

	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// drainer1 is generation 1, which has handed over to 2; drainer2 is generation 2,
// which has handed over to 3 while 1 drains.
var (
	drainer1 = after(at(machine.Notifying), machine.Notified{Number: 2, OK: true})
	drainer2 = after(until(machine.Notifying, full(atMostOne), goodUpgrade), machine.Notified{Number: 3, OK: true})
)

// again is what a generation does that takes the place of gone again.
func again(self, gone int) []machine.Effect {
	return does(machine.TakeBack{Number: gone}, machine.OpenGate{}, machine.Lead{}, machine.NotifyMain{Number: self})
}

func TestLateFallBack(t *testing.T) {
	abandoned := does(machine.Exit{Abandoned: true})
	for _, p := range []path{
		{"main dies", drainer1, []step{
			{machine.PeerGone{Number: 2}, "main serving", again(1, 2)},
			{machine.Notified{Number: 1, OK: true}, "main serving", nil},
			{machine.Drained{}, "main serving", nil}, // that was under way
			{machine.Hurried{}, "main serving", nil},
			{machine.Upgrade{}, "main serving, 3 preflight", begin},
		}},
		{"main hangs: fence first", drainer1, []step{
			{machine.Hung{Number: 2}, "main serving", and(does(machine.Kill{Number: 2}), again(1, 2))},
			{machine.PeerGone{Number: 2}, "main serving", nil},
			{machine.Hung{Number: 2}, "main serving", nil},
		}},
		{"main dies, too late", drainer1, []step{
			{machine.PeerGone{Number: 2, TooLate: true}, "exited, follows 2", abandoned},
		}},
		{"main hangs, too late: it is reported, and systemd's watchdog decides", drainer1, []step{
			{machine.Hung{Number: 2, TooLate: true}, "draining, follows 2", nil},
		}},
		{"main stops, and dies of it: no fall back because of a stop", drainer1, []step{
			{machine.PeerStopping{Number: 2}, "draining to stop, follows 2", does(machine.TellStopping{}, machine.Drain{Stop: true})},
			{machine.Hung{Number: 2}, "draining to stop, follows 2", nil},
			{machine.PeerGone{Number: 2}, "draining to stop, follows 2", nil},
		}},
		{"we stop, and main dies: no fall back because of a stop", after(drainer1, machine.Stop{}), []step{
			{machine.PeerGone{Number: 2}, "draining to stop, follows 2", nil},
		}},
		{"a stop afterwards", after(drainer1, machine.PeerGone{Number: 2}), []step{
			{machine.Stop{}, "main draining to stop", does(machine.TellStopping{}, machine.NotifyStopping{}, machine.CloseGate{}, machine.Drain{Stop: true})},
		}},
		{"a hold afterwards", after(drainer1, machine.PeerGone{Number: 2}), []step{
			{machine.Hold{}, "main serving behind a closed door", does(machine.CloseGate{}, machine.HoldDrain{})},
		}},
		{"numbers that were used meanwhile are used up", drainer1, []step{
			{machine.Numbered{Number: 2, Next: 5}, "draining, follows 2", nil},
			{machine.Numbered{Number: 2, Next: 4}, "draining, follows 2", nil},
			{machine.PeerGone{Number: 2}, "main serving", again(1, 2)},
			{machine.Upgrade{}, "main serving, 5 preflight", begin},
		}},
		{"main dies, and has a candidate that serves", drainer1, []step{
			{machine.Numbered{Number: 2, Next: 4, Covered: true}, "draining, follows 2, covered", nil},
			{machine.PeerGone{Number: 2}, "exited, follows 2, covered", abandoned},
		}},
		{"main hangs, and has a candidate that serves: fence", after(drainer1, machine.Numbered{Number: 2, Next: 4, Covered: true}), []step{
			{machine.Hung{Number: 2}, "draining, follows 2, covered", does(machine.Kill{Number: 2})},
			{machine.PeerGone{Number: 2, TooLate: true}, "exited, follows 2, covered", abandoned},
		}},
		{"main dies, and has had a candidate that served", after(drainer1, machine.Numbered{Number: 2, Next: 4, Covered: true}), []step{
			{machine.Numbered{Number: 2, Next: 4}, "draining, follows 2", nil},
			{machine.PeerGone{Number: 2}, "main serving", again(1, 2)},
		}},
		{"the candidate becomes main", after(drainer1, machine.Numbered{Number: 2, Next: 4, Covered: true}), []step{
			{machine.Met{Number: 3}, "draining, follows 3 or 2", nil},
		}},
	} {
		t.Run(p.name, p.test)
	}
}

// 1 and 2 drain, and 3 is main. Only 2 has started 3.
func TestLateFallBackOfThree(t *testing.T) {
	first := after(drainer1, machine.Met{Number: 3})
	abandoned := does(machine.Exit{Abandoned: true})
	for _, p := range []path{
		{"3 dies: 2 serves again", drainer2, []step{
			{machine.PeerGone{Number: 3}, "main serving, drainers [1]", and(again(2, 3), does(machine.TellNumbers{Number: 1, Next: 4}))},
			{machine.PeerGone{Number: 1}, "main serving", nil},
		}},
		{"3 dies: 1 follows 2, and is its heir once it serves", first, []step{
			{machine.PeerGone{Number: 3}, "draining, follows 2, covered", nil},
			{machine.Numbered{Number: 2, Next: 4}, "draining, follows 2", nil},
			{machine.PeerGone{Number: 2}, "main serving", again(1, 2)},
		}},
		{"3 dies: 2 is faster than the news", first, []step{
			{machine.Numbered{Number: 2, Next: 4}, "draining, follows 2", nil},
			{machine.PeerGone{Number: 3}, "draining, follows 2", nil},
			{machine.PeerGone{Number: 2}, "main serving", again(1, 2)},
		}},
		{"3 and 2 die", first, []step{
			{machine.PeerGone{Number: 3}, "draining, follows 2, covered", nil},
			{machine.PeerGone{Number: 2}, "exited, follows 2, covered", abandoned},
		}},
		{"2 has drained, and 3 dies", first, []step{
			{machine.PeerGone{Number: 2}, "draining, follows 3", nil},
			{machine.PeerGone{Number: 3}, "exited, follows 3", abandoned},
		}},
		{"2 is stopped, and 3 dies", first, []step{
			{machine.PeerStopping{Number: 2}, "draining, follows 3", nil},
			{machine.PeerGone{Number: 3}, "exited, follows 3", abandoned},
		}},
		{"3 dies, and 2 is stopped", first, []step{
			{machine.PeerGone{Number: 3}, "draining, follows 2, covered", nil},
			{machine.PeerStopping{Number: 2}, "draining to stop, follows 2, covered", does(machine.TellStopping{}, machine.Drain{Stop: true})},
			{machine.PeerGone{Number: 2}, "draining to stop, follows 2, covered", nil},
		}},
		{"3 hangs: it is for 2 to see to that", first, []step{
			{machine.Hung{Number: 3}, "draining, follows 3 or 2", nil},
		}},
		{"2 serves again, and hands over to 4", after(first, machine.PeerGone{Number: 3}, machine.Numbered{Number: 2, Next: 5}), []step{
			{machine.Met{Number: 4}, "draining, follows 4 or 2", nil},
			{machine.PeerStopping{Number: 4}, "draining to stop, follows 4 or 2", does(machine.TellStopping{}, machine.Drain{Stop: true})},
		}},
	} {
		t.Run(p.name, p.test)
	}
}

// Main tells the drainers, any of which may have to go on, before it uses a number,
// before its candidate could take its place, and when that cannot any more.
func TestDrainersAreToldWhatTheyNeed(t *testing.T) {
	news := func(covered bool) []machine.Effect {
		return does(machine.TellNumbers{Number: 1, Next: 4, Covered: covered})
	}
	gone, failed := machine.PeerGone{Number: 3}, func(o machine.Outcome, at machine.Phase) []machine.Effect {
		return and(quiet, does(machine.Report{Outcome: o, At: at, Number: 3}))
	}
	kill3 := and(calm, does(machine.Kill{Number: 3}, machine.Arm{Timer: machine.KillTimer}))
	opening := until(machine.Opening, full(atMostOne), goodUpgrade)
	onStage := until(machine.OnStage, full(atMostOne), stagedUpgrade)
	for _, p := range []path{
		{"to the confirm", full(atMostOne), []step{
			{machine.Upgrade{}, "main serving, 3 preflight, drainers [1]", and(news(false), begin)},
			{machine.Checked{OK: true}, "main serving, 3 spawning, drainers [1]", does(machine.Spawn{Number: 3})},
			{machine.Spawned{OK: true}, "main serving, 3 greeting, drainers [1]", nil},
			{machine.Greeted{OK: true}, "main serving, 3 preparing, drainers [1]", nil},
			{machine.CandidateReady{}, "main serving, 3 opening, drainers [1]", and(news(true), does(machine.Disarm{Timer: machine.ReadyTimer},
				machine.Disarm{Timer: machine.RequestTimer}, machine.Arm{Timer: machine.OpenTimer}, machine.TellServe{Number: 3}))},
			{machine.CandidateServing{}, "main parked, 3 probation, drainers [1]", does(machine.Disarm{Timer: machine.OpenTimer},
				machine.CloseGate{}, machine.Arm{Timer: machine.ProbationTimer})},
		}},
		{"to the stage", until(machine.Preparing, full(atMostOne), stagedUpgrade), []step{
			{machine.CandidateReady{}, "main serving, 3 staging, drainers [1]", and(news(true), does(machine.Disarm{Timer: machine.ReadyTimer},
				machine.Disarm{Timer: machine.RequestTimer}, machine.Arm{Timer: machine.OpenTimer}, machine.TellStage{Number: 3}))},
		}},
		{"to a death", opening, []step{
			{gone, "main serving, drainers [1]", and(news(false), failed(machine.Failed, machine.Opening))},
		}},
		{"to a death on probation: the door first", until(machine.Probation, full(atMostOne), goodUpgrade), []step{
			{gone, "main serving, drainers [1]", and(does(machine.OpenGate{}), news(false), failed(machine.FellBack, machine.Probation))},
		}},
		{"to a death while systemd is told", until(machine.Notifying, full(atMostOne), goodUpgrade), []step{
			{gone, "main serving, 3 reclaiming (fell-back), drainers [1]", and(does(machine.OpenGate{}), news(false))},
		}},
		{"to a kill", opening, []step{
			{machine.Fired{Timer: machine.OpenTimer}, "main serving, 3 dying (timed-out), drainers [1]", and(kill3, news(false))},
			{gone, "main serving, drainers [1]", failed(machine.TimedOut, machine.Opening)},
		}},
		{"to a SIGTERM", onStage, []step{
			{machine.PeerStopping{Number: 3}, "main serving, 3 dying (failed), drainers [1]", and(
				endShare, news(false), calm, does(machine.Arm{Timer: machine.GoodbyeTimer}))},
		}},
	} {
		t.Run(p.name, p.test)
	}
}
