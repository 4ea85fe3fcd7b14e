package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// TestReconfigure has a service read its configuration again: by an operator, who
// gets the service's answer, and by a signal. What is wrong changes nothing.
func TestReconfigure(t *testing.T) {
	t.Parallel()
	const file = "/etc/kinds.conf"
	s := newSite(t, options{
		program: "kinds", probation: 50 * time.Millisecond, stopped: true,
		unit: func(u *units.Service) {
			u.Sockets = []units.Socket{socket(t, "http", ports["http"])}
			u.Environment = append(u.Environment, units.Variable{Name: "KINDS_CONFIG", Value: file})
		},
	})
	configure := func(text string) { require.NoError(t, s.WriteFile(file, []byte(text), 0o644)) }
	configure("color red\n")
	s.MustSystemctl(t, "start", service, "demo.socket")
	require.Equal(t, "red", s.get("/config").body)
	pid := s.MainPID(service)

	configure("color blue\n")
	assert.Contains(t, s.mustHdctl("reconfigure", "demo", "--reason", "new color"), "the new configuration is in force")
	assert.Equal(t, "blue", s.get("/config").body)

	configure("colour green\n")
	r := s.hdctl("reconfigure", "demo")
	assert.Equal(t, 1, r.ExitCode)
	assert.Contains(t, r.Stderr, file+`: line 1: no such directive: "colour"`)
	assert.Contains(t, r.Stderr, "the old configuration is in force")
	assert.Equal(t, "blue", s.get("/config").body)
	s.kill(pid, syscall.SIGUSR1)
	s.waitText("no such directive", 2)
	assert.Equal(t, "blue", s.get("/config").body)

	configure("color green\n")
	s.kill(pid, syscall.SIGUSR1)
	s.WaitFor(t, "the new configuration", func() bool { return s.get("/config").body == "green" })
	s.WaitFor(t, "systemd to know", func() bool {
		return strings.Contains(s.unit()["StatusText"], "the configuration was read again via signal")
	})
	assert.Equal(t, pid, s.MainPID(service))

	// Who starts now reads it by itself.
	configure("color white\n")
	s.mustHdctl("upgrade", "demo", "--stage", "1%")
	r = s.hdctl("reconfigure", "demo")
	assertRefused(t, r, "an upgrade is in progress", "hdctl status demo")
	assert.Equal(t, "green", s.get("/config").body)
	s.mustHdctl("promote", "demo", "--wait", "drained")
	assert.Equal(t, "white", s.get("/config").body)
	assert.Equal(t, control.StateServing, s.status().State)
	assert.Equal(t, 2, s.status().Main)
}
