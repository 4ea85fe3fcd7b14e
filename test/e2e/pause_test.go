package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestPause has upgrades refused, whoever wants one and for as long as the operator
// wants: over a rollback, which is not refused, and a restart.
func TestPause(t *testing.T) {
	t.Parallel()
	const reason = "migration of the database, ask Ann"
	s := newSite(t, options{probation: 50 * time.Millisecond})
	s.deploy("demo-v2")
	s.upgradeTo(2, "v2")
	assert.Contains(t, s.mustHdctl("pause", "demo", "--reason", reason), "hdctl resume demo")
	paused := s.status().Paused
	require.NotNil(t, paused)
	assert.Equal(t, "root", paused.User)
	who := "upgrades are paused: by root via hdctl on " + paused.Since.UTC().Format("2006-01-02 15:04:05 MST") + ": " + reason

	refused := func(generation int, version string) {
		t.Helper()
		s.deploy("demo-v3")
		r := s.hdctl("upgrade", "demo")
		assertRefused(t, r, who, "hdctl resume demo")
		assertRefused(t, s.hdctl("upgrade", "demo", "--stage", "5%"), who, "hdctl resume demo")
		before := strings.Count(s.journalText(), who)
		assert.Equal(t, 1, s.Systemctl("reload", service).ExitCode)
		s.waitText(who, before+1)
		s.kill(s.MainPID(service), syscall.SIGHUP)
		s.waitText(who, before+2)
		s.requireServing(generation, version)
	}
	refused(2, "v2")
	text := s.mustHdctl("status", "demo")
	assert.Contains(t, text, "paused by root via hdctl")
	assert.Contains(t, text, reason)
	exit, _ := s.check()
	assert.Equal(t, 0, exit, "to look is allowed")
	assert.Contains(t, s.unit()["StatusText"], "paused")

	s.mustHdctl("rollback", "demo", "--wait", "drained")
	assert.Equal(t, paused, s.status().Paused)
	refused(3, "v1")
	s.MustSystemctl(t, "restart", service)
	assert.Equal(t, paused, s.status().Paused)
	refused(1, "v3")

	assert.Contains(t, s.mustHdctl("pause", "demo", "--reason", "another one"), "upgrades stay paused")
	assert.Equal(t, "another one", s.status().Paused.Trigger.Reason)
	out := s.mustHdctl("resume", "demo")
	assert.Contains(t, out, "upgrades are allowed again")
	s.mustHdctl("resume", "demo") // is no mistake
	assert.Nil(t, s.status().Paused)
	s.upgradeTo(2, "v3")
	s.MustSystemctl(t, "restart", service)
	assert.Nil(t, s.status().Paused)

	// The demo has no configuration.
	assertRefused(t, s.hdctl("reconfigure", "demo"), "cannot read its configuration again", "hdctl upgrade demo")
}
