package machine_test

import (
	"slices"

	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// returners are mutants of the late fall back.
var returners = []mutant{
	{
		"whoever drains ends with main", FallBackStaysPossible,
		budget{upgrades: 1, kills: 1},
		func(s state, e event) (state, []effect) {
			s.Heir = 0
			return machine.Step(s, e)
		},
	},
	{
		"whoever drains takes over", NoTwoMains,
		budget{upgrades: 2, kills: 1},
		func(s state, e event) (state, []effect) {
			if is[machine.PeerGone](e) && s.Life == machine.Draining {
				s.Heir, s.Reserve = s.Lead, 0
			}
			return machine.Step(s, e)
		},
	},
	{
		"who cannot take over does not wait for who can", FallBackStaysPossible,
		budget{upgrades: 2, kills: 1},
		func(s state, e event) (state, []effect) {
			s.Reserve = 0
			return machine.Step(s, e)
		},
	},
	{
		"a hang after the confirm is not looked for", AlwaysSomebodyAtTheDoor,
		budget{upgrades: 1, wedges: 1},
		deaf[machine.Hung](func(s state, _ machine.Hung) bool { return s.Life == machine.Draining }),
	},
	{
		"who takes over does not kill who hangs", FenceFirst,
		budget{upgrades: 1, wedges: 1},
		without[machine.Kill](func(s state, _ event) bool { return s.Life == machine.Draining }),
	},
	{
		"who takes over kills who hangs, but not first", FenceFirst,
		budget{upgrades: 1, wedges: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			if is[machine.Hung](e) && s.Life == machine.Draining {
				slices.Reverse(does)
			}
			return next, does
		}),
	},
	{
		"a drain is taken back that cannot be", DriverIsNotMisled,
		budget{upgrades: 1, kills: 1, faults: 1},
		func(s state, e event) (state, []effect) {
			if gone, ok := e.(machine.PeerGone); ok {
				gone.TooLate = false
				e = gone
			}
			return machine.Step(s, e)
		},
	},
	{
		"who takes over again goes on to drain", DriverIsNotMisled,
		budget{upgrades: 1, kills: 1},
		without[machine.TakeBack](nil),
	},
	{
		"who takes over again does not open its gate", DriverIsNotMisled,
		budget{upgrades: 1, kills: 1},
		without[machine.OpenGate](func(s state, _ event) bool { return s.Life == machine.Draining }),
	},
	{
		"who takes over again does not answer", ControlIsAnswered,
		budget{upgrades: 1, kills: 1},
		without[machine.Lead](func(s state, _ event) bool { return s.Life == machine.Draining }),
	},
	{
		"who takes over again does not tell systemd", SystemdViewRight,
		budget{upgrades: 1, kills: 1},
		without[machine.NotifyMain](func(s state, _ event) bool { return s.Life == machine.Draining }),
	},
	{
		"who takes over again does not say so", FallBackStaysPossible,
		budget{upgrades: 2, kills: 2},
		without[machine.TellNumbers](func(s state, _ event) bool { return s.Life == machine.Draining }),
	},
	{
		"who takes over again forgets who drains", DrainersKnown,
		budget{upgrades: 3, kills: 1},
		doing(func(s state, _ event, next state, does []effect) (state, []effect) {
			if s.Life == machine.Draining && next.Life == machine.Serving {
				next.Drainers = nil
			}
			return next, does
		}),
	},
	{
		"main does not say which numbers it uses", NoNumberTwice,
		budget{upgrades: 3, kills: 1},
		doing(func(_ state, e event, next state, does []effect) (state, []effect) {
			return next, replace(does, func(n machine.TellNumbers) effect { n.Next = 0; return n })
		}),
	},
	{
		"a drainer does not care which numbers main uses", NoNumberTwice,
		budget{upgrades: 3, kills: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			if is[machine.Numbered](e) {
				next.Next = s.Next
			}
			return next, does
		}),
	},
	{
		"main does not say that its candidate takes over", FenceFirst,
		budget{upgrades: 2, kills: 1},
		doing(func(_ state, _ event, next state, does []effect) (state, []effect) {
			return next, replace(does, func(n machine.TellNumbers) effect { n.Covered = false; return n })
		}),
	},
	{
		"main says that its candidate takes over when that can already", FenceFirst,
		budget{upgrades: 2, kills: 1},
		doing(func(_ state, e event, next state, does []effect) (state, []effect) {
			if is[machine.CandidateReady](e) {
				slices.Reverse(does)
			}
			return next, does
		}),
	},
	{
		"a drainer does not care whether a candidate takes over", FenceFirst,
		budget{upgrades: 2, kills: 1},
		func(s state, e event) (state, []effect) {
			s.Covered = false
			return machine.Step(s, e)
		},
	},
	{
		"main does not say that its candidate does not take over any more", FallBackStaysPossible,
		budget{upgrades: 2, kills: 1, faults: 1},
		doing(func(s state, _ event, next state, does []effect) (state, []effect) {
			if s.Candidate.Covers && !next.Candidate.Covers {
				does = slices.DeleteFunc(does, is[machine.TellNumbers, effect])
			}
			return next, does
		}),
	},
	{
		"main says too early that its candidate does not take over any more", FenceFirst,
		budget{upgrades: 2, kills: 1, rollback: 1},
		doing(func(_ state, e event, next state, does []effect) (state, []effect) {
			if i := slices.IndexFunc(does, is[machine.TellNumbers, effect]); i >= 0 && is[machine.Rollback](e) {
				does = slices.Insert(slices.Delete(slices.Clone(does), i, i+1), 0, does[i])
			}
			return next, does
		}),
	},
	{
		"a drainer keeps to itself that the service stops", StopIsStop,
		budget{upgrades: 2, terms: 1},
		without[machine.TellStopping](func(s state, e event) bool { return s.Life == machine.Draining && is[machine.PeerStopping](e) }),
	},
	{
		"one relies on a drainer that was stopped", AlwaysSomebodyAtTheDoor,
		budget{upgrades: 2, kills: 1, terms: 1},
		deaf[machine.PeerStopping](func(s state, e machine.PeerStopping) bool { return e.Number == s.Reserve }),
	},
	{
		"one relies on a drainer to have taken over", StopIsStop,
		budget{upgrades: 2, kills: 1, terms: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			if is[machine.PeerGone](e) {
				next.Covered = s.Covered
			}
			return next, does
		}),
	},
}
