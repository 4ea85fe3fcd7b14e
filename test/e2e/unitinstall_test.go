package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
)

// installed is the part of what "hdctl unit generate --install" prints that matters
// here.
type installed struct {
	Changed bool
	Files   []struct{ Unit, Result string }
	Actions []string
	Needed  []struct{ Unit, Why, Command string }
}

// TestUnitInstall installs a service by its flags, again, and after changes of each
// kind: systemd has what is in the files, nothing is restarted, and what is said to be
// needed then does it.
func TestUnitInstall(t *testing.T) {
	t.Parallel()
	s := &site{Testbed: testbed.Boot(t), t: t}
	require.NoError(t, s.CopyFile(binaries.path(t, "hdctl"), units.DefaultHdctl))
	s.deploy("demo-v1")
	install := func(args ...string) installed {
		t.Helper()
		r := s.hdctl(append([]string{"unit", "generate", "demo", "--install", "-o", "json"}, args...)...)
		require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
		var in installed
		require.NoError(t, json.Unmarshal([]byte(r.Stdout), &in))
		again := s.hdctl("unit", "generate", "demo", "--install", "-o", "json")
		require.Equal(t, 0, again.ExitCode, "%s%s", again.Stdout, again.Stderr)
		assert.Contains(t, again.Stdout, `"changed": false`, "a second run has nothing to do")
		assert.Equal(t, 0, s.hdctl("unit", "diff", "demo").ExitCode)
		return in
	}
	flags := []string{"--exec", program, "--probation", "200ms", "--profile", "strict", "--env", "GORACE=atexit_sleep_ms=0"}
	http := []string{"--listen", "http=8080"}

	in := install(append(flags, http...)...)
	assert.True(t, in.Changed)
	assert.Len(t, in.Files, 2)
	assert.Len(t, in.Actions, 3)
	assert.Empty(t, in.Needed)
	s.requireServing(1, "v1")
	assert.Equal(t, "enabled", s.Show("demo.socket", "UnitFileState")["UnitFileState"])
	pid := s.MainPID(service)

	// What systemd applies by itself.
	in = install(append(append(flags, http...), "--stop-timeout", "21s", "--env", "HANDOFF_DRAIN_SPREAD=100ms")...)
	assert.Equal(t, []string{"systemctl daemon-reload"}, in.Actions)
	assert.Equal(t, "26s", s.Show(service, "TimeoutStopUSec")["TimeoutStopUSec"])
	require.Len(t, in.Needed, 1)
	assert.Contains(t, in.Needed[0].Why, "Environment changed")
	assert.Equal(t, pid, s.MainPID(service), "nothing is restarted")
	apply := func(command string) {
		t.Helper()
		s.MustRun(t, "sh", "-c", command)
		s.requireServing(1, "v1")
	}
	apply(in.Needed[0].Command)
	assert.NotEqual(t, pid, s.MainPID(service))

	// A socket that the service has not got yet.
	in = install(append(append(flags, http...), "--listen", "echo=7777")...)
	require.NotEmpty(t, in.Needed)
	assert.Contains(t, in.Needed[0].Why+in.Needed[len(in.Needed)-1].Why, "without this socket")
	apply(in.Needed[len(in.Needed)-1].Command)
	echo := s.openEcho()
	assert.Equal(t, "1: a", echo.say("a"))
	require.NoError(t, echo.c.Close())

	// A socket with another address.
	in = install(append(flags, "--listen", "http=8080", "--listen", "http=8081", "--listen", "echo=7777")...)
	require.Len(t, in.Needed, 1)
	assert.Equal(t, "demo.socket", in.Needed[0].Unit)
	apply(in.Needed[0].Command)
	conn, err := s.Dial(t.Context(), "tcp", "127.0.0.1:8081")
	require.NoError(t, err)
	require.NoError(t, conn.Close())

	// An edit, and a drop-in, that systemd has not loaded.
	const path = "/etc/systemd/system/" + service
	content, err := s.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, s.WriteFile(path, []byte(strings.Replace(string(content), "Restart=always", "Restart=no", 1)), 0o644))
	require.NoError(t, s.WriteFile(path+".d/more.conf", []byte("[Service]\nNice=1\n"), 0o644))
	require.NoError(t, s.DaemonReload())
	r := s.hdctl("unit", "diff", "demo")
	assert.Equal(t, 1, r.ExitCode)
	assert.Contains(t, r.Stdout, "\n-Restart=no\n+Restart=always\n")
	assert.Contains(t, r.Stderr, "more.conf")
	in = install()
	assert.Equal(t, []string{"systemctl daemon-reload"}, in.Actions)
	assert.Empty(t, in.Needed)

	// Who has stopped the service wants that.
	s.MustSystemctl(t, "stop", service, "demo.socket", "demo-echo.socket")
	in = install()
	assert.Empty(t, in.Actions)
	require.Len(t, in.Needed, 1)
	assert.Equal(t, "it is stopped, and stays so", in.Needed[0].Why)
	assert.Equal(t, "inactive", s.Show(service, "ActiveState")["ActiveState"])
	apply(in.Needed[0].Command)
}
