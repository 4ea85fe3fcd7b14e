package main

import (
	"context"
	"fmt"

	"github.com/hdctl/handoff/upgrade/control"
)

// reconfigureCmd is "hdctl reconfigure".
type reconfigureCmd struct {
	Unit   string `arg:"" optional:"" name:"unit" help:"The service. May be left out if there is only one."`
	Reason string `placeholder:"TEXT" help:"Why, for the records of the service."`
}

// Help is shown by hdctl reconfigure --help.
func (reconfigureCmd) Help() string {
	return `The service reads its configuration again, without a new process. If it does not like what it reads, it goes on with the configuration that it has.

Exit status: 0 the new configuration is in force; 1 it is not, the old one is; 7 the service does not offer this, or cannot now; 9 no answer.

Example:

    hdctl reconfigure app
`
}

// Run has the service read its configuration.
func (c *reconfigureCmd) Run(ctx context.Context, a *app) error {
	t, err := a.only(c.Unit)
	if err != nil {
		return err
	}
	var result *control.ReconfigureResult
	err = a.call(ctx, t, a.patience.configure, func(ctx context.Context, client *control.Client) (err error) {
		result, err = client.Reconfigure(ctx, control.ReconfigureRequest{Reason: c.Reason, Via: a.via()})
		return err
	})
	if err != nil {
		return err
	}
	return a.printDone(result, fmt.Sprintf("%s: the new configuration is in force, after %s", t, lasted(result.Took)))
}
