package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// The PID files, where nobody but the service removes them.
const (
	pidFile    = "/run/demo.pid"
	oldPIDFile = pidFile + ".oldbin"
)

// waitPIDs waits until the PID files say what they should; 0 is no file.
func (s *site) waitPIDs(pid, old int) {
	s.t.Helper()
	text := func(pid int) string {
		if pid == 0 {
			return ""
		}
		return fmt.Sprintln(pid)
	}
	var got [2]string
	s.WaitFor(s.t, fmt.Sprintf("PID files with %d and %d", pid, old), func() bool {
		for i, path := range []string{pidFile, oldPIDFile} {
			data, _ := s.ReadFile(path)
			got[i] = string(data)
		}
		return got == [2]string{text(pid), text(old)}
	})
}

// signal sends a signal as a script does.
func (s *site) signal(name, file string) {
	s.t.Helper()
	s.MustRun(s.t, "sh", "-c", fmt.Sprintf("kill -%s $(cat %s)", name, file))
}

// answering returns the generations that answer so many new connections.
func (s *site) answering(n int) map[string]int {
	s.t.Helper()
	by := make(map[string]int)
	for range n {
		by[s.get("/").header("X-Handoff-Generation")]++
	}
	return by
}

// TestSignalsOfNginx upgrades with the signals and the PID files that scripts for
// nginx use, there and back, under load.
func TestSignalsOfNginx(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{probation: 50 * time.Millisecond, unit: func(u *units.Service) {
		u.Environment = append(u.Environment,
			units.Variable{Name: "HANDOFF_SIGNALS", Value: "nginx"},
			units.Variable{Name: "HANDOFF_PID_FILE", Value: pidFile})
	}})
	l := s.startLoad(load.Mix())
	first := s.MainPID(service)
	s.waitPIDs(first, 0)

	beside := func(version string) (pid int) {
		t.Helper()
		s.deploy("demo-" + version)
		s.signal("USR2", pidFile)
		pid = s.waitPhase(control.PhaseStaged).Upgrade.PID
		s.waitPIDs(pid, s.MainPID(service))
		return pid
	}
	second := beside("v2")
	assert.NotEqual(t, second, s.MainPID(service))
	both := s.answering(40) // between those of the load
	assert.InDelta(t, both["1"], both["2"], 20)
	assert.Equal(t, 40, both["1"]+both["2"])
	s.signal("WINCH", oldPIDFile)
	s.waitPhase(control.PhaseProbation)
	answered := l.Report().Answered(2)
	s.WaitFor(t, "answers", func() bool { return l.Report().Answered(2) > answered+50 }) // much longer than a probation
	assert.Equal(t, map[string]int{"2": 20}, s.answering(20))
	assert.Equal(t, control.PhaseProbation, s.status().Upgrade.Phase, "it waits for a word")
	s.waitPIDs(second, first)

	s.signal("HUP", oldPIDFile)
	s.waitPIDs(first, 0)
	s.waitOnly(1)
	assert.Equal(t, first, s.MainPID(service))
	assert.Equal(t, map[string]int{"1": 20}, s.answering(20))

	third := beside("v3")
	s.signal("WINCH", oldPIDFile)
	s.waitPhase(control.PhaseProbation)
	s.signal("QUIT", oldPIDFile)
	s.waitMain(3)
	s.waitOnly(3)
	s.waitPIDs(third, 0)
	assert.Equal(t, third, s.MainPID(service))

	fourth := beside("v2")
	s.signal("QUIT", oldPIDFile) // without WINCH
	s.waitMain(4)
	s.waitOnly(4)
	s.waitPIDs(fourth, 0)
	s.requireServing(4, "v2")
	requireNoFailure(t, l)
	s.assertNoTrouble()

	// A new one that dies beside the old one, and one that dies when it serves all.
	fifth := beside("v3")
	s.kill(fifth, syscall.SIGKILL)
	s.waitPIDs(fourth, 0)
	sixth := beside("v3")
	s.signal("WINCH", oldPIDFile)
	s.waitPhase(control.PhaseProbation)
	s.kill(sixth, syscall.SIGKILL)
	s.waitPIDs(fourth, 0)
	s.requireServing(4, "v2")
	s.signal("HUP", pidFile) // nothing to take back, and nothing to read again
	s.waitText("cannot read its configuration again", 1)

	// After the confirm, and the end.
	held := s.openEcho()
	require.Equal(t, "4: a", held.say("a"))
	s.mustHdctl("upgrade", "demo")
	seventh := s.MainPID(service)
	s.waitPIDs(seventh, 0)
	s.kill(seventh, syscall.SIGKILL)
	s.waitPIDs(fourth, 0)
	s.waitMain(4)
	assert.Equal(t, fourth, s.MainPID(service))
	require.NoError(t, held.c.Close())
	s.MustSystemctl(t, "restart", service)
	s.waitPIDs(s.MainPID(service), 0)
	s.stop()
	s.waitPIDs(0, 0)
	assert.Equal(t, "success", s.unit()["Result"])
	for line := range strings.Lines(s.journalText()) {
		assert.NotContains(t, line, "PID file")
	}
}
