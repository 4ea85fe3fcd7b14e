package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hdctl/handoff/upgrade/control"
)

// checkCmd is "hdctl check".
type checkCmd struct {
	Unit   string `arg:"" optional:"" name:"unit" help:"The service. May be left out if there is only one."`
	Binary string `placeholder:"PATH" help:"Check this program, as hdctl upgrade --binary would run it."`
}

// Help is shown by hdctl check --help.
func (checkCmd) Help() string {
	return `The service looks at the program that an upgrade would start, and has it check its configuration, if it has a command for that; nothing is started that serves. hdctl adds what an upgrade does not bring into force, since the new process is started by the old one: what has changed in the unit. The same as hdctl upgrade --dry-run.

Exit status: 0 if nothing speaks against an upgrade (there may be warnings), 1 if something does.

Example:

    hdctl check app && hdctl upgrade app
    hdctl check app -o json | jq '.checks[] | select(.result != "ok")'
`
}

// Run checks, and changes nothing.
func (c *checkCmd) Run(ctx context.Context, a *app) error {
	up := upgradeCmd{Unit: c.Unit, Binary: c.Binary, DryRun: true}
	up.Wait = control.WaitConfirmed
	return up.check(ctx, a)
}

// check is what hdctl check and hdctl upgrade --dry-run do.
func (c *upgradeCmd) check(ctx context.Context, a *app) error {
	req, err := c.request(a)
	if err != nil {
		return err
	}
	at, err := a.begin(ctx, c.Unit, aCheck, c.Wait)
	if err != nil {
		return err
	}
	at.send = func(ctx context.Context, on func(control.Event)) (*control.Result, error) {
		return at.client.Upgrade(ctx, *req, on)
	}
	result, err := a.try(ctx, at)
	if result == nil {
		return err
	}
	switch result.Outcome {
	case control.OutcomeUnchanged:
		return a.reportUnchanged(at, result)
	case control.OutcomeChecked, control.OutcomeFailed:
		return a.reportChecks(ctx, at, result)
	case control.OutcomeConfirmed:
		a.printResult(result, "")
		return exitf(exitFailed, "%s: it was %s, although only a check was asked for: the service is too old to know the difference", at.target, successText(result))
	}
	return a.reportResult(at, result) // a refusal
}

// reportChecks prints what the service has found, and what systemd adds to that.
func (a *app) reportChecks(ctx context.Context, at *attempt, r *control.Result) error {
	drift, err := a.unitDrift(ctx, at.before)
	switch {
	case errors.Is(err, errNoUnit):
	case err != nil:
		a.notef("%s: what has changed in the unit was not looked at: %s", at.target, clean(err.Error()))
	}
	r.Checks = append(r.Checks, drift...)
	failed := 0
	for _, c := range r.Checks {
		if c.Result == control.CheckFailed {
			failed++
		}
	}
	if failed > 0 && r.Outcome == control.OutcomeChecked {
		r.Outcome, r.Phase = control.OutcomeFailed, control.PhasePreflight
		r.Error = control.Errorf(control.CodeCheckFailed, "the unit is not as it should be")
	}
	a.printResult(r, "")
	if a.globals.Format == "table" || a.globals.Format == "wide" {
		a.printChecks(r.Checks)
	}
	switch {
	case failed > 0:
		return exitf(exitFailed, "%s: an upgrade would fail: %s", at.target, count(failed, "check")+" failed")
	case r.Outcome == control.OutcomeFailed:
		return exitf(exitFailed, "%s: an upgrade would fail: %s", at.target, why(r))
	}
	return nil
}

// printChecks prints a table of findings. What a command has printed is below its
// own, line by line, and so is a hint.
func (a *app) printChecks(checks []control.Check) {
	if a.quiet {
		return
	}
	t := &table{columns: []column{left("CHECK"), left("RESULT"), left("FINDING")}}
	for _, c := range checks {
		message, output, _ := strings.Cut(c.Message, "\n")
		t.add(text(c.Name), cell{clean(c.Result), checkStyle(c.Result)}, text(message))
		for line := range strings.Lines(output) {
			t.add(cell{}, cell{}, cell{text: clean(strings.TrimSuffix(line, "\n"))})
		}
		if c.Hint != "" {
			t.add(cell{}, cell{}, cell{text: "hint: " + clean(c.Hint)})
		}
	}
	t.print(&a.terminal, !a.globals.NoLegend)
}

func checkStyle(result string) style {
	switch result {
	case control.CheckOK:
		return green
	case control.CheckWarning:
		return yellow
	}
	return red
}

// errNoUnit says that systemd did not start the service, so that there is no unit
// to differ from.
var errNoUnit = errors.New("systemd has not started it")

// unitDrift says what an upgrade will not bring into force.
func (a *app) unitDrift(ctx context.Context, s *control.Status) ([]control.Check, error) {
	pid := mainPID(s)
	if s.Invocation == "" || pid == 0 {
		return nil, errNoUnit
	}
	unit := unitOf(pid)
	if unit == "" {
		unit = s.Service + ".service"
	}
	ctx, cancel := context.WithTimeout(ctx, a.patience.before)
	defer cancel()
	checks, err := a.drift(ctx, unit, pid, a.globals.User)
	if err != nil {
		return nil, fmt.Errorf("compare with %s: %w", unit, err)
	}
	return checks, nil
}
