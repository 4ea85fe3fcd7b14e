package machine_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/hdctl/handoff/upgrade/internal/machine"
)

func TestHoldAndRelease(t *testing.T) {
	held := after(at(machine.None), machine.Hold{})
	for _, p := range []path{
		{"and an upgrade afterwards", at(machine.None), []step{
			{machine.Hold{}, "main serving behind a closed door", does(machine.CloseGate{}, machine.HoldDrain{})},
			{machine.Hold{}, "main serving behind a closed door", nil},
			{machine.Upgrade{}, "main serving behind a closed door", does(machine.Report{Outcome: machine.Held})},
			{machine.Drained{}, "main serving behind a closed door", nil},
			{machine.Release{}, "main serving", does(machine.EndHold{}, machine.OpenGate{})},
			{machine.Release{}, "main serving", nil},
			{machine.Upgrade{}, "main serving, 2 preflight", begin},
		}},
		{"after an upgrade that failed", at(machine.Preflight), []step{
			{machine.Checked{}, "main serving", report(machine.Failed, machine.Preflight)},
			{machine.Hold{}, "main serving behind a closed door", does(machine.CloseGate{}, machine.HoldDrain{})},
		}},
		{"and a stop", held, []step{
			{machine.Stop{}, "main draining to stop", does(machine.TellStopping{}, machine.NotifyStopping{}, machine.CloseGate{}, machine.Drain{Stop: true})},
			{machine.Release{}, "main draining to stop", nil},
			{machine.Hold{}, "main draining to stop", nil},
			{machine.Drained{}, "main exited to stop", does(machine.Exit{})},
		}},
		{"while others drain", mainWithDrainers, []step{
			{machine.Hold{}, "main serving behind a closed door, drainers [1 2]", does(machine.CloseGate{}, machine.HoldDrain{})},
			{machine.PeerStopping{Number: 2}, "main serving behind a closed door, drainers [1 2]", nil},
			{machine.PeerGone{Number: 1}, "main serving behind a closed door, drainers [2]", nil},
			{machine.Release{}, "main serving, drainers [2]", does(machine.EndHold{}, machine.OpenGate{})},
		}},
	} {
		t.Run(p.name, p.test)
	}
}

// Where it is not for us to say which door is open, a hold means nothing.
func TestHoldMeansNothing(t *testing.T) {
	from := map[string]machine.State{
		"starting":     machine.First(atMostOne),
		"waiting":      young(machine.Waiting),
		"on probation": young(machine.Serving),
		"draining":     after(at(machine.Notifying), machine.Notified{Number: 2, OK: true}),
		"exited":       after(young(machine.Starting), machine.Stop{}),
	}
	for phase := machine.Preflight; phase <= machine.Notifying; phase++ {
		from["upgrading, "+phase.String()] = staging(phase)
	}
	for name, s := range from {
		t.Run(name, func(t *testing.T) {
			for _, e := range []machine.Event{machine.Hold{}, machine.Release{}} {
				next, effects := machine.Step(s, e)
				assert.Equal(t, s, next)
				assert.Empty(t, effects)
			}
		})
	}
}
