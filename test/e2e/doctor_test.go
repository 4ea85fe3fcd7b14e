package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/upgrade/control"
)

// ownSocket starts the demo with a socket that it does not hand on, as a program that
// binds an admin port by itself.
const ownSocket = `#!/usr/bin/perl
use strict;
use Socket;
$^F = 1000; # not closed by exec
socket(my $admin, PF_INET, SOCK_STREAM, 0) or die $!;
setsockopt($admin, SOL_SOCKET, SO_REUSEADDR, 1) or die $!;
bind($admin, sockaddr_in(6060, INADDR_LOOPBACK)) or die $!;
listen($admin, 5) or die $!;
exec '` + program + `' or die $!;
`

// TestDoctor breaks a service in the ways that hdctl doctor looks for, and has it find
// each.
func TestDoctor(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{})

	// Nothing to complain about, for root and for others.
	r := s.hdctl("doctor")
	t.Logf("\n%s%s", r.Stdout, r.Stderr)
	require.Equal(t, 0, r.ExitCode)
	assert.Empty(t, complaints(s.doctor(0)))
	require.Equal(t, 0, s.as("nobody", "hdctl", "doctor").ExitCode)

	// A version that fails stays on disk.
	s.deployFaulty("exit1")
	require.Equal(t, 1, s.hdctl("upgrade", "demo").ExitCode)
	found := complaints(s.doctor(1))
	assert.Contains(t, found["disk"], "failed: "+program+" is the file with which the last upgrade failed")
	assert.Contains(t, found["last"], "warning: the last upgrade (1 -> 2, ")
	s.deploy("demo-v1")

	// An edit that systemd has not loaded.
	require.NoError(t, s.WriteFile("/usr/local/bin/own", []byte(ownSocket), 0o755))
	require.NoError(t, s.WriteFile("/etc/systemd/system/"+service+".d/break.conf", []byte(strings.Join([]string{
		"[Service]",
		"ExecStart=", "ExecStart=/usr/local/bin/own",
		"ExecReload=", "ExecReload=/usr/local/bin/hdctl upgrade --queue demo",
		"Environment=HANDOFF_DRAIN_TIMEOUT=-1s",
		"LimitNOFILE=64:64", "KillMode=mixed", "",
	}, "\n")), 0o644))
	require.NoError(t, s.DaemonReload()) // systemd does not see that a directory of drop-ins is new
	require.NoError(t, s.WriteFile("/etc/systemd/system/"+service, append(s.unitFile(), "\n# edited\n"...), 0o644))
	found = complaints(s.doctor(1))
	assert.Contains(t, found["unit"], "warning: the files of demo.service were changed, and systemd has not loaded them")
	assert.Contains(t, found["reload"], "failed: ExecReload= runs /usr/local/bin/hdctl, which is not there")
	assert.Contains(t, found["kill-mode"], "failed: break.conf: ")
	assert.Contains(t, found["limits"], "warning: demo.service says LimitNOFILE=64:64")
	assert.NotContains(t, found, "own-sockets", "nothing but the unit has changed so far")
	assert.NotZero(t, s.Systemctl("reload", service).ExitCode, "the doctor would be wrong")

	// And all of it in force.
	require.NoError(t, s.DaemonReload())
	s.MustSystemctl(t, "restart", service)
	found = complaints(s.doctor(1))
	assert.NotContains(t, found, "unit")
	assert.Contains(t, found["own-sockets"], "failed: the program listens on tcp 127.0.0.1:6060 by itself")
	assert.Contains(t, found["descriptors"], "of 64 files open: there is no room to start a new version")
	assert.Contains(t, found["drain"], "warning: drains have no deadline")
	for _, text := range found {
		assert.NotContains(t, text, "8080", "a socket that is handed on")
		assert.NotContains(t, text, "control.sock")
	}

	// Who may not look is told so: not into the process, and not even at the status.
	s.MustRun(t, "chmod", "0666", control.DefaultSocket("demo"))
	found = complaints(s.doctorAs("nobody", 1))
	assert.Contains(t, found["own-sockets"], "warning: not looked at: open /proc/")
	assert.Contains(t, found["reload"], "failed")
	s.MustRun(t, "chmod", "0660", control.DefaultSocket("demo"))
	found = complaints(s.doctorAs("nobody", 1))
	assert.Contains(t, found["state"], "warning: ")
	assert.Contains(t, found["unit"], "warning: demo.service runs, but nothing is known of it")
	assert.Contains(t, found["reload"], "failed")

	// What would keep a stopped service from coming back is found all the same.
	s.stop()
	found = complaints(s.doctor(1))
	assert.Contains(t, found["unit"], "warning: demo.service is inactive: only the unit was looked at")
	assert.Contains(t, found["reload"], "failed")
}

// unitFile is the unit of the service.
func (s *site) unitFile() []byte {
	s.t.Helper()
	text, err := s.ReadFile("/etc/systemd/system/" + service)
	require.NoError(s.t, err)
	return text
}

// as runs a command inside as another user.
func (s *site) as(user string, args ...string) testbed.Result {
	return s.Run(s.t.Context(), append([]string{"setpriv", "--reuid=" + user, "--regid=nogroup", "--clear-groups", "--"}, args...)...)
}

// doctor runs "hdctl doctor demo", which must exit with code.
func (s *site) doctor(code int) []control.Check {
	s.t.Helper()
	return s.doctorAs("root", code)
}

func (s *site) doctorAs(user string, code int) []control.Check {
	s.t.Helper()
	r := s.as(user, "hdctl", "doctor", "demo", "-o", "json")
	require.Equal(s.t, code, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	return parseDiagnosis(s.t, r.Stdout)
}

func parseDiagnosis(t testing.TB, text string) []control.Check {
	t.Helper()
	var d struct {
		Services []struct {
			Checks []control.Check `json:"checks"`
		} `json:"services"`
	}
	require.NoError(t, json.Unmarshal([]byte(text), &d), "%s", text)
	require.Len(t, d.Services, 1)
	return d.Services[0].Checks
}

// complaints are the findings that are not good, by name.
func complaints(checks []control.Check) map[string]string {
	found := make(map[string]string)
	for _, c := range checks {
		if c.Result != control.CheckOK {
			found[c.Name] += c.Result + ": " + c.Message + "\n"
		}
	}
	return found
}
