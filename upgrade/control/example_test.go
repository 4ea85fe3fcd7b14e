package control_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/hdctl/handoff/upgrade/control"
)

// An upgrade by a program, as "hdctl upgrade app" does it.
func ExampleClient_Upgrade() {
	c := control.Client{Socket: control.DefaultSocket("app")}
	result, err := c.Upgrade(context.Background(), control.UpgradeRequest{Reason: "nightly"}, func(e control.Event) {
		log.Printf("%s: %s", e.Phase, e.Message)
	})
	if e, ok := errors.AsType[*control.Error](err); ok && e.Code == control.CodeInProgress {
		fmt.Println("somebody else is at it")
		os.Exit(7)
	}
	if err != nil {
		log.Fatal(err) // the old generation goes on, unless the result says something else
	}
	fmt.Printf("generation %d serves %s\n", result.To, result.Version)
}

// A new version on a tenth of the new connections: it stays if it answers well.
func ExampleClient_Promote() {
	ctx := context.Background()
	c := control.Client{Socket: control.DefaultSocket("app")}
	if _, err := c.Upgrade(ctx, control.UpgradeRequest{Stage: 10, StageTimeout: 600}, nil); err != nil {
		log.Fatal(err)
	}
	status, err := c.Status(ctx)
	if err != nil {
		log.Fatal(err) // nobody decides: after ten minutes it is rolled back
	}
	for _, g := range status.Generations {
		if g.State == control.StateStaged && g.Health != nil && g.Health.Errors > 0 {
			_, err = c.Rollback(ctx, control.RollbackRequest{Reason: "it has errors"}, nil)
			log.Fatal("the old version serves: ", err)
		}
	}
	if _, err := c.Promote(ctx, control.PromoteRequest{}, nil); err != nil {
		log.Fatal(err)
	}
}

// Who upgraded what, and when?
func ExampleClient_History() {
	c := control.Client{Socket: control.DefaultSocket("app")}
	err := c.History(context.Background(), 20, func(e control.Entry) {
		fmt.Printf("%v %s: %d -> %d %s\n", e.Time, e.User, e.From, e.To, e.Outcome)
	})
	if err != nil {
		log.Fatal(err)
	}
}

// Who still drains, and how much is left to do?
func ExampleClient_Status() {
	c := control.Client{Socket: control.DefaultSocket("app")}
	status, err := c.Status(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for _, g := range status.Generations {
		if g.State == control.StateDraining {
			fmt.Printf("generation %d: %d connections until %v\n", g.Number, g.Conns.Total, g.Deadline)
		}
	}
}
