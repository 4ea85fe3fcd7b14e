package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// Ann is somebody with services of her own. What logind would do for her at her login
// is done by hand: it makes the runtime directory, and starts user@4242.service.
const (
	annID      = "4242"
	annRuntime = "/run/user/" + annID
	annManager = "[Service]\nType=notify\nUser=ann\nEnvironment=XDG_RUNTIME_DIR=" + annRuntime + "\n" +
		"ExecStart=/lib/systemd/systemd --user\nDelegate=yes\nKillMode=mixed\n"
)

// ann runs a command as she does. There is no session bus, as in a plain installation
// of a server: systemctl and hdctl talk to her systemd directly.
func (s *site) ann(args ...string) testbed.Result {
	as := []string{
		"setpriv", "--reuid=ann", "--regid=ann", "--clear-groups",
		"env", "HOME=/home/ann", "XDG_RUNTIME_DIR=" + annRuntime,
	}
	return s.Run(context.Background(), append(as, args...)...)
}

// mustAnn is ann for what must succeed, and returns its output.
func (s *site) mustAnn(args ...string) string {
	s.t.Helper()
	r := s.ann(args...)
	require.NoError(s.t, r.Err())
	return r.Stdout
}

// TestUserManager has a service of a user: generated, started, upgraded under load by
// her systemd and by hdctl, looked at, and stopped; without root.
func TestUserManager(t *testing.T) {
	t.Parallel()
	s := &site{Testbed: testbed.Boot(t), t: t}
	require.NoError(t, s.CopyFile(binaries.path(t, "hdctl"), units.DefaultHdctl))
	s.deploy("demo-v1")
	s.MustRun(t, "useradd", "--create-home", "--uid", annID, "ann")
	s.MustRun(t, "install", "-d", "-m", "0700", "-o", "ann", "-g", "ann", annRuntime)
	require.NoError(t, s.InstallUnits(map[string]string{"ann.service": annManager}))
	s.MustSystemctl(t, "start", "ann.service")

	const dir = "/home/ann/.config/systemd/user"
	s.mustAnn("mkdir", "-p", dir)
	s.mustAnn("hdctl", "--user", "unit", "generate", "demo", "--exec", program,
		"--listen", "http=8080", "--listen", "echo=7777", "--listen", "dgram=udp:7778",
		"--probation", "100ms", "--env", "GORACE=atexit_sleep_ms=0", "--env", "HANDOFF_DRAIN_SPREAD=100ms",
		"--hdctl", units.DefaultHdctl, "--output", dir)
	sockets := []string{"demo.socket", "demo-echo.socket", "demo-dgram.socket"}
	s.mustAnn("systemctl", "--user", "daemon-reload")
	s.mustAnn(append([]string{"systemctl", "--user", "enable", "--now", service}, sockets...)...)

	requireServing := func(generation int, version string) {
		t.Helper()
		st := parseStatus(t, s.mustAnn("hdctl", "--user", "status", "-o", "json", "demo"))
		require.Equal(t, generation, st.Main)
		require.Equal(t, control.StateServing, st.State)
		main := s.mustAnn("systemctl", "--user", "show", "--property=MainPID", "--value", service)
		require.Equal(t, fmt.Sprintln(mainOf(t, st).PID), main)
		a := s.get("/")
		require.Equal(t, fmt.Sprint(generation), a.header("X-Handoff-Generation"))
		require.Equal(t, version, a.header("X-Handoff-Version"))
	}
	requireServing(1, "v1")
	l := s.startLoad(load.Mix())
	s.deploy("demo-v2")
	s.mustAnn("systemctl", "--user", "reload", service)
	requireServing(2, "v2")
	s.deploy("demo-v3")
	s.mustAnn("hdctl", "--user", "upgrade", "demo")
	requireServing(3, "v3")
	s.deployFaulty("exit1")
	r := s.ann("systemctl", "--user", "reload", service)
	assert.Equal(t, 1, r.ExitCode, "%v", r)
	requireServing(3, "v3")
	requireNoFailure(t, l)

	// What hdctl knows of her systemd, with and without a name.
	var view struct {
		Systemd struct {
			ActiveState string `json:"active_state"`
			StatusText  string `json:"status_text"`
		}
	}
	text := s.mustAnn("hdctl", "--user", "status", "-o", "json", "demo")
	require.NoError(t, json.Unmarshal([]byte(text), &view))
	assert.Equal(t, "active", view.Systemd.ActiveState, "%s", text)
	assert.Contains(t, view.Systemd.StatusText, "generation 3 (v3) serving; upgrade to generation 4", "%s", text)
	for _, args := range [][]string{{"status"}, {"list"}} {
		assert.Contains(t, s.mustAnn(append([]string{"hdctl", "--user"}, args...)...), "demo")
	}
	history := s.mustAnn("hdctl", "--user", "history", "demo")
	assert.Contains(t, history, "systemctl")
	assert.Contains(t, history, "ann")
	t.Logf("%s\n%s", s.mustAnn("hdctl", "--user", "status"), history)
	t.Logf("%s", s.mustAnn("hdctl", "--user", "status", "demo"))

	// Root is told whose service it is not.
	assert.NotEqual(t, 0, s.hdctl("status", "demo").ExitCode)

	s.mustAnn(append([]string{"systemctl", "--user", "stop", service}, sockets...)...)
	assert.Equal(t, "success\n", s.mustAnn("systemctl", "--user", "show", "--property=Result", "--value", service))
	s.MustSystemctl(t, "stop", "ann.service")
}
