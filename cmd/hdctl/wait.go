package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// waitCmd is "hdctl wait".
type waitCmd struct {
	Unit string `arg:"" optional:"" name:"unit" help:"The service. May be left out if there is only one."`
	For  goal   `required:"" placeholder:"WHAT" help:"ready: the main generation serves; drained: no old generation drains; generation=N: generation N, or a later one, is the main one and serves."`
}

// Help is shown by hdctl wait --help.
func (waitCmd) Help() string {
	return `Without --timeout it waits for ever. A service that is not running is waited for, too, except with --for=drained.

Exit status: 0 it is so; 3 the service is not running (--for=drained); 6 timed out.

Example:

    hdctl wait app --for=ready --timeout 30s
    hdctl upgrade app --no-block && hdctl wait app --for=generation=8
    hdctl wait app --for=drained --timeout 15m || hdctl end app
`
}

// Run waits until the goal is reached.
func (c *waitCmd) Run(ctx context.Context, a *app) error {
	t, err := a.only(c.Unit)
	if err != nil {
		return err
	}
	w := &waiting{app: a, target: t, client: a.client(t), goal: c.For}
	s, err := w.wait(ctx)
	if err != nil {
		return err
	}
	return a.printDone(s, fmt.Sprintf("%s: %s", w.target, c.For.reached(s)))
}

// waiting is one wait.
type waiting struct {
	*app
	target target
	client *control.Client
	goal   goal

	obstacle obstacle // what was in the way at the last look
}

// wait looks at the service whenever something has happened to it, and besides
// from time to time, until it is as it should be.
func (w *waiting) wait(parent context.Context) (*control.Status, error) {
	ctx, cancel := context.WithCancel(parent)
	if limit := w.globals.Timeout; limit > 0 {
		overdue := time.AfterFunc(limit, cancel)
		defer overdue.Stop()
	}
	var follower sync.WaitGroup
	defer follower.Wait()
	defer cancel()
	wake := make(chan struct{}, 1)
	follower.Go(func() { w.follow(ctx, wake) })
	tick := time.NewTimer(0)
	defer tick.Stop()
	w.obstacle = obstacle{text: "it has not answered yet"}
	for first := true; ; first = false {
		lookCtx := ctx
		if first {
			lookCtx = parent // even the shortest --timeout is enough for one look
		}
		if s, err := w.look(lookCtx); s != nil || err != nil {
			return s, err
		}
		next := w.patience.look
		if w.obstacle.key == absent || w.obstacle.key == silent {
			next = w.patience.poll // its first event may be long ago when it answers
		}
		tick.Reset(next)
		select {
		case <-wake:
		case <-tick.C:
		case <-ctx.Done():
			return nil, w.end(parent)
		}
	}
}

// end is the end of a wait in vain.
func (w *waiting) end(parent context.Context) error {
	if parent.Err() != nil {
		return exitf(exitUnknown, "%s: stopped waiting: %s", w.target, w.obstacle.text)
	}
	out := exitf(exitTimedOut, "%s: timed out after %v: %s", w.target, w.globals.Timeout, w.obstacle.text)
	if w.goal == goalDrained {
		return out.withHint("%s shows what is open, %s ends it", w.target.command("conns"), w.target.command("end"))
	}
	return out.withHint("%s", w.target.command("status"))
}

// follow wakes the waiting at each event, for as long as ctx lasts. The events
// of a generation end with it, if not before; whoever is main then has the next.
func (w *waiting) follow(ctx context.Context, wake chan<- struct{}) {
	knock := func() {
		select {
		case wake <- struct{}{}:
		default: // it is awake
		}
	}
	for {
		_ = w.client.Events(ctx, true, func(e control.Event) error {
			if e.Phase != control.PhaseOutput { // what a new process prints changes nothing
				knock()
			}
			return nil
		})
		knock() // the look finds out why
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.patience.poll):
		}
	}
}

// look asks the service once. It returns its status if the goal is reached, an
// error if waiting makes no sense, and otherwise neither.
func (w *waiting) look(ctx context.Context) (*control.Status, error) {
	askCtx, cancel := context.WithTimeout(ctx, w.patience.status)
	defer cancel()
	s, err := w.client.Status(askCtx)
	switch {
	case err == nil:
		if w.target.name == "" {
			w.target.name = s.Service
		}
		o := w.goal.obstacle(s)
		if o == (obstacle{}) {
			return s, nil
		}
		w.note(o)
	case ctx.Err() != nil: // that it was not answered in time is no news
	case notRunning(err) && w.goal == goalDrained:
		return nil, w.absent(ctx, w.target, err)
	case notRunning(err):
		if w.obstacle.key != absent {
			// Once, with all that is known: it may be the wrong name.
			e := w.absent(ctx, w.target, err)
			w.notef("%s; waiting for it", e)
			if e.hint != "" && !w.quiet {
				w.hintf("%s", e.hint)
			}
		}
		w.obstacle = obstacle{absent, clean(err.Error())}
	case isSilence(err):
		w.note(obstacle{silent, "it does not answer"})
	default:
		return nil, apiError(w.target, err)
	}
	return nil, nil
}

// isSilence tells whether err says that the service may answer later: it hangs,
// has too much to do, or is being replaced.
func isSilence(err error) bool {
	if e, ok := errors.AsType[*control.Error](err); ok {
		return e.Code == control.CodeUnknown || e.Code == control.CodeBusy || e.Code == control.CodeNotMain || e.Code == control.CodeStopping
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// note shows what is in the way: on a terminal always, and otherwise if it is
// not the same with other numbers.
func (w *waiting) note(o obstacle) {
	_, onTerminal := terminalWidth(w.stderr)
	if o != w.obstacle && (onTerminal || o.key != w.obstacle.key) {
		w.progress(fmt.Sprintf("%s: %s", w.target, o.text))
	}
	w.obstacle = o
}
