package preflight

import (
	"context"

	"github.com/hdctl/handoff/upgrade/control"
)

// RunOn is Run on a machine of which proc and cgroups tell.
func RunOn(ctx context.Context, proc, cgroups string, c Config) []control.Check {
	return host{proc: proc, cgroups: cgroups}.run(ctx, c)
}
