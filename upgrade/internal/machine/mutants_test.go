package machine_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/internal/machine"
)

type (
	state  = machine.State
	event  = machine.Event
	effect = machine.Effect
)

// mutant is a machine with one fault, the promise that it breaks first, and what
// has to happen for that.
type mutant struct {
	name   string
	breaks string
	needs  budget
	step   stepFunc
}

// mutants are mutants of an upgrade, and of a stop. The first five were faults of
// the machine itself.
var mutants = []mutant{
	{
		"a candidate that is dead when systemd answers is confirmed", AnswerIsTruth,
		budget{upgrades: 1, kills: 1},
		hearing(func(_ state, e machine.Notified) event { e.Gone = false; return e }),
	},
	{
		"any answer of systemd counts for the candidate", AnswerIsTruth,
		budget{upgrades: 2, kills: 1},
		hearing(func(s state, e machine.Notified) event {
			if s.Candidate.Phase == machine.Notifying && e.Number == s.Number {
				e.Number = s.Candidate.Number
			}
			return e
		}),
	},
	{
		"who takes over from a dead main does not tell systemd", SystemdViewRight,
		budget{upgrades: 2, kills: 1},
		without[machine.NotifyMain](func(s state, _ event) bool { return !s.Main }),
	},
	{
		"a stop is reported as what the candidate was doomed for", FailedChangesNothing,
		budget{upgrades: 1, terms: 1},
		doing(func(s state, _ event, next state, does []effect) (state, []effect) {
			return next, replace(does, func(r machine.Report) effect {
				if d := s.Candidate.Doom; d != machine.Undecided {
					r.Outcome = d
				}
				return r
			})
		}),
	},
	{
		"who becomes main while it stops does not answer", ControlIsAnswered,
		budget{upgrades: 1, terms: 1},
		without[machine.Lead](func(s state, _ event) bool { return s.Stopping }),
	},
	{
		"the gate stays open in the successor's probation", FenceFirst,
		budget{upgrades: 1},
		without[machine.CloseGate](func(_ state, e event) bool { return is[machine.CandidateServing](e) }),
	},
	{
		"the gate closes when the candidate is only ready", OldServesUntilNewIsReady,
		budget{upgrades: 1},
		doing(func(_ state, e event, next state, does []effect) (state, []effect) {
			if is[machine.CandidateReady](e) && next.Candidate.Phase == machine.Opening {
				does = append(does, machine.CloseGate{})
			}
			return next, does
		}),
	},
	{
		"the upgrade is confirmed before systemd is told", AnswerIsTruth,
		budget{upgrades: 1},
		func(s state, e event) (state, []effect) {
			next, does := machine.Step(s, e)
			if e == event(machine.Fired{Timer: machine.ProbationTimer}) && next.Candidate.Phase == machine.Notifying {
				confirmed, more := machine.Step(next, machine.Notified{Number: next.Candidate.Number, OK: true})
				return confirmed, append(more, does...)
			}
			return next, does
		},
	},
	{
		"fall back without a kill", FenceFirst,
		budget{upgrades: 1, faults: 1},
		without[machine.Kill](func(s state, _ event) bool { return s.Life == machine.Parked }),
	},
	{
		"fall back first, then kill", FenceFirst,
		budget{upgrades: 1, faults: 1},
		doing(func(_ state, e event, next state, does []effect) (state, []effect) {
			if is[machine.Notified](e) && next.Candidate.Doom == machine.Unnotified {
				slices.Reverse(does)
			}
			return next, does
		}),
	},
	{
		"no fall back when the candidate dies on probation", AlwaysSomebodyAtTheDoor,
		budget{upgrades: 1, kills: 1},
		deaf[machine.PeerGone](func(s state, e machine.PeerGone) bool {
			return s.Life == machine.Parked && e.Number == s.Candidate.Number
		}),
	},
	{
		"a fall back is reported before systemd knows of it", FailedChangesNothing,
		budget{upgrades: 1, kills: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			if next.Candidate.Phase == machine.Restoring {
				next, more := machine.Step(next, machine.Notified{Number: next.Number, OK: true})
				return next, append(does, more...)
			}
			return next, does
		}),
	},
	{
		"a SIGTERM to main is not passed on", StopIsStop,
		budget{upgrades: 1, terms: 1},
		without[machine.TellStopping](func(s state, _ event) bool { return s.Main }),
	},
	{
		"who hears that main stops goes on", StopIsStop,
		budget{upgrades: 1, terms: 1},
		deaf[machine.PeerStopping](func(s state, _ machine.PeerStopping) bool { return s.Lead != 0 }),
	},
	{
		"a stop turns into a fall back", StopIsStop,
		budget{upgrades: 1, terms: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			if s.Life == machine.Parked && is[machine.Stop](e) {
				next.Life, does = machine.Serving, append(does, machine.OpenGate{})
			}
			return next, does
		}),
	},
	{
		"a stopping drainer says STOPPING=1", SystemdViewRight,
		budget{upgrades: 1, terms: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			if s.Life == machine.Draining && is[machine.Stop](e) && !s.Stopping {
				does = append(does, machine.NotifyStopping{})
			}
			return next, does
		}),
	},
	{
		"a drainer that was told to stop takes the end of main for a crash", OnlyACrashCuts,
		budget{upgrades: 1, terms: 1},
		func(s state, e event) (state, []effect) {
			if gone, ok := e.(machine.PeerGone); ok && gone.Number == s.Lead && s.Life == machine.Draining {
				s.Stopping = false
			}
			return machine.Step(s, e)
		},
	},
	{
		"a second SIGTERM ends a drain", OnlyACrashCuts,
		budget{upgrades: 1, terms: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			if is[machine.Stop](e) && s.Life == machine.Draining {
				next.Life, does = machine.Exited, append(does, machine.Exit{})
			}
			return next, does
		}),
	},
	{
		"a drainer does not care about the death of main", AlwaysSomebodyAtTheDoor,
		budget{upgrades: 1, kills: 1},
		deaf[machine.PeerGone](func(s state, _ machine.PeerGone) bool { return s.Life == machine.Draining && !s.Main }),
	},
	{
		"a candidate does not care about the death of main", StopIsStop,
		budget{upgrades: 2, kills: 1},
		deaf[machine.PeerGone](func(s state, _ machine.PeerGone) bool { return s.Life <= machine.Waiting }),
	},
	{
		"two upgrades at once", AnswerIsTruth,
		budget{upgrades: 2},
		func(s state, e event) (state, []effect) {
			if is[machine.Upgrade](e) && s.Candidate.Phase == machine.Greeting {
				s.Candidate = machine.Candidate{}
			}
			return machine.Step(s, e)
		},
	},
	{
		"a candidate that failed leaves its number to the next", NoNumberTwice,
		budget{upgrades: 2},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			if s.Candidate.Phase != machine.None && next.Candidate.Phase == machine.None && next.Main {
				next.Next = s.Candidate.Number
			}
			return next, does
		}),
	},
	{
		"after a failure no other upgrade is begun", NextUpgradeCanSucceed,
		budget{upgrades: 1},
		func(s state, e event) (state, []effect) {
			if is[machine.Upgrade](e) && s.Next > 2 {
				return s, []effect{machine.Report{Outcome: machine.InProgress}}
			}
			return machine.Step(s, e)
		},
	},
	{
		"an answer is given twice", AnswerIsTruth,
		budget{upgrades: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			next.Candidate.Told = false
			return next, does
		}),
	},
	{
		"a failure is not answered", AnswerIsTruth,
		budget{upgrades: 1, faults: 1},
		without[machine.Report](func(_ state, e event) bool { return is[machine.Checked](e) }),
	},
	{
		"no answer while a check hangs", AnswerIsTruth,
		budget{upgrades: 1, hangs: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			if next.Candidate.Phase == machine.Preflight {
				does = slices.DeleteFunc(does, func(e effect) bool { return e == effect(machine.Arm{Timer: machine.KillTimer}) })
			}
			return next, does
		}),
	},
	{
		"no timer for a candidate that was told to accept", FailedChangesNothing,
		budget{upgrades: 1, hangs: 1},
		doing(func(_ state, _ event, next state, does []effect) (state, []effect) {
			return next, slices.DeleteFunc(does, func(e effect) bool { return e == effect(machine.Arm{Timer: machine.OpenTimer}) })
		}),
	},
	{
		"a timer of the last candidate is left", DriverIsNotMisled,
		budget{upgrades: 1},
		doing(func(_ state, _ event, next state, does []effect) (state, []effect) {
			return next, slices.DeleteFunc(does, func(e effect) bool { return e == effect(machine.Disarm{Timer: machine.KillTimer}) })
		}),
	},
	{
		"drainers are not introduced", NoOrphans,
		budget{upgrades: 2},
		without[machine.Introduce](nil),
	},
	{
		"drainers do not follow the new main", NoOrphans,
		budget{upgrades: 2},
		deaf[machine.Met](func(s state, _ machine.Met) bool { return s.Life == machine.Draining }),
	},
	{
		"main forgets who drains", DrainersKnown,
		budget{upgrades: 2},
		deaf[machine.Met](func(s state, _ machine.Met) bool { return s.Life != machine.Draining }),
	},
	{
		"too many drain at leisure", DrainersLimited,
		budget{upgrades: 2},
		without[machine.TellHurry](nil),
	},
	{
		"the old generation stays main", NoTwoMains,
		budget{upgrades: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			next.Main = next.Main || s.Main
			return next, slices.DeleteFunc(does, is[machine.Yield, effect])
		}),
	},
	{
		"a promoted successor is killed", AlwaysSomebodyAtTheDoor,
		budget{upgrades: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			if s.Candidate.Phase == machine.Notifying && next.Life == machine.Draining && is[machine.Notified](e) {
				does = append(does, machine.Kill{Number: s.Candidate.Number})
			}
			return next, does
		}),
	},
}

// hearing is a machine that understands an event in its own way.
func hearing[E event](understand func(state, E) event) stepFunc {
	return func(s state, e event) (state, []effect) {
		if heard, ok := e.(E); ok {
			e = understand(s, heard)
		}
		return machine.Step(s, e)
	}
}

// deaf is a machine that does not take note of an event.
func deaf[E event](when func(state, E) bool) stepFunc {
	return func(s state, e event) (state, []effect) {
		if heard, ok := e.(E); ok && when(s, heard) {
			return s, nil
		}
		return machine.Step(s, e)
	}
}

// doing is a machine that does something else.
func doing(change func(s state, e event, next state, does []effect) (state, []effect)) stepFunc {
	return func(s state, e event) (state, []effect) {
		next, does := machine.Step(s, e)
		return change(s, e, next, does)
	}
}

// without is a machine that forgets an effect; when may be nil.
func without[E effect](when func(state, event) bool) stepFunc {
	return doing(func(s state, e event, next state, does []effect) (state, []effect) {
		if when == nil || when(s, e) {
			does = slices.DeleteFunc(does, is[E, effect])
		}
		return next, does
	})
}

func replace[E effect](does []effect, with func(E) effect) []effect {
	for i := range does {
		if e, ok := does[i].(E); ok {
			does[i] = with(e)
		}
	}
	return does
}

// is tells whether an event or an effect is an E.
func is[E, I any](v I) bool {
	_, ok := any(v).(E)
	return ok
}

// A check that cannot fail is worth nothing.
func TestCheckerFindsMutants(t *testing.T) {
	var breakable []string
	for _, group := range []struct {
		limits  machine.Limits
		mutants []mutant
	}{{atMostOne, mutants}, {atMostOne, holders}, {onlyOne, refusers}, {atMostOne, stagers}, {atMostOne, returners}} {
		for _, mutant := range group.mutants {
			breakable = append(breakable, mutant.breaks)
			t.Run(mutant.name, func(t *testing.T) {
				t.Parallel()
				x := newExplorer(mutant.step, group.limits)
				broken, story := x.explore(x.begin(mutant.needs))
				require.NotNil(t, broken, "nothing found")
				assert.Equal(t, mutant.breaks, broken.promise, "%v\n%s", broken, story)
				t.Logf("%v, after %d moves", broken, x.depth)
			})
		}
	}
	assert.Subset(t, breakable, promises, "each promise is broken by some mutant")
}
