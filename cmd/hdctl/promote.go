package main

import (
	"context"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// promoteCmd is "hdctl promote".
type promoteCmd struct {
	Unit  string  `arg:"" optional:"" name:"unit" help:"The service. May be left out if there is only one."`
	Share percent `placeholder:"SHARE" help:"Give it this share of the new connections, as 50%, and not all."`
	following
}

// Help is shown by hdctl promote --help.
func (promoteCmd) Help() string {
	return `Gives the new generation of a staged upgrade all new connections: the upgrade goes on as one without a stage, probation included, and ends like one. With --share it stays staged, with another share.

Exit status: as of hdctl upgrade; 7 if there is nothing to promote.

Example:

    hdctl upgrade app --stage 5%
    hdctl promote app --share 50%
    hdctl promote app
`
}

// Run promotes the staged generation and reports what came of it.
func (c *promoteCmd) Run(ctx context.Context, a *app) error {
	at, err := a.begin(ctx, c.Unit, aPromotion, c.Wait)
	if err != nil {
		return err
	}
	at.share = float64(c.Share)
	var deadline time.Time
	if p := at.before.Upgrade; p != nil {
		at.generation = p.To
		if p.Stage != nil {
			deadline = p.Stage.Deadline
		}
	}
	req := control.PromoteRequest{
		Share:   float64(c.Share),
		Wait:    c.Wait,
		Timeout: a.globals.Timeout.Seconds(),
		Reason:  c.Reason,
		Via:     a.via(),
	}
	at.send = func(ctx context.Context, on func(control.Event)) (*control.Result, error) {
		return at.client.Promote(ctx, req, on)
	}
	result, err := a.try(ctx, at)
	if result == nil {
		return err
	}
	if result.Outcome == control.OutcomeStaged {
		left := time.Duration(0)
		if !deadline.IsZero() {
			left = deadline.Sub(at.before.Time)
		}
		return a.reportStaged(at, result, left)
	}
	return a.reportResult(at, result)
}
