package machine_test

import (
	"slices"

	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// stagers are mutants of a staged upgrade, and of a rollback.
var stagers = []mutant{
	{
		"a share is passed on before somebody takes it", SharedOnStage,
		budget{upgrades: 1, stages: 1},
		doing(func(s state, _ event, next state, does []effect) (state, []effect) {
			if next.Candidate.Phase == machine.Staging && s.Candidate.Phase != machine.Staging {
				does = append(does, machine.Share{})
			}
			return next, does
		}),
	},
	{
		"who is on stage gets nothing", SharedOnStage,
		budget{upgrades: 1, stages: 1},
		without[machine.Share](nil),
	},
	{
		"who is promoted still gets its share", SharedOnStage,
		budget{upgrades: 1, stages: 1},
		without[machine.EndShare](func(_ state, e event) bool { return is[machine.Promote](e) }),
	},
	{
		"who is dead still gets its share", SharedOnStage,
		budget{upgrades: 1, stages: 1, kills: 1},
		without[machine.EndShare](func(_ state, e event) bool { return is[machine.PeerGone](e) }),
	},
	{
		"who hangs still gets its share", SharedOnStage,
		budget{upgrades: 1, stages: 1, wedges: 1},
		without[machine.EndShare](func(_ state, e event) bool { return is[machine.Hung](e) }),
	},
	{
		"who stops still gets its share", SharedOnStage,
		budget{upgrades: 1, stages: 1, terms: 1},
		without[machine.EndShare](func(_ state, e event) bool { return is[machine.PeerStopping](e) }),
	},
	{
		"who is rolled back still gets its share", SharedOnStage,
		budget{upgrades: 1, stages: 1},
		without[machine.EndShare](func(_ state, e event) bool { return is[machine.Fired](e) }),
	},
	{
		"a service that stops still shares", SharedOnStage,
		budget{upgrades: 1, stages: 1, terms: 1},
		without[machine.EndShare](func(_ state, e event) bool { return is[machine.Stop](e) }),
	},
	{
		"who is on stage accepts by itself", FenceFirst,
		budget{upgrades: 1, stages: 1},
		doing(func(_ state, e event, next state, does []effect) (state, []effect) {
			if is[machine.StageNow](e) {
				does = append(does, machine.OpenGate{})
			}
			return next, does
		}),
	},
	{
		"a stage lasts for ever", FailedChangesNothing,
		budget{upgrades: 1, stages: 1},
		doing(func(_ state, _ event, next state, does []effect) (state, []effect) {
			return next, slices.DeleteFunc(does, func(e effect) bool { return e == effect(machine.Arm{Timer: machine.StageTimer}) })
		}),
	},
	{
		"who is on stage does not care about the death of main", AlwaysSomebodyAtTheDoor,
		budget{upgrades: 2, stages: 1, kills: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			if s.Life == machine.Staged && is[machine.PeerGone](e) {
				return s, nil
			}
			return next, does
		}),
	},
	{
		"who is on stage and takes over does not open its gate", DriverIsNotMisled,
		budget{upgrades: 1, stages: 1, kills: 1},
		without[machine.OpenGate](func(s state, e event) bool { return s.Life == machine.Staged && is[machine.PeerGone](e) }),
	},
	{
		"who hangs on stage stays there", AlwaysSomebodyAtTheDoor,
		budget{upgrades: 1, stages: 1, wedges: 1},
		deaf[machine.Hung](func(s state, _ machine.Hung) bool { return s.Candidate.Phase == machine.OnStage }),
	},
	{
		"who hangs on probation is not fenced off", FenceFirst,
		budget{upgrades: 1, wedges: 1},
		without[machine.Kill](func(_ state, e event) bool { return is[machine.Hung](e) }),
	},
	{
		"fall back from a hang first, then kill", FenceFirst,
		budget{upgrades: 1, wedges: 1},
		doing(func(_ state, e event, next state, does []effect) (state, []effect) {
			if is[machine.Hung](e) {
				slices.Reverse(does)
			}
			return next, does
		}),
	},
	{
		"a hang while systemd is told is not looked for", AlwaysSomebodyAtTheDoor,
		budget{upgrades: 1, wedges: 1},
		deaf[machine.Hung](func(s state, _ machine.Hung) bool { return s.Candidate.Phase == machine.Notifying }),
	},
	{
		"a rollback opens no door", FailedChangesNothing,
		budget{upgrades: 1, rollback: 1},
		without[machine.OpenGate](func(_ state, e event) bool { return is[machine.Rollback](e) }),
	},
	{
		"who is rolled back does not hear of it", FenceFirst,
		budget{upgrades: 1, rollback: 1},
		without[machine.TellRetire](nil),
	},
	{
		"who is rolled back goes on", FenceFirst,
		budget{upgrades: 1, rollback: 1},
		deaf[machine.Retire](func(state, machine.Retire) bool { return true }),
	},
	{
		"who is rolled back accepts until it has drained", FenceFirst,
		budget{upgrades: 1, rollback: 1},
		without[machine.CloseGate](func(_ state, e event) bool { return is[machine.Retire](e) }),
	},
	{
		"nobody waits for who was rolled back", DriverIsNotMisled,
		budget{upgrades: 1, rollback: 1},
		doing(func(_ state, _ event, next state, does []effect) (state, []effect) {
			return next, slices.DeleteFunc(does, func(e effect) bool { return e == effect(machine.Arm{Timer: machine.RetireTimer}) })
		}),
	},
	{
		"who was rolled back drains, and is killed all the same", OnlyACrashCuts,
		budget{upgrades: 1, rollback: 1},
		deaf[machine.Retired](func(state, machine.Retired) bool { return true }),
	},
	{
		"who was rolled back is forgotten", DrainersKnown,
		budget{upgrades: 1, rollback: 1},
		doing(func(_ state, e event, next state, does []effect) (state, []effect) {
			if is[machine.Rollback](e) {
				next.Drainers = nil
			}
			return next, does
		}),
	},
	{
		"the next upgrade waits for who was rolled back", NextUpgradeCanSucceed,
		budget{upgrades: 2, rollback: 1},
		without[machine.TellHurry](func(_ state, e event) bool { return is[machine.Upgrade](e) }),
	},
	{
		"who was rolled back is one too many", DrainersLimited,
		budget{upgrades: 2, rollback: 1},
		without[machine.TellHurry](func(_ state, e event) bool { return is[machine.Rollback](e) }),
	},
	{
		"a rollback while systemd is told", FailedChangesNothing,
		budget{upgrades: 1, rollback: 1},
		func(s state, e event) (state, []effect) {
			if is[machine.Rollback](e) && s.Candidate.Phase == machine.Notifying {
				s.Candidate.Phase = machine.Probation
			}
			return machine.Step(s, e)
		},
	},
	{
		"a rollback of what a stop has ended", StopIsStop,
		budget{upgrades: 1, rollback: 1, terms: 1},
		doing(func(s state, e event, next state, does []effect) (state, []effect) {
			if is[machine.Rollback](e) && s.Stopping {
				next.Life, does = machine.Serving, append(does, machine.OpenGate{})
			}
			return next, does
		}),
	},
}
