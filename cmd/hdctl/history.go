package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// historyCmd is "hdctl history".
type historyCmd struct {
	Unit  string `arg:"" optional:"" name:"unit" help:"The service. May be left out if there is only one."`
	Lines int    `short:"n" default:"20" placeholder:"N" help:"Only the last N upgrades (20); 0 is all."`
}

// Help is shown by hdctl history --help.
func (historyCmd) Help() string {
	return `The newest is first. A service that is not running cannot be asked; then its file is read: /var/lib/handoff/NAME/history.jsonl.

Example:

    hdctl history app
    hdctl history app -n 0 -o jsonl | jq -c 'select(.outcome != "confirmed") | {time, outcome, error}'
`
}

// Run prints the history.
func (c *historyCmd) Run(ctx context.Context, a *app) error {
	if c.Lines < 0 {
		return exitf(exitUsage, "--lines: %d is negative", c.Lines)
	}
	t, err := a.only(c.Unit)
	if err != nil {
		return err
	}
	entries := []control.Entry{} // not null in JSON
	limit := a.patience.before
	if a.globals.Timeout > 0 {
		limit = a.globals.Timeout
	}
	askCtx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = a.client(t).History(askCtx, c.Lines, func(e control.Entry) { entries = append(entries, e) })
	switch {
	case err == nil:
	case notRunning(err):
		if entries, err = c.fromFile(ctx, a, t, err); err != nil {
			return err
		}
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return exitf(exitUnknown, "%s: no answer within %v", t, limit).withHint("%s", t.command("status"))
	default:
		return apiError(t, err)
	}
	return c.print(a, t, entries)
}

// fromFile reads the history of a service that does not run.
func (c *historyCmd) fromFile(ctx context.Context, a *app, t target, asked error) ([]control.Entry, error) {
	if t.name == "" || a.globals.Socket != "" {
		return nil, apiError(t, asked)
	}
	path := a.stateOf(t)
	entries, skipped, err := readHistory(path, c.Lines)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, a.absent(ctx, t, asked)
	case errors.Is(err, fs.ErrPermission):
		return nil, exitf(exitPermission, "%s is not running, and its history cannot be read: %w", t, err).
			withHint("root and the service's user may; try it with sudo")
	case err != nil:
		return nil, exitf(exitFailed, "%s is not running, and its history cannot be read: %w", t, err)
	}
	a.notef("%s is not running; this is from %s", t, path)
	if skipped > 0 {
		a.warnf("%s that could not be read: left out", count(skipped, "line"))
	}
	return entries, nil
}

// print prints the entries, the newest first.
func (c *historyCmd) print(a *app, t target, entries []control.Entry) error {
	switch a.globals.Format {
	case "json":
		return a.printJSON(entries, true)
	case "jsonl":
		for _, e := range entries {
			if err := a.printJSON(e, false); err != nil {
				return err
			}
		}
		return nil
	}
	if len(entries) == 0 {
		a.notef("%s: there is no upgrade on record", t)
		return nil
	}
	a.historyTable(entries, a.globals.Format == "wide").print(&a.terminal, !a.globals.NoLegend)
	return nil
}

// historyTable has a row for each upgrade.
func (a *app) historyTable(entries []control.Entry, wide bool) *table {
	t := &table{columns: []column{
		left("TIME"), right("FROM"), right("TO"), left("VERSION"), left("OUTCOME"), right("TOOK"),
		left("VIA"), left("WHO"), right("MIGRATED"), right("CUT"),
	}}
	if wide {
		t.columns = append(t.columns, left("FROM VERSION"), left("SHA256"), right("PID"), right("SERVING"), right("DRAINED"))
	}
	t.columns = append(t.columns, left("REASON"))
	for _, e := range entries {
		outcome := clean(e.Outcome)
		if e.Rollback {
			outcome += " rollback"
		}
		took := e.Total
		if e.Outcome == control.OutcomeConfirmed {
			took = e.Confirmed // not until the client was answered
		}
		row := []cell{
			{text: e.Time.Local().Format(time.DateTime)},
			number(e.From), number(e.To), text(e.Version),
			{outcome, outcomeStyle(e.Outcome)},
			{text: lastedOrDash(took)},
			text(e.Trigger.Via),
			{text: orDash(whoText(e.Trigger, e.User))},
			{text: strconv.Itoa(e.Migrated)},
			{text: strconv.Itoa(e.Cut.Total)},
		}
		reason := entryReason(&e)
		if wide {
			digest := e.ToDigest
			if len(digest) > 12 {
				digest = digest[:12]
			}
			drained := "-"
			if !e.DrainEnded.IsZero() {
				drained = since(e.DrainEnded, e.Time)
			}
			row = append(row, text(e.FromVersion), text(digest), number(e.ToPID), cell{text: lastedOrDash(e.Serving)}, cell{text: drained})
		} else {
			reason = truncate(reason, 60)
		}
		t.add(append(row, text(reason))...)
	}
	return t
}

// lastedOrDash prints a measured time; "-" if there is none.
func lastedOrDash(seconds float64) string {
	if seconds > 0 {
		return lasted(seconds)
	}
	return "-"
}

// number is a cell for a number that is not known if it is 0.
func number(n int) cell {
	if n == 0 {
		return cell{text: "-"}
	}
	return cell{text: strconv.Itoa(n)}
}

// entryReason is why it was done, and, if it did not come about, why not.
func entryReason(e *control.Entry) string {
	switch {
	case e.Outcome == control.OutcomeConfirmed && e.Trigger.Reason == "" && e.Verdict != nil:
		return e.Verdict.Reason
	case e.Outcome == control.OutcomeConfirmed:
		return e.Trigger.Reason
	case e.Trigger.Reason == "":
		return why(&e.Result)
	}
	return fmt.Sprintf("%s (for: %s)", why(&e.Result), e.Trigger.Reason)
}

func outcomeStyle(outcome string) style {
	switch outcome {
	case control.OutcomeConfirmed:
		return green
	case control.OutcomeStopped, control.OutcomeRolledBack, control.OutcomeInconclusive:
		return yellow
	}
	return red
}
