package main

import (
	"context"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// upgradeCmd is "hdctl upgrade".
type upgradeCmd struct {
	Unit string `arg:"" optional:"" name:"unit" help:"The service. May be left out if there is only one."`
	following
	NoBlock   bool   `help:"Return when the service has begun with it."`
	Queue     bool   `help:"If an upgrade is in progress, wait for it, then run this one. For ExecReload=."`
	IfChanged bool   `help:"Do nothing if the program on disk is the one that runs."`
	DryRun    bool   `help:"Only check what speaks against it, as hdctl check does."`
	Binary    string `placeholder:"PATH" help:"Run this program, if the service allows it. It stays the one of a restart that the unit names."`

	Stage        percent       `xor:"rollout" placeholder:"SHARE" help:"Give the new generation this share of the new connections, as 5%, until promote or rollback."`
	StageTimeout time.Duration `placeholder:"DURATION" help:"Roll back if neither has come after this time."`
	Auto         bool          `xor:"rollout" help:"Give it more, step by step, as long as it answers as well as the old one; else roll back."`
	Step         []rolloutStep `sep:"none" placeholder:"SHARE:DURATION" help:"A step of --auto; repeat it for more (5%:30s, 25%:30s, 100%:30s)."`
	MinRequests  int           `placeholder:"N" help:"How many requests the new generation must have answered in a step of --auto (50)."`
	MaxErrors    percent       `placeholder:"PERCENT" help:"By how many percentage points more of its requests may fail than of the old one's (1%)."`
	MaxSlowdown  float64       `placeholder:"FACTOR" help:"How many times as long its median answer may take (2)."`
}

// Help is shown by hdctl upgrade --help.
func (upgradeCmd) Help() string {
	return `Ctrl-C stops the waiting, not the upgrade.

Exit status: 0 upgraded, staged, unchanged, or nothing speaks against it (--dry-run); 1 failed, rolled back or inconclusive, 6 timed out, 7 refused: the old generation still serves; 8 upgraded, but connections were cut (--wait=drained); 9 outcome unknown; 10 failed, and nobody serves.

Example:

    hdctl upgrade app
    hdctl upgrade app --wait=drained --reason "CVE-2026-1"
    hdctl upgrade app --stage 5% && hdctl status app --watch
    hdctl upgrade app --auto --step 1%:1m --step 50%:5m
    ExecReload=/usr/bin/hdctl upgrade --queue app
`
}

// Run asks for an upgrade and reports how it ended.
func (c *upgradeCmd) Run(ctx context.Context, a *app) error {
	if c.DryRun {
		return c.check(ctx, a)
	}
	req, err := c.request(a)
	if err != nil {
		return err
	}
	at, err := a.begin(ctx, c.Unit, anUpgrade, c.Wait)
	if err != nil {
		return err
	}
	at.queue, at.noBlock, at.share = c.Queue, c.NoBlock, req.Stage
	if c.Auto {
		at.steps = stepsTime(req.Auto.Steps)
	}
	at.send = func(ctx context.Context, on func(control.Event)) (*control.Result, error) {
		return at.client.Upgrade(ctx, *req, on)
	}
	result, err := a.try(ctx, at)
	if result == nil {
		return err
	}
	if result.Outcome == control.OutcomeStaged {
		return a.reportStaged(at, result, c.stageTimeout(at.before.Options))
	}
	if result.Outcome == control.OutcomeConfirmed && c.Stage != 0 {
		a.warnf("%s is too old to know stages: all connections went to the new generation at once", at.target)
	}
	return a.reportResult(at, result)
}

// request is what the flags ask for.
func (c *upgradeCmd) request(a *app) (*control.UpgradeRequest, error) {
	req := &control.UpgradeRequest{
		Wait:         c.Wait,
		Queue:        c.Queue,
		Timeout:      a.globals.Timeout.Seconds(),
		Reason:       c.Reason,
		Via:          a.via(),
		Stage:        float64(c.Stage),
		StageTimeout: c.StageTimeout.Seconds(),
		IfChanged:    c.IfChanged,
		DryRun:       c.DryRun,
	}
	if c.Binary != "" {
		// The service has a working directory of its own.
		path, err := filepath.Abs(c.Binary)
		if err != nil {
			return nil, exitf(exitUsage, "--binary %s: %w", c.Binary, err)
		}
		req.Binary = path
	}
	switch {
	case c.StageTimeout < 0:
		return nil, exitf(exitUsage, "--stage-timeout: %v is negative", c.StageTimeout)
	case c.StageTimeout > 0 && c.Stage == 0:
		return nil, exitf(exitUsage, "--stage-timeout is for --stage")
	case c.MinRequests < 0:
		return nil, exitf(exitUsage, "--min-requests: %d is negative", c.MinRequests)
	case c.MaxSlowdown != 0 && !(c.MaxSlowdown >= 1): // a NaN, too
		return nil, exitf(exitUsage, "--max-slowdown: %g is less than 1, which is as fast as the old one", c.MaxSlowdown)
	case c.Auto:
		req.Auto = &control.Auto{MinRequests: c.MinRequests, MaxErrors: float64(c.MaxErrors), MaxSlowdown: c.MaxSlowdown}
		for _, s := range c.Step {
			req.Auto.Steps = append(req.Auto.Steps, control.Step(s))
		}
	case len(c.Step) > 0 || c.MinRequests != 0 || c.MaxErrors != 0 || c.MaxSlowdown != 0:
		return nil, exitf(exitUsage, "--step, --min-requests, --max-errors and --max-slowdown are for --auto")
	}
	return req, nil
}

// stageTimeout is how long the upgrade may stay staged.
func (c *upgradeCmd) stageTimeout(o control.Settings) time.Duration {
	if c.StageTimeout > 0 {
		return c.StageTimeout
	}
	return seconds(o.StageTimeout)
}

// via tells whether this is the ExecReload= of a unit: systemd gives control
// processes the PID of the main one, and, since version 248, their own
// (systemd.exec(5)).
func (a *app) via() string {
	if a.env["MAINPID"] != "" && a.env["INVOCATION_ID"] != "" && a.env["SYSTEMD_EXEC_PID"] == strconv.Itoa(a.pid) {
		return control.ViaSystemctl
	}
	return control.ViaHdctl
}
