package main

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// upgradeCmd is "hdctl upgrade".
type upgradeCmd struct {
	Unit      string `arg:"" optional:"" name:"unit" help:"The service. May be left out if there is only one."`
	Wait      string `enum:"confirmed,drained" default:"confirmed" placeholder:"WHAT" help:"Wait until the new generation is confirmed, or until the old one is drained, too."`
	NoBlock   bool   `help:"Return when the service has begun with it."`
	Queue     bool   `help:"If an upgrade is in progress, wait for it, then run this one. For ExecReload=."`
	IfChanged bool   `help:"Do nothing if the program on disk is the one that runs."`
	Reason    string `placeholder:"TEXT" help:"Why, for the records of the service."`
}

// Help is shown by hdctl upgrade --help.
func (upgradeCmd) Help() string {
	return `Ctrl-C stops the waiting, not the upgrade.

Exit status: 0 upgraded; 1 failed, 6 timed out, 7 refused: the old generation still serves; 8 upgraded, but connections were cut (--wait=drained); 9 outcome unknown; 10 failed, and nobody serves.

Example:

    hdctl upgrade app
    hdctl upgrade app --wait=drained --reason "CVE-2026-1"
    ExecReload=/usr/bin/hdctl upgrade --queue app
`
}

// attempt is one upgrade, as its client sees it.
type attempt struct {
	target target
	client *control.Client
	before *control.Status // before it was asked for
	asked  time.Time
	queue  bool

	generation int // the new one, from the events; 0 before that
	events     int // how many there were
	inferred   int // how often judge saw the same end without a record of it
}

// Run asks for an upgrade and reports how it ended.
func (c *upgradeCmd) Run(ctx context.Context, a *app) error {
	t, err := a.only(c.Unit)
	if err != nil {
		return err
	}
	at := &attempt{target: t, client: a.client(t), queue: c.Queue}
	if at.before, err = a.statusBefore(ctx, at); err != nil {
		return err
	}
	if at.target.name == "" {
		at.target.name = at.before.Service
	}
	// During an upgrade, what runs is about to change.
	if d := at.before.Disk; c.IfChanged && d != nil && d.State == control.DiskSame && at.before.Upgrade == nil {
		return a.reportUnchanged(at)
	}
	result, err := c.ask(ctx, a, at)
	a.endProgress()
	switch {
	case errors.Is(err, errAccepted):
		return a.reportAccepted(at)
	case result == nil && ctx.Err() != nil:
		return exitf(exitUnknown, "%s: stopped waiting; the upgrade goes on", at.target).withHint("%s", at.target.command("status"))
	case errors.Is(err, errOverdue), result != nil && result.Outcome == control.OutcomeUnknown:
		if result, err = a.settle(ctx, at, err); err != nil {
			return err
		}
	case result == nil: // it was not asked
		if notRunning(err) {
			return a.absent(ctx, at.target, err)
		}
		return apiError(at.target, err)
	}
	return a.reportResult(at, c.Wait, result)
}

// statusBefore asks the service how it is before anything is asked of it: the
// limits that it will keep are needed, and the means to find out later what
// happened if its answer is lost.
func (a *app) statusBefore(ctx context.Context, at *attempt) (*control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, a.patience.before)
	defer cancel()
	at.asked = a.now()
	s, err := at.client.Status(ctx)
	switch {
	case err == nil:
		return s, nil
	case notRunning(err):
		return nil, a.absent(ctx, at.target, err)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, exitf(exitUnknown, "%s does not answer; no upgrade was asked for", at.target).
			withHint("%s", at.target.command("status"))
	}
	return nil, apiError(at.target, err)
}

// Causes of the end of the context of a request.
var (
	errAccepted = errors.New("accepted")
	errOverdue  = errors.New("the service did not keep its own limit")
)

// ask sends the request and follows it. The error is errAccepted if nobody
// wants to wait for the result.
func (c *upgradeCmd) ask(ctx context.Context, a *app, at *attempt) (*control.Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The service enforces the limit. This is for one that does not.
	overdue := time.AfterFunc(time.Hour, func() { cancel(errOverdue) })
	defer overdue.Stop()
	limit(overdue, a.confirmLimit(at.before.Options), a.patience.slack)

	req := control.UpgradeRequest{
		Wait:    c.Wait,
		Queue:   c.Queue,
		Timeout: a.globals.Timeout.Seconds(),
		Reason:  c.Reason,
		Via:     a.via(),
	}
	at.asked = a.now()
	result, err := at.client.Upgrade(ctx, req, func(e control.Event) {
		at.note(e)
		c.showEvent(a, at.target, e)
		if c.NoBlock {
			cancel(errAccepted)
		}
		if e.Phase == control.PhaseConfirmed {
			o := at.before.Options
			limit(overdue, seconds(o.DrainTimeout), seconds(o.DrainDelay+o.DrainSpread)+a.patience.slack+a.patience.settle)
		}
	})
	// If the result came all the same, it counts.
	if cause := context.Cause(ctx); result == nil && (errors.Is(cause, errAccepted) || errors.Is(cause, errOverdue)) {
		return nil, cause
	}
	return result, err
}

// note keeps what an event tells about the upgrade itself.
func (at *attempt) note(e control.Event) {
	at.events++
	switch e.Phase {
	case control.PhaseStart, control.PhaseReady, control.PhaseProbation, control.PhaseConfirm, control.PhaseConfirmed:
		if e.Generation > at.before.Main {
			at.generation = e.Generation
		}
	}
}

// limit sets a timer for a limit of the service; 0 is none.
func limit(t *time.Timer, d, slack time.Duration) {
	if d <= 0 {
		t.Stop()
		return
	}
	t.Reset(d + slack)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// confirmLimit is the time after which the service answers whether the upgrade
// is confirmed; 0 is never.
func (a *app) confirmLimit(o control.Settings) time.Duration {
	switch {
	case a.globals.Timeout > 0:
		return a.globals.Timeout
	case o.ReadyTimeout <= 0:
		return 0
	}
	return seconds(o.ReadyTimeout+o.Probation) + 10*time.Second // see control.UpgradeRequest.Timeout
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
