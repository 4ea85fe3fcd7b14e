package main

import (
	"context"
	"fmt"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// drainCmd is "hdctl drain".
type drainCmd struct {
	Unit   string `arg:"" optional:"" name:"unit" help:"The service. May be left out if there is only one."`
	Undo   bool   `help:"Open the door again."`
	Reason string `placeholder:"TEXT" help:"Why, for the records of the service."`
}

// Help is shown by hdctl drain --help.
func (drainCmd) Help() string {
	return `For taking a host out of a load balancer: the service finishes what is open, and accepts nothing. It does not end, and nothing is cut. Its clients are told to go elsewhere; who connects all the same waits in the backlog of the socket until the door is open again. To drain twice is no error.

Example:

    hdctl drain app --reason "kernel update"
    hdctl conns app
    hdctl drain app --undo
`
}

// Run closes the door, or opens it.
func (c *drainCmd) Run(ctx context.Context, a *app) error {
	t, err := a.only(c.Unit)
	if err != nil {
		return err
	}
	var before, after *control.Status
	err = a.call(ctx, t, a.patience.before, func(ctx context.Context, client *control.Client) (err error) {
		if before, err = client.Status(ctx); err != nil {
			return err
		}
		after, err = client.Drain(ctx, control.DrainRequest{Undo: c.Undo, Reason: c.Reason, Via: a.via()})
		return err
	})
	if err != nil {
		return err
	}
	if t.name == "" {
		t.name = after.Service
	}
	return a.printDone(after, fmt.Sprintf("%s: %s", t, c.outcome(t, before, after)))
}

// outcome says what is now, in one line.
func (c *drainCmd) outcome(t target, before, after *control.Status) string {
	switch {
	case after.Held == nil && before.Held == nil:
		return fmt.Sprintf("the door of generation %d is open, as it was", after.Main)
	case after.Held == nil:
		return fmt.Sprintf("generation %d accepts connections again", after.Main)
	}
	accepts := "accepts nothing any more"
	if before.Held != nil {
		accepts = "accepts nothing: " + holdText(after.Held, after.Time)
	}
	open := 0
	for _, g := range after.Generations {
		if g.Number == after.Main {
			open = g.Conns.Total
		}
	}
	return fmt.Sprintf("generation %d %s; %s open; %s opens the door again",
		after.Main, accepts, count(open, "connection"), t.command("drain --undo"))
}

// holdText is "door closed by hdctl 3m12s ago (reason)".
func holdText(h *control.Hold, now time.Time) string {
	by := ""
	if h.Trigger.Via != "" {
		by = " by " + clean(h.Trigger.Via)
	}
	return fmt.Sprintf("door closed%s %s ago%s", by, since(now, h.Since), inParens(h.Trigger.Reason))
}
