package verdict_test

import (
	"testing"

	"github.com/hdctl/handoff/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }
