package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/hdctl/handoff/upgrade/control"
)

// rollbackCmd is "hdctl rollback".
type rollbackCmd struct {
	Unit string `arg:"" optional:"" name:"unit" help:"The service. May be left out if there is only one."`
	following
	Install bool `help:"Put the file of the version that then runs back on disk, so that a restart starts it, too."`
}

// Help is shown by hdctl rollback --help.
func (rollbackCmd) Help() string {
	return `During an upgrade, staged or on probation: the old generation serves all again, and the new one finishes what it has. After it: the previous version runs again, as an upgrade to it, even if its file was replaced or deleted. Upgrades that are paused do not hinder it.

What is on disk does not change without --install: a restart starts that.

Exit status: 0 rolled back; 1 failed, or it could not be installed; 7 refused: as when there is no previous version; else as of hdctl upgrade.

Example:

    hdctl rollback app --reason "answers 500"
    hdctl rollback app --install
`
}

// rollbackReport is what "hdctl rollback -o json" prints. Fields are only added.
type rollbackReport struct {
	*control.Result
	Disk      *control.Disk `json:"disk,omitempty"`      // before it was installed
	Installed string        `json:"installed,omitempty"` // the path
}

// Run rolls back and says what is on disk.
func (c *rollbackCmd) Run(ctx context.Context, a *app) error {
	at, err := a.begin(ctx, c.Unit, aRollback, c.Wait)
	if err != nil {
		return err
	}
	if at.before.Upgrade != nil {
		at.undoes = at.before.Upgrade.To
		at.generation = at.undoes
	}
	req := control.RollbackRequest{Wait: c.Wait, Timeout: a.globals.Timeout.Seconds(), Reason: c.Reason, Via: a.via()}
	at.send = func(ctx context.Context, on func(control.Event)) (*control.Result, error) {
		return at.client.Rollback(ctx, req, on)
	}
	result, err := a.try(ctx, at)
	switch {
	case result == nil:
		return err
	case result.Outcome == control.OutcomeConfirmed && at.undoes != 0 && result.To == at.undoes && !result.Rollback:
		a.printResult(result, "")
		return exitf(exitFailed, "%s: too late: generation %d was confirmed before it could be rolled back", at.target, result.To).
			withHint("%s", at.target.command("rollback"))
	case result.Outcome != control.OutcomeConfirmed && result.Outcome != control.OutcomeRolledBack:
		return a.reportResult(at, result)
	}
	return c.report(ctx, a, at, result)
}

// report prints what a rollback has led to, and installs if that was asked for.
func (c *rollbackCmd) report(ctx context.Context, a *app, at *attempt, r *control.Result) error {
	report := rollbackReport{Result: r}
	line := fmt.Sprintf("%s: %s", at.target, rolledBackText(r))
	restored := restoredOf(at.before, r)
	exe, openErr := restored.open()
	if openErr == nil {
		defer exe.Close()
	}
	// Only now: that the process still is the main one means that what was opened
	// is its file.
	s, err := a.statusOnce(ctx, at)
	if err == nil {
		report.Disk = s.Disk
	}
	var installErr error
	if c.Install {
		switch {
		case err != nil:
			installErr = fmt.Errorf("what is on disk is not known: %w", cleanError{err})
		case openErr != nil:
			installErr = openErr
		default:
			report.Installed, installErr = restored.install(exe, s, at.before.Previous)
		}
	}
	switch a.globals.Format {
	case "json":
		err = a.printJSON(report, true)
	case "jsonl":
		err = a.printJSON(struct {
			Result rollbackReport `json:"result"`
		}{report}, false)
	default:
		if !a.quiet {
			a.printf("%s\n", line)
			c.printDisk(a, at, report, s, restored)
		}
		err = nil
	}
	if err != nil {
		a.warnf("print the result: %v", err)
	}
	if installErr != nil {
		out := exitf(exitFailed, "%s: rolled back, but the file was not put back: %w", at.target, installErr)
		if e, ok := errors.AsType[*installError](installErr); ok {
			out.hint = e.hint
		} else if report.Disk != nil {
			out.hint = restored.byHand(report.Disk.Path)
		}
		return out
	}
	return drainError(at, r)
}

// printDisk says what a restart would start.
func (c *rollbackCmd) printDisk(a *app, at *attempt, report rollbackReport, s *control.Status, restored restored) {
	d := report.Disk
	switch {
	case report.Installed != "":
		a.printf("%s: %s is the file that runs again: a restart would start it\n", at.target, clean(report.Installed))
	case d == nil:
		a.warnf("%s did not say what is on disk: %s", at.target, at.target.command("status"))
	case d.State == control.DiskSame:
		a.printf("%s: on disk: %s is what runs: a restart would start it\n", at.target, clean(d.Path))
	default:
		a.printf("%s: on disk: %s\n", at.target, a.diskText(s))
		if !c.Install {
			a.hintf("%s", restored.byHand(d.Path))
		}
	}
}

// rolledBackText says what serves now: "rolled back 7 -> 8 (v2): generation 7
// serves all", "rolled back 8 (v2) -> 9 (v1): serving in 41ms, confirmed in 2.04s".
func rolledBackText(r *control.Result) string {
	if r.Outcome == control.OutcomeRolledBack {
		return fmt.Sprintf("rolled back %d -> %d%s: %s serves all", r.From, r.To, inParens(r.Version), named(r.From, r.FromVersion))
	}
	return fmt.Sprintf("rolled back %d%s -> %d%s%s", r.From, inParens(r.FromVersion), r.To, inParens(r.Version), timesText(r))
}
