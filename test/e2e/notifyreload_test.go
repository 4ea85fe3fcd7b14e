package e2e

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// notifyReload has units for the first systemd that knows Type=notify-reload.
func notifyReload(u *units.Service) { u.Systemd, u.NotifyReload = 253, true }

// TestNotifyReload has systemd ask the service itself to reload, and wait for its
// answer, which comes whatever becomes of the upgrade. An earlier systemd does not
// know such units.
func TestNotifyReload(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{unit: notifyReload, stopped: true, probation: 100 * time.Millisecond})
	if s.Version() < 253 {
		s.notifyReloadUnknown()
		return
	}
	s.MustSystemctl(t, append([]string{"start", service}, s.sockets...)...)
	require.Equal(t, map[string]string{"Type": "notify-reload", "CanReload": "yes"}, // and no ExecReload=
		s.Show(service, "Type", "CanReload", "ExecReload"))
	l := s.startLoad(load.Mix())

	// In a row: systemd sends the next signal as soon as it knows the new main
	// process, which does not know that itself then.
	const row = 10
	for n := 2; n <= row+1; n++ {
		version := versions[n%len(versions)]
		s.deploy("demo-" + version)
		s.reload()
		assert.Equal(t, fmt.Sprintf("generation %d (%s) serving", n, version), s.unit()["StatusText"])
	}
	version := versions[(row+1)%len(versions)]
	st := s.requireServing(row+1, version)
	assert.Equal(t, control.ViaSignal, st.Last.Trigger.Via)

	// Upgrades that fail, and one that is refused: the reload succeeds, and the
	// status text tells.
	refused := func(status string) {
		t.Helper()
		s.reload()
		unit := s.unit()
		assert.Contains(t, unit["StatusText"], fmt.Sprintf("generation %d (%s) serving; upgrade ", row+1, version))
		assert.Contains(t, unit["StatusText"], status)
		assert.Equal(t, "success", unit["ReloadResult"])
		s.requireServing(row+1, version)
	}
	s.deployFaulty("exit1")
	refused("failed in ready: exit status 1")
	s.mustHdctl("pause", "demo", "--reason", "why")
	refused("upgrades are paused: by root via hdctl")
	s.mustHdctl("resume", "demo")

	// An upgrade of which systemd was not asked.
	s.deploy("demo-v2")
	s.upgradeTo(row+3, "v2") // the faulty one had the number between
	requireNoFailure(t, l)

	s.restartWith("HANDOFF_PROBATION=2s")
	reload := s.inBackground("systemctl", "reload", service)
	s.kill(s.waitPhase(control.PhaseProbation).Upgrade.PID, syscall.SIGKILL)
	require.NoError(t, (<-reload).Err())
	assert.Contains(t, s.unit()["StatusText"], "fell back in probation: killed by SIGKILL")
	s.requireServing(1, "v2")

	// A reload in the middle of an upgrade has an upgrade of its own.
	upgrade := s.inBackground("hdctl", "upgrade", "demo")
	s.waitPhase(control.PhaseProbation)
	s.deploy("demo-v3")
	s.reload()
	require.NoError(t, (<-upgrade).Err())
	s.requireServing(4, "v3")

	// A stop does not wait for it. In the middle of a reload systemd skips ExecStop=, and
	// so waits for a main process only if that is its child from the beginning.
	s.MustSystemctl(t, "restart", service)
	reload = s.inBackground("systemctl", "reload", service)
	s.waitPhase(control.PhaseProbation)
	s.stop()
	<-reload
	assert.Equal(t, "inactive", s.unit()["ActiveState"])
	assert.Equal(t, "success", s.unit()["Result"])
	assert.NotContains(t, s.journalText(), "Reload operation timed out")
}

// notifyReloadUnknown: the generator does not write such units for a systemd that would
// take them for Type=simple.
func (s *site) notifyReloadUnknown() {
	s.t.Helper()
	u := units.Service{Name: "demo", Exec: program, Sockets: []units.Socket{socket(s.t, "http", "8080")}, NotifyReload: true, Systemd: s.Version()}
	_, err := u.Render()
	require.ErrorContains(s.t, err, fmt.Sprintf("systemd %d does not know it", s.Version()))
	assert.Equal(s.t, map[string]string{"Type": "simple", "CanReload": "no"}, s.Show(service, "Type", "CanReload"))
	s.waitText("Failed to parse service type, ignoring: notify-reload", 1)
}
