package testbed

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"
)

// waitLimit is how long [Testbed.WaitFor] waits. It is not a promise about
// anything: only broken code reaches it.
const waitLimit = time.Minute

// Boot boots a testbed for a test, and stops it at its end. If the test has
// failed then, the end of the journal is in its log.
//
// Where no testbed can boot the test is skipped; unless $CI or
// $HANDOFF_REQUIRE_SYSTEMD is set: then it fails. A boot takes some hundred
// milliseconds. Tests that do not disturb each other may share one:
//
//	tb := testbed.Boot(t)
//	t.Run("start", func(t *testing.T) { … tb … })
//
// At most one Options may be given.
func Boot(t testing.TB, options ...Options) *Testbed {
	t.Helper()
	var o Options
	switch len(options) {
	case 0:
	case 1:
		o = options[0]
	default:
		t.Fatal("testbed: more than one Options")
	}
	if o.Name == "" {
		o.Name = t.Name()
	}
	rootfs := o.Rootfs
	if rootfs == "" {
		rootfs = os.Getenv(RootfsEnv)
	}
	require(t, rootfs)
	started := time.Now()
	tb, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	tb.logf = t.Logf
	t.Logf("testbed %s: systemd %d, booted in %v, look inside: nsenter -t %d -a",
		tb.Name(), tb.Version(), time.Since(started).Round(time.Millisecond), tb.init.process.Pid)
	t.Cleanup(func() {
		if t.Failed() {
			tb.dump(t)
		}
		if err := tb.Stop(); err != nil {
			t.Errorf("testbed: stop: %v", err)
		}
	})
	return tb
}

// Require is for tests that need what a testbed needs, but none: it skips the
// test, or makes it fail, where Boot would.
func Require(t testing.TB) {
	t.Helper()
	require(t, os.Getenv(RootfsEnv))
}

func require(t testing.TB, rootfs string) {
	t.Helper()
	if err := available(rootfs); err != nil {
		if required() {
			t.Fatalf("testbed: not available, but required: %v", err)
		}
		t.Skipf("testbed: not available: %v", err)
	}
}

// dump logs what one wants to see of a testbed in which a test has failed.
func (tb *Testbed) dump(t testing.TB) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, args := range [][]string{
		{"systemctl", "--no-pager", "--no-legend", "list-units", "--failed"},
		{"systemctl", "--no-pager", "list-jobs"},
		{"journalctl", "--no-pager", "--no-hostname", "--output=short-precise", "--lines=300"},
	} {
		output := new(tail)
		cmd := tb.Command(ctx, args...)
		cmd.Stdout, cmd.Stderr = output, output
		err := cmd.Run()
		t.Logf("testbed %s: %v (%v):\n%s", tb.Name(), args, cmd.ProcessState, output)
		if err != nil {
			break // nothing works
		}
	}
	if text := tb.console.String(); text != "" {
		t.Logf("testbed %s: console:\n%s", tb.Name(), text)
	}
}

// WaitFor waits until a condition holds, which it checks over and over again;
// when it does not hold after a minute, the test fails and ends.
//
//	tb.WaitFor(t, "the service to be reloaded", func() bool {
//		return tb.Show("app.service", "SubState")["SubState"] == "running"
//	})
func (tb *Testbed) WaitFor(t testing.TB, what string, condition func() bool) {
	t.Helper()
	if err := poll(context.Background(), waitLimit, condition); err != nil {
		t.Fatalf("testbed %s: waiting for %s: %v", tb.Name(), what, err)
	}
}

// poll returns nil as soon as the condition holds.
func poll(ctx context.Context, limit time.Duration, condition func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %v", limit))
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
