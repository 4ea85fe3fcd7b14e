package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// endCmd is "hdctl end".
type endCmd struct {
	Unit       string `arg:"" optional:"" name:"unit" help:"The service. May be left out if there is only one."`
	Generation int    `placeholder:"N" help:"End this generation. Default: all that drain."`
	Grace      span   `xor:"how" placeholder:"DURATION" help:"For their last words (5s; or none)."`
	Kill       bool   `xor:"how" help:"SIGKILL, at once: for one that does not react."`
}

// Help is shown by hdctl end --help.
func (endCmd) Help() string {
	return `Ends the drain of old generations before its deadline: they say goodbye to who is still connected, cut what is left after the grace, and exit. The generation that serves cannot be ended; to stop a service, use systemctl stop.

Example:

    hdctl conns app --generation 5    # whom it hits
    hdctl end app --generation 5
    hdctl wait app --for=drained
`
}

// Run tells the old generations to end.
func (c *endCmd) Run(ctx context.Context, a *app) error {
	if c.Generation < 0 {
		return exitf(exitUsage, "--generation: %d is no generation: they are numbered from 1", c.Generation)
	}
	t, err := a.only(c.Unit)
	if err != nil {
		return err
	}
	req := control.EndRequest{Generation: c.Generation, Grace: c.grace(), Kill: c.Kill, Via: a.via()}
	var result *control.EndResult
	err = a.call(ctx, t, a.patience.before, func(ctx context.Context, client *control.Client) (err error) {
		result, err = client.End(ctx, req)
		return err
	})
	if err != nil {
		return err
	}
	if result.Generations == nil {
		result.Generations = []int{} // not null in JSON
	}
	return a.printDone(result, fmt.Sprintf("%s: %s", t, c.outcome(result.Generations)))
}

// grace is what the request says: seconds, 0 for what is usual, or negative for
// none.
func (c *endCmd) grace() float64 {
	if c.Grace == span(units.None) {
		return -1
	}
	return time.Duration(c.Grace).Seconds()
}

// usualGrace is what the service gives without being told: see
// [control.EndRequest].
const usualGrace = 5 * time.Second

// outcome is "generations 6 and 5 end now, within 5s".
func (c *endCmd) outcome(generations []int) string {
	if len(generations) == 0 {
		return "there is nothing to end: no old generation drains"
	}
	slices.SortFunc(generations, func(x, y int) int { return y - x }) // as in the status
	who, ends, was := "generation ", "ends", "was"
	if len(generations) > 1 {
		who, ends, was = "generations ", "end", "were"
	}
	for i, n := range generations {
		switch {
		case i == 0:
		case i == len(generations)-1:
			who += " and "
		default:
			who += ", "
		}
		who += strconv.Itoa(n)
	}
	switch grace := time.Duration(c.Grace); {
	case c.Kill:
		return fmt.Sprintf("%s %s killed", who, was)
	case grace < 0:
		return fmt.Sprintf("%s %s now", who, ends)
	default:
		if grace == 0 {
			grace = usualGrace
		}
		return fmt.Sprintf("%s %s now, within %s", who, ends, brief(grace.Seconds()))
	}
}
