package main

import (
	"context"
	"errors"
	"slices"
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
	return (&eventFollower{app: a, target: t, client: a.client(t)}).follow(ctx)
}

// eventFollower follows the events of a service from one main generation to the
// next. Each tells its own; it begins with what it knows of those before it.
type eventFollower struct {
	*app
	target target
	client *control.Client

	main      int    // the generation that is asked
	seq       uint64 // of the event that was told last, shown or not; 0: none
	shown     []eventID
	confirmed []confirmID // of those that were shown
}

// confirmID tells confirms apart.
type confirmID struct{ generation, pid int }

// eventID tells events apart, also those of a service that was started again and
// counts from 1, or has fallen back and counts from where it was.
type eventID struct {
	seq  uint64
	time int64
}

// enoughShown is how many events are kept in mind: more than a service remembers.
const enoughShown = 1000

// errMoved ends a stream of events of a generation that is the main one no more.
// It lives on, for as long as it drains, but what happens is told by its successor.
var errMoved = errors.New("another generation is the main one")

// follow prints events until the context ends or the service does.
func (f *eventFollower) follow(ctx context.Context) error {
	if err := f.first(ctx); err != nil {
		return err
	}
	for {
		err := f.client.Events(ctx, true, f.show)
		if ctx.Err() != nil {
			return nil // Ctrl-C is the way to end this
		}
		e, ok := errors.AsType[*control.Error](err)
		switch {
		case errors.Is(err, errMoved):
		case ok && (e.Code == control.CodeUnknown || e.Code == control.CodeStopping) && f.seq > 0:
			// That generation is gone. The next one knows the events so far.
		case notRunning(err):
		case ok:
			return apiError(f.target, err)
		default:
			return err // of stdout
		}
		if err := f.await(ctx, errors.Is(err, errMoved)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// first asks which generation it is that tells.
func (f *eventFollower) first(ctx context.Context) error {
	return f.call(ctx, f.target, f.patience.before, func(ctx context.Context, client *control.Client) error {
		v, err := client.Version(ctx)
		if err == nil {
			f.main = v.Generation
		}
		return err
	})
}

// show prints an event, unless it was printed before.
func (f *eventFollower) show(e control.Event) error {
	// Another generation begins with what it knows, and an old one that has fallen
	// back leaves out more numbers than there can be events.
	if missed := e.Seq - f.seq - 1; f.seq > 0 && e.Seq > f.seq+1 && missed < control.FallBackSeqs {
		f.warnf("%s: %s: too long ago for the service to remember", f.target, count(int(missed), "event")+" missed")
	}
	f.seq = e.Seq
	id := eventID{e.Seq, e.Time.UnixNano()}
	if slices.Contains(f.shown, id) || f.toldTwice(e) {
		return nil
	}
	if f.shown = append(f.shown, id); len(f.shown) > 2*enoughShown {
		f.shown = slices.Delete(f.shown, 0, enoughShown)
	}
	if err := f.printEvent(e); err != nil {
		return err
	}
	if e.Phase != control.PhaseConfirmed {
		return nil
	}
	if f.confirmed = append(f.confirmed, confirmID{e.Generation, e.PID}); len(f.confirmed) > 2*enoughShown {
		f.confirmed = slices.Delete(f.confirmed, 0, enoughShown)
	}
	if e.Generation > f.main {
		f.main = e.Generation
		return errMoved
	}
	return nil
}

// toldTwice tells whether e is a confirm that was shown: the old and the new main
// generation each have an event of it.
func (f *eventFollower) toldTwice(e control.Event) bool {
	return e.Phase == control.PhaseConfirmed && e.PID != 0 && slices.Contains(f.confirmed, confirmID{e.Generation, e.PID})
}

// await waits until the service answers again: after moved, the generation that is
// the main one now.
func (f *eventFollower) await(ctx context.Context, moved bool) error {
	limit := f.patience.back
	if f.globals.Timeout > 0 {
		limit = f.globals.Timeout
	}
	waitCtx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(f.patience.poll)
	defer tick.Stop()
	for said := false; ; {
		v, err := f.client.Version(waitCtx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && (v.Generation >= f.main || !moved):
			f.main = v.Generation
			return nil
		case err != nil && !said:
			f.notef("%s is gone; waiting for it to come back", f.target)
			said = true
		}
		select {
		case <-waitCtx.Done():
			switch {
			case ctx.Err() != nil:
				return nil
			case err == nil: // an older one answers again: it has fallen back
				f.main = v.Generation
				return nil
			}
			return exitf(exitNotRunning, "%s did not come back within %v", f.target, limit)
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
