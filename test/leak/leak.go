package leak

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long descriptors may take to disappear after the tests. Only
// a run that fails waits that long.
const patience = 3 * time.Second

// Main runs the tests of a package and ends the process, as os.Exit(m.Run())
// does. When all tests passed, but goroutines or file descriptors are left that
// were not there at the call of Main, it lists them on stderr and exits with 1.
//
// Goroutines that are there for a reason can be excused by options of goleak.
func Main(m *testing.M, options ...goleak.Option) {
	os.Exit(Run(m, options...))
}

// Run is [Main] for a TestMain that has something to clean up: it returns the
// exit status.
func Run(m *testing.M, options ...goleak.Option) int {
	before := snapshot()
	code := m.Run()
	if code == 0 { // a failed test leaves much behind, and that is not the news
		if report := check(before, options); report != "" {
			fmt.Fprintf(os.Stderr, "leak: after all tests %s", report)
			code = 1
		}
	}
	return code
}

// Check makes the test fail if it leaves goroutines or file descriptors behind.
// Call it first: cleanups that are registered after it run before its check.
// The test must not run in parallel with others.
func Check(t testing.TB, options ...goleak.Option) {
	t.Helper()
	before := snapshot()
	options = append([]goleak.Option{goleak.IgnoreCurrent()}, options...)
	t.Cleanup(func() {
		t.Helper()
		if t.Failed() {
			return
		}
		if report := check(before, options); report != "" {
			t.Errorf("leak: after %s %s", t.Name(), report)
		}
	})
}

func snapshot() []descriptor {
	fds, err := list("self")
	if err != nil {
		panic(fmt.Sprintf("leak: %v", err))
	}
	return fds
}

// check returns a report, or "".
func check(before []descriptor, options []goleak.Option) string {
	// The connections that http.Get keeps for later are nobody's fault.
	http.DefaultClient.CloseIdleConnections()

	var report strings.Builder
	// Goroutines first: when the last one has ended, so have its descriptors.
	if err := goleak.Find(options...); err != nil {
		fmt.Fprintf(&report, "goroutines are left:\n%v\n", err)
	}
	if left := await(before); len(left) > 0 {
		fmt.Fprintf(&report, "file descriptors are left:\n")
		for _, fd := range left {
			fmt.Fprintf(&report, "\t%s%s\n", fd, details(fd.number))
		}
	}
	return report.String()
}

// await gives descriptors time to disappear, and returns those that did not.
func await(before []descriptor) []descriptor {
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		left := added(before, snapshot())
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		runtime.GC() // finds unreachable files; their cleanups run soon after
		time.Sleep(pause)
	}
}
