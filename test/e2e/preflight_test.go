package e2e

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

// check runs "hdctl check" and returns its exit status and what it has found.
func (s *site) check(args ...string) (exit int, result control.Result) {
	s.t.Helper()
	r := s.hdctl(append([]string{"check", "-o", "json", "demo"}, args...)...)
	require.NoError(s.t, json.Unmarshal([]byte(r.Stdout), &result), "%s%s", r.Stdout, r.Stderr)
	return r.ExitCode, result
}

// finding returns one of the checks, the zero value if there is none.
func finding(r control.Result, name string) control.Check {
	i := slices.IndexFunc(r.Checks, func(c control.Check) bool { return c.Name == name })
	if i < 0 {
		return control.Check{}
	}
	return r.Checks[i]
}

// TestPreflight has what speaks against an upgrade found before a process is started,
// whoever asks.
func TestPreflight(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{probation: 50 * time.Millisecond})
	good, err := os.ReadFile(binaries.path(t, "demo-v2"))
	require.NoError(t, err)
	alien := slices.Clone(good)
	binary.NativeEndian.PutUint16(alien[18:], 40) // e_machine of elf(5): EM_ARM
	install := func(data []byte, mode os.FileMode) {
		require.NoError(s.t, s.WriteFile(program, data, mode))
	}
	const checker = "/usr/local/bin/checker"
	require.NoError(t, s.WriteFile(checker, []byte(`#!/bin/sh
[ -e /tmp/good ] && exit 0
echo "$1: demo.conf line 3: no such directive" >&2
echo "1 error"
exit 4
`), 0o755))
	s.MustRun(t, "touch", "/tmp/good")
	s.restartWith("HANDOFF_CHECK=" + checker + " %b")

	for _, tt := range []struct {
		name    string
		install func()
		check   string // that fails
		message string // first line of its message
		more    string // of what it has printed
		code    string
	}{
		{"missing", func() { s.MustRun(t, "rm", program) }, "file", "does not exist", "", control.CodeStartFailed},
		{"half-written", func() { install(good[:len(good)/2], 0o755) }, "complete", "is cut short", "", control.CodeStartFailed},
		{"for another machine", func() { install(alien, 0o755) }, "architecture", "another architecture: ARM", "", control.CodeStartFailed},
		{"not executable", func() { install(good, 0o644) }, "executable", "may not be executed", "", control.CodeStartFailed},
		{"bad configuration", func() {
			install(good, 0o755)
			s.MustRun(t, "rm", "/tmp/good")
		}, "command", "exit status 4", program + ": demo.conf line 3: no such directive", control.CodeCheckFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.t = t
			tt.install()
			exit, result := s.check()
			assert.Equal(t, 1, exit)
			c := finding(result, tt.check)
			assert.Equal(t, control.CheckFailed, c.Result, "%+v", result.Checks)
			message, output, _ := strings.Cut(c.Message, "\n")
			assert.Contains(t, message, tt.message)
			assert.Contains(t, output, tt.more)

			dry := s.hdctl("upgrade", "--dry-run", "demo")
			assert.Equal(t, 1, dry.ExitCode)
			assert.Contains(t, dry.Stdout, tt.message)
			assert.Contains(t, dry.Stdout, tt.more)
			real := s.hdctl("upgrade", "demo")
			assert.Equal(t, 1, real.ExitCode)
			for _, text := range []string{tt.message, tt.more, "generation 1 still serves"} {
				assert.Contains(t, real.Stderr, text)
			}
			assert.NotContains(t, dry.Stdout+real.Stderr, "<0a>")

			st := s.requireServing(1, "v1")
			require.NotNil(t, st.Last)
			assert.Equal(t, control.OutcomeFailed, st.Last.Outcome)
			assert.Equal(t, control.PhasePreflight, st.Last.Phase)
			assert.Zero(t, st.Last.ToPID)
			assert.Equal(t, tt.code, st.Last.Error.Code)
			assert.Contains(t, st.Last.Error.Message, tt.more)
			pids, err := s.Pids(service)
			require.NoError(t, err)
			assert.Equal(t, []int{mainOf(t, st).PID}, pids, "nothing was started")
		})
		s.t = t
	}
	s.MustRun(t, "touch", "/tmp/good")
	exit, result := s.check()
	assert.Equal(t, 0, exit, "%+v", result.Checks)
	assert.Equal(t, control.OutcomeChecked, result.Outcome)
	s.requireServing(1, "v1")
	s.mustHdctl("upgrade", "demo")
	assert.Equal(t, "v2", mainOf(t, s.status()).Version)
}

// TestUpgradeToAnotherFile upgrades to a file that is not the one that the unit names,
// and not at all where there is nothing new.
func TestUpgradeToAnotherFile(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{probation: 50 * time.Millisecond})
	s.deploy("demo-v1") // another file with the same content
	assert.Contains(t, s.mustHdctl("upgrade", "--if-changed", "demo"), "unchanged: generation 1 (v1) is what is on disk")
	s.requireServing(1, "v1")
	s.deploy("demo-v2")
	s.mustHdctl("upgrade", "--if-changed", "demo")
	s.requireServing(2, "v2")

	const other = "/opt/demo-v3"
	require.NoError(t, s.CopyFile(binaries.path(t, "demo-v3"), other))
	for _, verb := range [][]string{{"upgrade"}, {"upgrade", "--dry-run"}, {"check"}} {
		r := s.hdctl(append(verb, "--binary", other, "demo")...)
		assertRefused(t, r, "this service runs no other program than "+program, "HANDOFF_ALLOW_BINARY=on")
	}
	s.requireServing(2, "v2")

	s.restartWith("HANDOFF_ALLOW_BINARY=on")
	exit, result := s.check("--binary", other)
	assert.Equal(t, 0, exit, "%+v", result)
	assert.Equal(t, other, result.Binary)
	exit, result = s.check("--binary", "/opt/nothing")
	assert.Equal(t, 1, exit, "%+v", result)
	s.mustHdctl("upgrade", "--binary", other, "demo", "--wait", "drained")
	st := s.requireServing(2, "v3")
	assert.Equal(t, other, st.Last.Binary)
	assert.Equal(t, other, mainOf(t, st).Executable)
	assert.Equal(t, control.DiskDiffers, st.Disk.State)
	assert.Equal(t, program, st.Disk.Path, "a restart starts what the unit says")
	s.upgradeTo(3, "v2") // and so does the next upgrade
	s.mustHdctl("rollback", "demo", "--wait", "drained")
	assert.Equal(t, other, s.requireServing(4, "v3").Last.Binary)
}

// TestCheckTellsWhatAnUpgradeDoesNotApply changes the unit of a service that runs.
func TestCheckTellsWhatAnUpgradeDoesNotApply(t *testing.T) {
	t.Parallel()
	// Of the first drop-in of a unit systemd 252 does not say that it is not loaded.
	s := newSite(t, options{probation: 50 * time.Millisecond, dropIn: "Environment=SHAPE=round\n"})
	exit, result := s.check()
	require.Equal(t, 0, exit)
	for _, c := range result.Checks {
		assert.Equal(t, control.CheckOK, c.Result, "%+v", c)
	}
	require.NoError(t, s.WriteFile("/etc/systemd/system/"+service+".d/more.conf",
		[]byte("[Service]\nEnvironment=COLOR=blue\nLimitNOFILE=4321\n"), 0o644))
	exit, result = s.check()
	assert.Equal(t, 0, exit, "it is a warning")
	c := finding(result, "unit")
	assert.Equal(t, control.CheckWarning, c.Result, "%+v", c)
	assert.Contains(t, c.Hint, "systemctl daemon-reload")
	assert.Equal(t, control.CheckOK, finding(result, "environment").Result, "that is not loaded")

	require.NoError(t, s.DaemonReload())
	text := s.mustHdctl("check", "demo")
	for _, want := range []string{"added: COLOR", "LimitNOFILE=4321", "systemctl restart"} {
		assert.Contains(t, text, want)
	}
	assert.NotContains(t, text, "blue", "a value may be a secret")
	s.MustSystemctl(t, "reload", service)
	_, result = s.check()
	assert.Equal(t, control.CheckWarning, finding(result, "environment").Result, "an upgrade does not apply it")
	s.MustSystemctl(t, "restart", service)
	_, result = s.check()
	for _, c := range result.Checks {
		assert.Equal(t, control.CheckOK, c.Result, "%+v", c)
	}
}
