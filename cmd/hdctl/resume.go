package main

import (
	"context"
	"fmt"

	"github.com/hdctl/handoff/upgrade/control"
)

// resumeCmd is "hdctl resume".
type resumeCmd struct {
	Unit   string `arg:"" optional:"" name:"unit" help:"The service. May be left out if there is only one."`
	Reason string `placeholder:"TEXT" help:"Why, for the records of the service."`
}

// Help is shown by hdctl resume --help.
func (resumeCmd) Help() string {
	return `Allows upgrades again after hdctl pause; an automatic one in progress goes on. It is no error if they are allowed.

Example:

    hdctl resume app
`
}

// Run has the service allow upgrades.
func (c *resumeCmd) Run(ctx context.Context, a *app) error {
	return a.pause(ctx, c.Unit, control.PauseRequest{Undo: true, Reason: c.Reason, Via: a.via()}, func(_ target, before, after *control.Status) string {
		switch {
		case after.Paused != nil:
			return "upgrades are " + pausedText(after.Paused, after.Time) + " again"
		case before.Paused == nil:
			return "upgrades are allowed, as they were"
		}
		return fmt.Sprintf("upgrades are allowed again; they were %s", pausedText(before.Paused, after.Time))
	})
}
