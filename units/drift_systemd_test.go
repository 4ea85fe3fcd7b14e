package units_test

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
)

// insideEnv has this test binary, run in a testbed, print the findings of a PID.
const insideEnv = "UNITS_TEST_INSIDE"

func TestDriftInside(t *testing.T) {
	pid, err := strconv.Atoi(os.Getenv(insideEnv))
	if err != nil {
		t.Skip("part of TestDriftOfSystemd")
	}
	findings, err := units.Drift(t.Context(), "app.service", pid, units.Systemctl(false))
	require.NoError(t, err)
	require.NoError(t, json.NewEncoder(os.Stdout).Encode(findings))
}

// TestDriftOfSystemd has a real systemd start a service with all that is compared,
// in every notation, and then changes the unit.
func TestDriftOfSystemd(t *testing.T) {
	leak.Check(t)
	tb := testbed.Boot(t)
	exe, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, tb.CopyFile(exe, "/usr/local/bin/inside"))
	require.NoError(t, tb.WriteFile("/etc/app.env", []byte(strings.Join([]string{
		"# comment", "; comment", "export BAD=1", "1BAD=2", "NO_VALUE", "EMPTY=",
		"FROM_FILE=one two  ", ` QUOTED = "a \"b\" \\ \$X \n"`, "MULTI=a\\", "b", "LINES='1", "2'",
		`SINGLE='it''s' "me" too`, `MIDDLE=it's "me"`, `ESCAPED=a\ b\\c\ `, "OVER=file", "GONE=1",
	}, "\n")), 0o600))
	require.NoError(t, tb.WriteFile("/etc/more/b.env", []byte("GLOB=1\n"), 0o644))
	const dropIn = "/etc/systemd/system/app.service.d/more.conf"
	// systemd does not see that a directory of drop-ins is new.
	require.NoError(t, tb.WriteFile(dropIn, []byte("[Service]\n"), 0o644))
	unit := func(lines ...string) {
		require.NoError(t, tb.InstallUnits(map[string]string{
			"app.service": "[Service]\n" + strings.Join(lines, "\n") + "\n",
		}))
		require.NoError(t, tb.DaemonReload())
	}
	tb.MustSystemctl(t, "set-environment", "MANAGER=x y", "QUOTE=a'b")
	common := []string{
		`Environment=A=1 "B=two words" C=%n D=$HOME "E=quo\"te" 'F=back\\slash' OVER=unit LINE=a\nb UNI=\u00e9\x01 PATH=/bin`,
		"EnvironmentFile=-/etc/nothere.env",
		"EnvironmentFile=/etc/app.env",
		"EnvironmentFile=/etc/more/*.env",
		"UnsetEnvironment=GONE A2",
		"PassEnvironment=LANG",
	}
	unit(append(
		common,
		"User=nobody", "LimitNOFILE=1024:4096", "LimitCORE=0", "LimitCPU=10min", "LimitRTTIME=5s",
		`ExecStart=@/bin/sh "my sh" -c 'echo $HOME; while :; do sleep 100; done' "%i x" "a;b" ${C} "q\"uo" 'back\\s' $B $$x ${NONE} $NONE`,
	)...)
	tb.MustSystemctl(t, "start", "app.service")
	pid := tb.MainPID("app.service")
	require.NotZero(t, pid)
	// systemd names the process before it executes sh.
	tb.WaitFor(t, "the program", func() bool {
		return tb.MustRun(t, "readlink", "/proc/"+strconv.Itoa(pid)+"/exe").Stdout != tb.MustRun(t, "readlink", "/proc/1/exe").Stdout
	})

	drift := func() map[string]units.Finding {
		t.Helper()
		out := tb.MustRun(t, "env", insideEnv+"="+strconv.Itoa(pid), "/usr/local/bin/inside", "-test.run=^TestDriftInside$").Stdout
		var list []units.Finding
		require.NoError(t, json.NewDecoder(strings.NewReader(out)).Decode(&list), "%s", out)
		findings := make(map[string]units.Finding)
		for _, f := range list {
			findings[f.Name] = f
			t.Logf("%-12s %-8s %s", f.Name, f.Result, f.Message)
		}
		return findings
	}
	findings := drift()
	for name, f := range findings {
		assert.Equal(t, "ok", f.Result, "%s: %s", name, f.Message)
	}
	assert.Contains(t, findings["unit"].Message, "are those with which the service was started")

	// Changed, and not loaded: what is loaded is still the same.
	require.NoError(t, tb.WriteFile(dropIn, []byte("[Service]\nEnvironment=B=3 NEW=1\n"), 0o644))
	findings = drift()
	assert.Equal(t, "warning", findings["unit"].Result)
	assert.Equal(t, "ok", findings["environment"].Result)
	require.NoError(t, tb.DaemonReload())
	findings = drift()
	assert.Contains(t, findings["unit"].Message, dropIn)
	assert.Contains(t, findings["environment"].Message, "; added: NEW; changed: B")

	// Everything else.
	require.NoError(t, tb.WriteFile("/etc/more/b.env", []byte("GLOB=2\n"), 0o644))
	tb.MustSystemctl(t, "unset-environment", "MANAGER")
	unit(append(common, "LimitNOFILE=2048:4096", "ExecStart=/bin/sleep 1000")...)
	findings = drift()
	for _, name := range []string{"program", "environment", "limits", "user"} {
		assert.Equal(t, "warning", findings[name].Result, name)
	}
	assert.Contains(t, findings["environment"].Message, "; added: NEW; changed: B, GLOB; removed: MANAGER")
	assert.Contains(t, findings["program"].Message, "/bin/sleep")
	assert.Contains(t, findings["limits"].Message, "LimitNOFILE=2048:4096, the process has 1024:4096")
	assert.Contains(t, findings["user"].Message, "runs as nobody")
}
