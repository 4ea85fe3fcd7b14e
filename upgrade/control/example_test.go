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
