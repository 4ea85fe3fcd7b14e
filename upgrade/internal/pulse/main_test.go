package pulse_test

import (
	"os"
	"testing"

	"github.com/hdctl/handoff/test/leak"
)

// childEnv makes this test binary the other process of a test.
const childEnv = "PULSE_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		count()
		return
	}
	leak.Main(m)
}
