package main

import (
	"context"
	"errors"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// call lets ask ask a service something, for not longer than --timeout, or
// without that for limit. It turns an error into the end of a verb.
func (a *app) call(ctx context.Context, t target, limit time.Duration, ask func(context.Context, *control.Client) error) error {
	if a.globals.Timeout > 0 {
		limit = a.globals.Timeout
	}
	askCtx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := ask(askCtx, a.client(t))
	switch {
	case err == nil:
		return nil
	case notRunning(err):
		return a.absent(ctx, t, err)
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return exitf(exitUnknown, "%s: no answer within %v", t, limit).withHint("%s", t.command("status"))
	}
	return apiError(t, err)
}

// printDone prints what a command has led to: v as JSON, or for people a line.
func (a *app) printDone(v any, line string) error {
	switch {
	case a.globals.Format == "json":
		return a.printJSON(v, true)
	case a.globals.Format == "jsonl":
		return a.printJSON(v, false)
	case !a.quiet:
		a.printf("%s\n", line)
	}
	return nil
}
