package lint_test

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units/lint"
)

// binary is where the testbed has this test binary.
const binary = "/usr/local/bin/lint-child"

// demonstration shows what a rule says about systemd.
type demonstration struct {
	rule  string
	units map[string]string
	run   func(t *testing.T, tb *testbed.Testbed)
}

// service is a service unit with the lines of [Service], and others before them.
func service(lines ...string) string { return unitLines("Service", lines) }

// socket is a socket unit on a port of its own.
func socket(port int, lines ...string) string {
	return unitLines("Socket", append([]string{fmt.Sprintf("ListenStream=127.0.0.1:%d", port)}, lines...))
}

// unitLines puts lines "Unit.X=Y" into [Unit], and the others into the section.
func unitLines(section string, lines []string) string {
	head, body := []string{"[Unit]"}, []string{"[" + section + "]"}
	for _, line := range lines {
		if rest, ok := strings.CutPrefix(line, "Unit."); ok {
			head = append(head, rest)
		} else {
			body = append(body, line)
		}
	}
	return unitOf(append(head, body...)...)
}

// long is what a process needs to finish of which the test expects that it is killed.
const long = "Environment=FINISH=1m"

// binaryAs are the lines of a service that the test binary stands in for.
func binaryAs(unit, name string, lines ...string) string {
	return service(append([]string{
		"Type=notify", "ExecStart=" + binary, "Environment=FINISH=100ms GORACE=atexit_sleep_ms=0 UNIT=" + unit + " " + childEnv + "=" + name,
	}, lines...)...)
}

// show is one property of a unit.
func show(tb *testbed.Testbed, unit, property string) string {
	return tb.Show(unit, property)[property]
}

func waitForProperty(t *testing.T, tb *testbed.Testbed, unit, property, want string) {
	t.Helper()
	tb.WaitFor(t, unit+" to have "+property+"="+want, func() bool { return show(tb, unit, property) == want })
}

// exists tells whether there is a file inside.
func exists(tb *testbed.Testbed, path string) bool {
	_, err := tb.ReadFile(path)
	return err == nil
}

// poke connects to a socket, so that systemd starts its service.
func poke(t *testing.T, tb *testbed.Testbed, port int) io.ReadCloser {
	t.Helper()
	conn, err := tb.Dial(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// content waits for a file inside that has a whole line, and returns that.
func content(t *testing.T, tb *testbed.Testbed, path string) string {
	t.Helper()
	var text string
	tb.WaitFor(t, path, func() bool {
		data, err := tb.ReadFile(path)
		text = string(data)
		return err == nil && strings.HasSuffix(text, "\n")
	})
	return strings.TrimSpace(text)
}

// TestSystemdDoesThat demonstrates in a real systemd what the rules claim. All share
// one, and run at the same time: each has units of its own.
func TestSystemdDoesThat(t *testing.T) {
	leak.Check(t)
	tb := testbed.Boot(t)
	exe, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, tb.CopyFile(exe, binary))
	units := make(map[string]string)
	list := demonstrations()
	for _, d := range list {
		for name, text := range d.units {
			require.NotContains(t, units, name)
			units[name] = text
		}
	}
	require.NoError(t, tb.InstallUnits(units))
	started := time.Now()
	t.Run("rules", func(t *testing.T) {
		for _, d := range list {
			t.Run(d.rule, func(t *testing.T) {
				_, ok := lint.Lookup(d.rule)
				require.True(t, ok, "there is no such rule")
				t.Parallel()
				d.run(t, tb)
			})
		}
	})
	t.Logf("%d rules demonstrated in %v with systemd %d", len(list), time.Since(started).Round(time.Millisecond), tb.Version())
}

func demonstrations() []demonstration {
	return append(append(demonstrateService(), demonstrateSockets()...), demonstrateProcesses()...)
}

// fails runs systemctl, which must fail, and returns what it has said.
func fails(t *testing.T, tb *testbed.Testbed, args ...string) string {
	t.Helper()
	r := tb.Systemctl(args...)
	assert.NotZero(t, r.ExitCode, "systemctl %s", strings.Join(args, " "))
	return r.Stderr
}
