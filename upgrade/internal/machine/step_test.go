package machine_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// path is a story of one generation: event by event, the state that it gets
// into, as summary puts it, and what it does.
type path struct {
	name  string
	from  machine.State
	steps []step
}

type step struct {
	event   machine.Event
	state   string
	effects []machine.Effect
}

func (p path) test(t *testing.T) {
	s := p.from
	for i, step := range p.steps {
		next, effects := machine.Step(s, step.event)
		assert.Equal(t, step.state, summary(next), "step %d: state after %T%+v", i, step.event, step.event)
		assert.Equal(t, step.effects, effects, "step %d: effects of %T%+v", i, step.event, step.event)
		s = next
	}
}

func does(effects ...machine.Effect) []machine.Effect { return effects }

// and is does, for effects that come in groups.
func and(groups ...[]machine.Effect) []machine.Effect { return slices.Concat(groups...) }

// What is done together: to stop the timers of a candidate that is doomed, or
// gone, to begin an upgrade, to kill a candidate.
var (
	calm = does(machine.Disarm{Timer: machine.ReadyTimer}, machine.Disarm{Timer: machine.RequestTimer},
		machine.Disarm{Timer: machine.OpenTimer}, machine.Disarm{Timer: machine.StageTimer}, machine.Disarm{Timer: machine.ProbationTimer})
	quiet = and(calm, does(machine.Disarm{Timer: machine.GoodbyeTimer}, machine.Disarm{Timer: machine.KillTimer}))
	begin = does(machine.Arm{Timer: machine.ReadyTimer}, machine.Arm{Timer: machine.RequestTimer}, machine.Check{})
	kill2 = and(calm, does(machine.Kill{Number: 2}, machine.Arm{Timer: machine.KillTimer}))
)

// report is what a candidate that failed leaves behind.
func report(o machine.Outcome, at machine.Phase) []machine.Effect {
	return and(quiet, does(machine.Report{Outcome: o, At: at, Number: 2}))
}

// summary is a state in words: "main parked, 2 probation, drainers [1]".
func summary(s machine.State) string {
	text := s.Life.String()
	if s.Main {
		text = "main " + text
	}
	if s.Stopping {
		text += " to stop"
	}
	if s.Held {
		text += " behind a closed door"
	}
	if c := s.Candidate; c.Phase != machine.None {
		text += fmt.Sprintf(", %d %v", c.Number, c.Phase)
		if c.Doom != machine.Undecided {
			text += fmt.Sprintf(" (%v)", c.Doom)
		}
	}
	if s.Lead != 0 {
		text += fmt.Sprintf(", follows %d", s.Lead)
	}
	if s.Reserve != 0 {
		text += fmt.Sprintf(" or %d", s.Reserve)
	}
	if s.Covered {
		text += ", covered"
	}
	if len(s.Drainers) > 0 {
		text += fmt.Sprintf(", drainers %v", s.Drainers)
	}
	if s.Retiring != 0 {
		text += fmt.Sprintf(", %d retires", s.Retiring)
	}
	return text
}

// after is a state after some events.
func after(s machine.State, events ...machine.Event) machine.State {
	for _, e := range events {
		s, _ = machine.Step(s, e)
	}
	return s
}

// goodUpgrade and stagedUpgrade take a main generation through an upgrade, up to the
// word of systemd; at(phase) and staging(phase) are the first generation in the middle
// of it.
var (
	goodUpgrade = []machine.Event{
		machine.Upgrade{},
		machine.Checked{OK: true},
		machine.Spawned{OK: true},
		machine.Greeted{OK: true},
		machine.CandidateReady{},
		machine.CandidateServing{},
		machine.Fired{Timer: machine.ProbationTimer},
	}
	stagedUpgrade = []machine.Event{
		machine.Upgrade{Stage: true},
		machine.Checked{OK: true},
		machine.Spawned{OK: true},
		machine.Greeted{OK: true},
		machine.CandidateReady{},
		machine.CandidateStaged{},
		machine.Promote{},
		machine.CandidateServing{},
		machine.Fired{Timer: machine.ProbationTimer},
	}
)

func at(phase machine.Phase) machine.State      { return until(phase, firstServing, goodUpgrade) }
func staging(phase machine.Phase) machine.State { return until(phase, firstServing, stagedUpgrade) }

// firstServing is the first generation of a service, alone.
var firstServing = after(machine.First(atMostOne), machine.Ready{})

// until gives events to a main generation until its candidate is in phase.
func until(phase machine.Phase, s machine.State, events []machine.Event) machine.State {
	for _, e := range events {
		if s.Candidate.Phase == phase {
			return s
		}
		s = after(s, e)
	}
	if s.Candidate.Phase != phase {
		panic("these events do not lead to " + phase.String())
	}
	return s
}

// young is generation 2 in its life before it is main.
func young(life machine.Life) machine.State {
	return after(machine.Succeeding(2, 1, atMostOne), map[machine.Life][]machine.Event{
		machine.Waiting: {machine.Ready{}},
		machine.Staged:  {machine.Ready{}, machine.StageNow{}},
		machine.Serving: {machine.Ready{}, machine.ServeNow{}},
	}[life]...)
}

// atMostOne and onlyOne are limits: the oldest drainer hurries, or the upgrade is
// refused.
var (
	atMostOne = machine.Limits{MaxDraining: 1}
	onlyOne   = machine.Limits{MaxDraining: 1, Refuse: true}
)

// mainWithDrainers is generation 3, with 1 and 2 draining.
var mainWithDrainers = after(machine.Succeeding(3, 2, atMostOne), machine.Ready{}, machine.ServeNow{}, machine.Met{Number: 1}, machine.Promoted{})

// full is generation 2, main, with as many drainers as limits allow: 1.
func full(limits machine.Limits) machine.State {
	return after(machine.Succeeding(2, 1, limits), machine.Ready{}, machine.ServeNow{}, machine.Promoted{})
}

func TestGoodUpgrade(t *testing.T) {
	for _, p := range []path{
		{"the first generation", machine.First(atMostOne), []step{
			{machine.Ready{}, "main serving", does(machine.OpenGate{}, machine.NotifyReady{})},
		}},
		{"the old generation", at(machine.None), []step{
			{machine.Upgrade{}, "main serving, 2 preflight", begin},
			{machine.Checked{OK: true}, "main serving, 2 spawning", does(machine.Spawn{Number: 2})},
			{machine.Spawned{OK: true}, "main serving, 2 greeting", nil},
			{machine.Greeted{OK: true}, "main serving, 2 preparing", nil},
			{machine.CandidateReady{}, "main serving, 2 opening", does(machine.Disarm{Timer: machine.ReadyTimer}, machine.Disarm{Timer: machine.RequestTimer},
				machine.Arm{Timer: machine.OpenTimer}, machine.TellServe{Number: 2})},
			{machine.CandidateServing{}, "main parked, 2 probation", does(machine.Disarm{Timer: machine.OpenTimer},
				machine.CloseGate{}, machine.Arm{Timer: machine.ProbationTimer})},
			{machine.Fired{Timer: machine.ProbationTimer}, "main parked, 2 notifying", does(machine.NotifyMain{Number: 2})},
			{machine.Notified{Number: 2, OK: true}, "draining, follows 2", does(
				machine.Yield{}, machine.TellPromoted{Number: 2}, machine.Report{Outcome: machine.Confirmed, At: machine.Notifying, Number: 2}, machine.Drain{})},
			{machine.Drained{}, "exited, follows 2", does(machine.Exit{})},
		}},
		{"the new generation", young(machine.Starting), []step{
			{machine.Ready{}, "waiting, follows 1", does(machine.TellReady{})},
			{machine.ServeNow{}, "serving, follows 1", does(machine.OpenGate{}, machine.TellServing{})},
			{machine.Promoted{}, "main serving, drainers [1]", does(machine.Lead{})},
			{machine.PeerGone{Number: 1}, "main serving", nil},
			{machine.Upgrade{}, "main serving, 3 preflight", begin},
		}},
		{"with drainers, one more than allowed", after(mainWithDrainers, goodUpgrade...), []step{
			{machine.Notified{Number: 4, OK: true}, "draining, follows 4, drainers [1 2]", does(machine.Yield{},
				machine.Introduce{Drainer: 1, Main: 4}, machine.Introduce{Drainer: 2, Main: 4}, machine.TellPromoted{Number: 4},
				machine.TellHurry{Number: 1}, machine.TellHurry{Number: 2},
				machine.Report{Outcome: machine.Confirmed, At: machine.Notifying, Number: 4}, machine.Drain{})},
		}},
		{"a drainer", after(at(machine.Notifying), machine.Notified{Number: 2, OK: true}), []step{
			{machine.Hurried{}, "draining, follows 2", does(machine.Hasten{})},
			{machine.Met{Number: 3}, "draining, follows 3 or 2", nil},
			{machine.PeerGone{Number: 2}, "draining, follows 3", nil}, // it drained, too, and was done first
			{machine.Upgrade{}, "draining, follows 3", does(machine.Report{Outcome: machine.NotMain})},
			{machine.Drained{}, "exited, follows 3", does(machine.Exit{})},
		}},
	} {
		t.Run(p.name, p.test)
	}
}

func TestRefusals(t *testing.T) {
	for name, test := range map[string]struct {
		from machine.State
		want machine.Outcome
	}{
		"starting":           {machine.First(atMostOne), machine.NotServing},
		"waiting":            {young(machine.Waiting), machine.NotServing},
		"on probation":       {young(machine.Serving), machine.NotMain},
		"while another runs": {at(machine.Preparing), machine.InProgress},
		"while parked":       {at(machine.Probation), machine.InProgress},
		"stopping":           {after(at(machine.None), machine.Stop{}), machine.Terminating},
		"held":               {after(at(machine.None), machine.Hold{}), machine.Held},
		"held, and full":     {after(full(onlyOne), machine.Hold{}), machine.Held},
		"full":               {full(onlyOne), machine.Crowded},
	} {
		t.Run(name, func(t *testing.T) {
			next, effects := machine.Step(test.from, machine.Upgrade{})
			assert.Equal(t, test.from, next)
			assert.Equal(t, does(machine.Report{Outcome: test.want}), effects)
		})
	}
}

// Where a crowd is refused there is room again as soon as a drainer has ended, and
// nobody is ever hurried.
func TestNobodyHurriesWhereACrowdIsRefused(t *testing.T) {
	path{"", full(onlyOne), []step{
		{machine.Upgrade{}, "main serving, drainers [1]", does(machine.Report{Outcome: machine.Crowded})},
		{machine.PeerGone{Number: 1}, "main serving", nil},
		{machine.Upgrade{}, "main serving, 3 preflight", begin},
	}}.test(t)
	path{"", after(full(machine.Limits{MaxDraining: 2, Refuse: true}), goodUpgrade...), []step{
		{machine.Notified{Number: 3, OK: true}, "draining, follows 3, drainers [1]", does(machine.Yield{},
			machine.Introduce{Drainer: 1, Main: 3}, machine.TellPromoted{Number: 3},
			machine.Report{Outcome: machine.Confirmed, At: machine.Notifying, Number: 3}, machine.Drain{})},
	}}.test(t)
}

func TestCandidateFails(t *testing.T) {
	fired := func(timer machine.Timer) machine.Event { return machine.Fired{Timer: timer} }
	gone := machine.PeerGone{Number: 2}
	for _, p := range []path{
		{"the file cannot be run", at(machine.Preflight), []step{
			{machine.Checked{}, "main serving", report(machine.Failed, machine.Preflight)},
		}},
		{"the check takes too long", at(machine.Preflight), []step{
			{fired(machine.RequestTimer), "main serving, 2 preflight (timed-out)", does(machine.Cancel{}, machine.Arm{Timer: machine.KillTimer})},
			{fired(machine.ReadyTimer), "main serving, 2 preflight (timed-out)", nil},
			{machine.Checked{OK: true}, "main serving", report(machine.TimedOut, machine.Preflight)},
		}},
		{"the check never ends", after(at(machine.Preflight), fired(machine.ReadyTimer)), []step{
			{fired(machine.KillTimer), "main serving, 2 preflight (timed-out)", does(
				machine.Report{Outcome: machine.TimedOut, At: machine.Preflight, Number: 2})},
			{machine.Upgrade{}, "main serving, 2 preflight (timed-out)", does(machine.Report{Outcome: machine.InProgress})},
			{machine.Checked{OK: true}, "main serving", quiet}, // it did
		}},
		{"no process", at(machine.Spawning), []step{
			{machine.Spawned{}, "main serving", report(machine.Failed, machine.Spawning)},
		}},
		{"the start takes too long", at(machine.Spawning), []step{
			{fired(machine.ReadyTimer), "main serving, 2 spawning (timed-out)", does(machine.Cancel{}, machine.Arm{Timer: machine.KillTimer})},
			{machine.Spawned{OK: true}, "main serving, 2 dying (timed-out)", kill2}, // too late
			{gone, "main serving", report(machine.TimedOut, machine.Spawning)},
		}},
		{"it dies before its hello", at(machine.Greeting), []step{
			{gone, "main serving", report(machine.Failed, machine.Greeting)},
		}},
		{"it cannot be talked to", at(machine.Greeting), []step{
			{machine.Greeted{}, "main serving, 2 dying (failed)", kill2},
			{gone, "main serving", report(machine.Failed, machine.Greeting)},
		}},
		{"it says nothing", at(machine.Greeting), []step{
			{fired(machine.ReadyTimer), "main serving, 2 dying (timed-out)", kill2},
			{gone, "main serving", report(machine.TimedOut, machine.Greeting)},
		}},
		{"it dies before it is ready", at(machine.Preparing), []step{
			{gone, "main serving", report(machine.Failed, machine.Preparing)},
		}},
		{"it is never ready", at(machine.Preparing), []step{
			{fired(machine.ReadyTimer), "main serving, 2 dying (timed-out)", kill2},
			{machine.CandidateReady{}, "main serving, 2 dying (timed-out)", nil}, // said before it was killed
			{gone, "main serving", report(machine.TimedOut, machine.Preparing)},
		}},
		{"it is ready too late for the request", at(machine.Preparing), []step{
			{machine.CandidateReady{Late: true}, "main serving, 2 dying (timed-out)", kill2},
			{gone, "main serving", report(machine.TimedOut, machine.Preparing)},
		}},
		{"no deadline ends it once it may accept", at(machine.Opening), []step{
			{fired(machine.ReadyTimer), "main serving, 2 opening", nil},
			{fired(machine.RequestTimer), "main serving, 2 opening", nil},
		}},
		{"it never accepts", at(machine.Opening), []step{
			{fired(machine.OpenTimer), "main serving, 2 dying (timed-out)", kill2},
			{machine.CandidateServing{}, "main serving, 2 dying (timed-out)", nil},
			{gone, "main serving", report(machine.TimedOut, machine.Opening)},
		}},
		{"it dies while it opens its gate", at(machine.Opening), []step{
			{gone, "main serving", report(machine.Failed, machine.Opening)},
		}},
		{"it dies on probation", at(machine.Probation), []step{
			{gone, "main serving", and(does(machine.OpenGate{}), report(machine.FellBack, machine.Probation))},
			{machine.Upgrade{}, "main serving, 3 preflight", begin},
		}},
		{"systemd cannot be told: fence first", at(machine.Notifying), []step{
			{machine.Notified{Number: 2}, "main serving, 2 dying (unnotified)", and(kill2, does(machine.OpenGate{}))},
			{gone, "main serving", report(machine.Unnotified, machine.Notifying)},
		}},
		{"it dies while systemd is told: reclaim", at(machine.Notifying), []step{
			{gone, "main serving, 2 reclaiming (fell-back)", does(machine.OpenGate{})},
			{machine.Notified{Number: 2, OK: true, Gone: true}, "main serving, 2 restoring (fell-back)", does(machine.NotifyMain{Number: 1})},
			{machine.Notified{Number: 1, OK: true}, "main serving", report(machine.FellBack, machine.Notifying)},
		}},
		{"it is found dead when systemd was told: reclaim", at(machine.Notifying), []step{
			{machine.Notified{Number: 2, OK: true, Gone: true}, "main serving, 2 restoring (fell-back)", does(
				machine.OpenGate{}, machine.NotifyMain{Number: 1})},
			{gone, "main serving, 2 restoring (fell-back)", nil},
			{machine.Notified{Number: 1, OK: true}, "main serving", report(machine.FellBack, machine.Notifying)},
		}},
		{"it does not die when it is killed", after(at(machine.Preparing), fired(machine.ReadyTimer)), []step{
			{fired(machine.KillTimer), "main serving, 2 dying (timed-out)", does(
				machine.Report{Outcome: machine.TimedOut, At: machine.Preparing, Number: 2})},
			{machine.Upgrade{}, "main serving, 2 dying (timed-out)", does(machine.Report{Outcome: machine.InProgress})},
			{gone, "main serving", quiet}, // answered already
		}},
	} {
		t.Run(p.name, p.test)
	}
}
