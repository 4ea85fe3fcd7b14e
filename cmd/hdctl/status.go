package main

import (
	"context"
	"encoding/json"
	"slices"
)

// statusCmd is "hdctl status".
type statusCmd struct {
	Units []string `arg:"" optional:"" name:"unit" help:"Services, or patterns as 'web*'. Default: all that have a control socket."`
	watching
}

// Help is shown by hdctl status --help.
func (statusCmd) Help() string {
	return `Exit status: 0 if the service serves, 3 if it is not running (or not serving), 4 if there is none, 9 if it does not answer; of several services the largest of these.

Example:

    hdctl status app
    hdctl status --watch
    hdctl status app -o json | jq '.generations[].conns.total'
`
}

// Run shows the status, once or until the context ends.
func (c *statusCmd) Run(ctx context.Context, a *app) error {
	return c.run(ctx, a, func(ctx context.Context) (func(int) error, int, error) {
		reports, err := c.look(ctx, a)
		if err != nil {
			return nil, 0, err
		}
		return func(int) error { return c.show(a, reports) }, worst(reports), nil
	})
}

// look asks all services, at the same time.
func (c *statusCmd) look(ctx context.Context, a *app) ([]*statusReport, error) {
	targets, err := a.several(c.Units)
	if err != nil {
		return nil, err
	}
	if len(targets) == 0 {
		return nil, a.noServices()
	}
	return a.reports(ctx, targets), nil
}

// reports asks the targets.
func (a *app) reports(ctx context.Context, targets []target) []*statusReport {
	return askAll(targets, func(t target) *statusReport { return a.report(ctx, t) })
}

// show prints the reports in the format that was asked for.
func (c *statusCmd) show(a *app, reports []*statusReport) error {
	switch a.globals.Format {
	case "json":
		// One service that was asked for by name is not a list of services.
		if len(c.Units) == 1 && len(reports) == 1 || a.globals.Socket != "" {
			return a.printJSON(reports[0], true)
		}
		return a.printJSON(reports, true)
	case "jsonl":
		for _, r := range reports {
			if err := a.printJSON(r, false); err != nil {
				return err
			}
		}
		return nil
	}
	if a.quiet {
		return nil
	}
	for i, r := range reports {
		if r.Condition == condNoService {
			a.errorf("%s", clean(r.Error.Message))
			if r.Error.Hint != "" {
				a.hintf("%s", clean(r.Error.Hint))
			}
			continue
		}
		if i > 0 {
			a.printf("\n")
		}
		a.printReport(r)
	}
	return nil
}

// printJSON prints v on stdout as JSON.
func (t *terminal) printJSON(v any, indent bool) error {
	t.endProgress()
	e := json.NewEncoder(t.stdout)
	e.SetEscapeHTML(false) // "6 -> 7" is not for a browser
	if indent {
		e.SetIndent("", "  ")
	}
	return e.Encode(v)
}

// worst is the exit status for several services.
func worst(reports []*statusReport) int {
	codes := make([]int, len(reports))
	for i, r := range reports {
		codes[i] = r.exit
	}
	return slices.Max(codes)
}
