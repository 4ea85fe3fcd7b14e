package machine_test

import (
	"slices"

	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// holders are mutants of what an operator does to the door.
var holders = []mutant{
	{
		"a hold is not obeyed", HeldAsAsked,
		budget{holds: 1},
		deaf[machine.Hold](func(state, machine.Hold) bool { return true }),
	},
	{
		"a hold says goodbye first, and closes the door then", DriverIsNotMisled,
		budget{holds: 1},
		doing(func(_ state, e event, next state, does []effect) (state, []effect) {
			if is[machine.Hold](e) {
				slices.Reverse(does)
			}
			return next, does
		}),
	},
	{
		"a hold in the middle of an upgrade is obeyed", OldServesUntilNewIsReady,
		budget{upgrades: 1, holds: 1},
		func(s state, e event) (state, []effect) {
			if !is[machine.Hold](e) {
				return machine.Step(s, e)
			}
			candidate := s.Candidate
			s.Candidate = machine.Candidate{}
			next, does := machine.Step(s, e)
			next.Candidate = candidate
			return next, does
		},
	},
	{
		"a parked generation obeys a hold", HeldAsAsked,
		budget{upgrades: 1, holds: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			next.Held = next.Held || is[machine.Hold](e) && s.Life == machine.Parked
			return next, does
		}),
	},
	{
		"a hold is a stop for systemd", SystemdViewRight,
		budget{holds: 1},
		doing(func(_ state, e event, next state, does []effect) (state, []effect) {
			if is[machine.Hold](e) && next.Held {
				does = append(does, machine.NotifyStopping{})
			}
			return next, does
		}),
	},
	{
		"a generation ends when nobody is left behind its closed door", OnlyACrashCuts,
		budget{holds: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			if is[machine.Drained](e) && s.Held {
				next.Life, does = machine.Exited, append(does, machine.Exit{})
			}
			return next, does
		}),
	},
	{
		"a door opens when nobody is left behind it", HeldAsAsked,
		budget{holds: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			if is[machine.Drained](e) && s.Held {
				next.Held, does = false, append(does, machine.EndHold{}, machine.OpenGate{})
			}
			return next, does
		}),
	},
	{
		"a release does not open the door", AlwaysSomebodyAtTheDoor,
		budget{holds: 2},
		without[machine.OpenGate](func(s state, _ event) bool { return s.Held }),
	},
	{
		"a release is not obeyed", NextUpgradeCanSucceed,
		budget{holds: 2},
		deaf[machine.Release](func(state, machine.Release) bool { return true }),
	},
	{
		"a release opens the door while goodbyes are said", DriverIsNotMisled,
		budget{holds: 2},
		doing(func(_ state, e event, next state, does []effect) (state, []effect) {
			if is[machine.Release](e) {
				slices.Reverse(does)
			}
			return next, does
		}),
	},
	{
		"an upgrade opens a door that is held", HeldAsAsked,
		budget{upgrades: 1, holds: 1},
		func(s state, e event) (state, []effect) {
			held := s.Held && is[machine.Upgrade](e)
			s.Held = s.Held && !held
			next, does := machine.Step(s, e)
			next.Held = next.Held || held
			return next, does
		},
	},
	{
		"an upgrade of a door that is held is refused as something else", HeldAsAsked,
		budget{holds: 1},
		doing(func(s state, _ event, next state, does []effect) (state, []effect) {
			return next, replace(does, func(r machine.Report) effect {
				if r.Outcome == machine.Held {
					r.Outcome = machine.InProgress
				}
				return r
			})
		}),
	},
	{
		"an upgrade is refused as held while the door is open", NextUpgradeCanSucceed,
		budget{upgrades: 1},
		func(s state, e event) (state, []effect) {
			if is[machine.Upgrade](e) && s.Life == machine.Serving && s.Candidate.Phase == machine.None {
				return s, []effect{machine.Report{Outcome: machine.Held}}
			}
			return machine.Step(s, e)
		},
	},
	{
		"a stop leaves the door held", HeldAsAsked,
		budget{terms: 1, holds: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			next.Held = next.Held || s.Held && is[machine.Stop](e)
			return next, does
		}),
	},
	{
		"a stop releases the door first", StopIsStop,
		budget{terms: 1, holds: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			if s.Held && is[machine.Stop](e) {
				does = append([]effect{machine.EndHold{}, machine.OpenGate{}}, does...)
			}
			return next, does
		}),
	},
	{
		"a stop takes the goodbyes of the hold for its own", DriverIsNotMisled,
		budget{terms: 1, holds: 1},
		without[machine.Drain](func(s state, _ event) bool { return s.Held }),
	},
}

// refusers are mutants of a machine that refuses upgrades where too many
// generations drain.
var refusers = []mutant{
	{
		"the oldest is hurried all the same", DrainersLimited,
		budget{upgrades: 2},
		func(s state, e event) (state, []effect) {
			s.Refuse = false
			next, does := machine.Step(s, e)
			next.Refuse = true
			return next, does
		},
	},
	{
		"too many drain", DrainersLimited,
		budget{upgrades: 2},
		func(s state, e event) (state, []effect) {
			s.MaxDraining++
			next, does := machine.Step(s, e)
			next.MaxDraining--
			return next, does
		},
	},
	{
		"an upgrade is refused while there is room", NextUpgradeCanSucceed,
		budget{upgrades: 1},
		func(s state, e event) (state, []effect) {
			s.MaxDraining--
			next, does := machine.Step(s, e)
			next.MaxDraining++
			return next, does
		},
	},
	{
		"drainers that are gone are still in the way", DrainersKnown,
		budget{upgrades: 1},
		deaf[machine.PeerGone](func(s state, e machine.PeerGone) bool { return s.Main && slices.Contains(s.Drainers, e.Number) }),
	},
}
