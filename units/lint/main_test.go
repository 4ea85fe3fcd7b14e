package lint_test

import (
	"os"
	"syscall"
	"testing"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/control"
)

// The test binary stands in for services in a testbed: see child_test.go.
func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		os.Exit(child(name))
	}
	if os.Getenv(control.NeedsEnv) != "" {
		syscall.Exit(answer(os.Args[1:])) // without the second that the race detector waits
	}
	leak.Main(m)
}
