package main

import (
	"context"
	"errors"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// eventsCmd is "hdctl events".
type eventsCmd struct {
	Unit   string `arg:"" optional:"" name:"unit" help:"The service. May be left out if there is only one."`
	Follow bool   `short:"f" help:"Go on with those that happen from now on, from one generation to the next."`
}

// Help is shown by hdctl events --help.
func (eventsCmd) Help() string {
	return `Example:

    hdctl events app
    hdctl events app -f -o jsonl
`
}

// Run prints the events that the service remembers, and follows it.
func (c *eventsCmd) Run(ctx context.Context, a *app) error {
	t, err := a.only(c.Unit)
	if err != nil {
		return err
	}
	if !c.Follow {
		return c.past(ctx, a, t)
	}
	client := a.client(t)
	var last control.Event
	show := func(e control.Event) error {
		// A new connection begins with what is remembered. A service that was
		// started again counts from 1, but later.
		if e.Seq <= last.Seq && !e.Time.After(last.Time) {
			return nil
		}
		last = e
		return a.printEvent(e)
	}
	for {
		err := client.Events(ctx, true, show)
		if ctx.Err() != nil {
			return nil // Ctrl-C is the way to end this
		}
		e, ok := errors.AsType[*control.Error](err)
		switch {
		case ok && (e.Code == control.CodeUnknown || e.Code == control.CodeStopping) && last.Seq > 0:
			// That generation is gone. The next one knows the events so far.
		case notRunning(err) && last.Seq == 0:
			return a.absent(ctx, t, err)
		case notRunning(err):
		case ok:
			return apiError(t, err)
		default:
			return err // of stdout
		}
		if err := c.await(ctx, a, t, client); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// await waits until the service answers again.
func (*eventsCmd) await(ctx context.Context, a *app, t target, client *control.Client) error {
	limit := a.patience.back
	if a.globals.Timeout > 0 {
		limit = a.globals.Timeout
	}
	waitCtx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(a.patience.poll)
	defer tick.Stop()
	for said := false; ; {
		_, err := client.Version(waitCtx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if !said {
			a.notef("%s is gone; waiting for it to come back", t)
			said = true
		}
		select {
		case <-waitCtx.Done():
			if ctx.Err() != nil {
				return nil
			}
			return exitf(exitNotRunning, "%s did not come back within %v", t, limit)
		case <-tick.C:
		}
	}
}

// past prints what is remembered.
func (c *eventsCmd) past(ctx context.Context, a *app, t target) error {
	events := []control.Event{}
	show := a.printEvent
	if a.globals.Format == "json" {
		show = func(e control.Event) error {
			events = append(events, e)
			return nil
		}
	}
	err := a.call(ctx, t, a.patience.before, func(ctx context.Context, client *control.Client) error {
		return client.Events(ctx, false, show)
	})
	if err == nil && a.globals.Format == "json" {
		return a.printJSON(events, true)
	}
	return err
}

// printEvent prints one event: columns cannot be aligned to what is not known
// yet, so their widths are fixed.
func (a *app) printEvent(e control.Event) error {
	if a.globals.Format == "json" || a.globals.Format == "jsonl" {
		return a.printJSON(e, false)
	}
	generation := "-"
	if e.Generation > 0 {
		generation = named(e.Generation, "")[len("generation "):]
	}
	a.printf("%s  %-9s  %3s  %s\n", e.Time.Local().Format("2006-01-02 15:04:05.000"), clean(e.Phase), generation, clean(eventText(e)))
	return nil
}
