package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// pauseCmd is "hdctl pause".
type pauseCmd struct {
	Unit   string `arg:"" optional:"" name:"unit" help:"The service. May be left out if there is only one."`
	Reason string `required:"" placeholder:"TEXT" help:"Why: whoever is refused will read it."`
}

// Help is shown by hdctl pause --help.
func (pauseCmd) Help() string {
	return `Upgrades are refused, whoever asks for one, until hdctl resume. An upgrade in progress goes on; an automatic one stays at its step. A rollback is not refused. It outlasts upgrades and, if the service has a state directory, restarts. To pause twice replaces the reason.

Example:

    hdctl pause app --reason "migration of the database, ask Ann"
    hdctl resume app
`
}

// Run has the service refuse upgrades.
func (c *pauseCmd) Run(ctx context.Context, a *app) error {
	return a.pause(ctx, c.Unit, control.PauseRequest{Reason: c.Reason, Via: a.via()}, func(t target, before, after *control.Status) string {
		switch {
		case after.Paused == nil:
			return "upgrades are allowed again: somebody else has resumed them"
		case before.Paused != nil:
			return fmt.Sprintf("upgrades stay paused; until now %s", pausedText(before.Paused, after.Time))
		}
		text := "upgrades are refused from now on; " + t.command("resume") + " allows them again"
		if p := after.Upgrade; p != nil {
			text += fmt.Sprintf("; upgrade %d -> %d, in progress, goes on", p.From, p.To)
			if p.Stage != nil && p.Stage.Auto != nil {
				text += fmt.Sprintf(", but not beyond %s", percent(p.Stage.Share))
			}
		}
		return text
	})
}

// pause asks for a pause, or for its end, and prints what outcome makes of the
// status before and after that.
func (a *app) pause(ctx context.Context, unit string, req control.PauseRequest, outcome func(t target, before, after *control.Status) string) error {
	t, err := a.only(unit)
	if err != nil {
		return err
	}
	var before, after *control.Status
	err = a.call(ctx, t, a.patience.before, func(ctx context.Context, client *control.Client) (err error) {
		if before, err = client.Status(ctx); err != nil {
			return err
		}
		after, err = client.Pause(ctx, req)
		return err
	})
	if err != nil {
		return err
	}
	if t.name == "" {
		t.name = after.Service
	}
	return a.printDone(after, fmt.Sprintf("%s: %s", t, outcome(t, before, after)))
}

// pausedText is "paused by ann via hdctl 3m12s ago (the reason)".
func pausedText(p *control.Pause, now time.Time) string {
	by := ""
	if who := whoText(p.Trigger, p.User); who != "" {
		by = " by " + who
	}
	if p.Trigger.Via != "" {
		by += " via " + clean(p.Trigger.Via)
	}
	return fmt.Sprintf("paused%s %s ago%s", by, since(now, p.Since), inParens(p.Trigger.Reason))
}

// whoText names who asked; "" where nobody knows.
func whoText(t control.Trigger, user string) string {
	switch {
	case user != "":
		return clean(user)
	case t.PID != 0:
		return "uid " + strconv.Itoa(t.UID)
	}
	return ""
}
