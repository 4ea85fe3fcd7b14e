package main

import (
	"context"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// driftFunc returns in what the process pid differs from what its unit says now. An
// error means that systemd cannot be asked.
type driftFunc func(ctx context.Context, unit string, pid int, user bool) ([]control.Check, error)

// systemdDrift is the real driftFunc.
func systemdDrift(ctx context.Context, unit string, pid int, user bool) ([]control.Check, error) {
	findings, err := units.Drift(ctx, unit, pid, units.Systemctl(user))
	if err != nil {
		return nil, err
	}
	checks := make([]control.Check, 0, len(findings))
	for _, f := range findings {
		c := control.Check{Name: f.Name, Result: control.CheckWarning, Message: f.Message, Hint: f.Hint}
		if f.Result == units.FindingOK {
			c.Result = control.CheckOK
		}
		checks = append(checks, c)
	}
	return checks, nil
}
