package testbed_test

import (
	"context"
	"fmt"
	"log"

	"github.com/hdctl/handoff/test/testbed"
)

// A program that is not a test, a demonstration for instance, must stop the
// testbed itself. If it is killed the testbed goes with it.
func ExampleStart() {
	ctx := context.Background()
	tb, err := testbed.Start(ctx, testbed.Options{Name: "demo"})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = tb.Stop() }()

	fmt.Println(tb.Run(ctx, "systemctl", "status").Stdout)
}
