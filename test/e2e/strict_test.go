package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// strictExposure is what the strict profile promises: "systemd-analyze security".
const strictExposure = 1.5

// TestStrictProfile has a service in the sandbox of the strict profile, with a user
// that systemd made up, go through all that a service can: upgrades by systemctl and
// hdctl and a rollback under load, the death of a new version in its probation and
// after it, a stop, and a start that finds the history again.
func TestStrictProfile(t *testing.T) {
	t.Parallel()
	s := newStrictSite(t)
	exposure := s.exposure()
	t.Logf("exposure %.1f", exposure)
	assert.LessOrEqual(t, exposure, strictExposure)
	status, err := s.ReadFile(fmt.Sprintf("/proc/%d/status", s.MainPID(service)))
	require.NoError(t, err)
	assert.NotContains(t, string(status), "\nUid:\t0\t")

	l := s.startLoad(mixedLoad())
	s.deploy("demo-v2")
	s.reload()
	s.requireServing(2, "v2")
	s.deploy("demo-v3")
	s.mustHdctl("upgrade", "demo")
	s.requireServing(3, "v3")
	s.mustHdctl("rollback", "demo")
	s.requireServing(4, "v2")
	requireNoFailure(t, l)

	// The new one dies while the old one stands by.
	pid := s.MainPID(service)
	up := s.inBackground("systemctl", "reload", service)
	s.kill(s.waitPhase(control.PhaseProbation).Upgrade.PID, syscall.SIGKILL)
	require.Equal(t, 1, (<-up).ExitCode)
	st := s.requireServing(4, "v2")
	assert.Equal(t, pid, mainOf(t, st).PID)
	assert.Equal(t, control.OutcomeFellBack, st.Last.Outcome)

	// And while it still drains.
	held := s.openEcho()
	require.Equal(t, "4: a", held.say("a"))
	s.reload()
	s.waitDrainingEcho(4)
	drainer := generation(t, s.status(), 4).PID
	score, err := s.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", drainer))
	require.NoError(t, err)
	assert.NotEqual(t, "0\n", string(score), "if memory runs out, it goes first")
	s.kill(s.MainPID(service), syscall.SIGKILL)
	s.WaitFor(t, "the old one to be main again", func() bool { return s.MainPID(service) == pid })
	s.WaitFor(t, "the story", func() bool { return s.status().Last.Outcome == control.OutcomeFellBack })
	assert.Equal(t, "4: b", held.say("b"))
	require.NoError(t, held.c.Close())

	// A version that systemd has not started is told to stop, and waited for.
	s.reload()
	s.waitOnly(7)
	var before []control.Entry
	s.WaitFor(t, "the end of the last drain", func() bool {
		before = s.history()
		return !before[0].DrainEnded.IsZero()
	})
	require.Len(t, before, 7)
	s.stop()
	unit := s.unit()
	assert.Equal(t, "success", unit["Result"], "%v", unit)
	assert.Contains(t, s.journalText(), "msg=stopping generation=7")
	s.MustSystemctl(t, "start", service)
	s.requireServing(1, "v3")
	assert.Equal(t, before, s.history())
}

// newStrictSite is a site in the sandbox, with all settings of it that the testbed's
// systemd knows.
func newStrictSite(t *testing.T) *site {
	t.Helper()
	var u units.Service
	s := newSite(t, options{probation: time.Second, stopped: true, unit: func(generated *units.Service) {
		generated.Profile = units.Strict
		u = *generated
	}})
	u.Systemd = s.Version()
	files, err := u.Render()
	require.NoError(t, err)
	for name, content := range files {
		require.NoError(t, s.Install(name, string(content)))
	}
	s.MustSystemctl(t, append([]string{"start", service}, s.sockets...)...)
	return s
}

// exposure is the verdict of systemd-analyze on the service.
func (s *site) exposure() float64 {
	s.t.Helper()
	out := s.MustRun(s.t, "systemd-analyze", "security", "--no-pager", service).Stdout
	m := regexp.MustCompile(`Overall exposure level for ` + regexp.QuoteMeta(service) + `: ([0-9.]+)`).FindStringSubmatch(out)
	require.NotNil(s.t, m, "%s", out)
	exposure, err := strconv.ParseFloat(m[1], 64)
	require.NoError(s.t, err)
	return exposure
}
