package e2e

import (
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// TestStopIsPoliteAfterAnUpgrade stops a service that was upgraded and of which
// one process is left. When systemd heard of that process it was a child of its
// predecessor; systemd takes it for somebody else's ever since, and would send it
// SIGKILL right after SIGTERM, were it not for ExecStop=.
func TestStopIsPoliteAfterAnUpgrade(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*site){
		"systemctl stop": func(s *site) {
			s.MustSystemctl(s.t, "stop", "demo.socket", "demo-echo.socket", "demo-dgram.socket", service)
		},
		"systemctl stop during a reload": func(s *site) { // systemd leaves out ExecStop= there
			s.deployFaulty("hang")
			s.inBackground("systemctl", "reload", service)
			s.waitPhase(control.PhaseReady)
			s.MustSystemctl(s.t, "stop", "demo.socket", "demo-echo.socket", "demo-dgram.socket", service)
		},
		"systemctl restart": func(s *site) { s.MustSystemctl(s.t, "restart", service) },
		"SIGTERM to main":   func(s *site) { s.kill(s.MainPID(service), syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, options{unit: func(u *units.Service) { u.StopTimeout = stopTimeout }})
			s.reload()
			s.WaitFor(t, "the end of generation 1", func() bool { return len(s.status().Generations) == 1 })
			pid := s.MainPID(service)
			stream, slow := s.openStream(), s.connect()
			slow.send("/sleep?ms=1500")
			s.WaitFor(t, "the request", func() bool { return working(mainOf(t, s.status())) == 2 })

			stop(s)
			assert.True(t, stream.goodbye())
			assert.Equal(t, "2", slow.receive().header("X-Handoff-Generation"))
			s.waitGone(pid)
			if strings.HasPrefix(name, "systemctl stop") {
				if name == "systemctl stop" { // else the reload has failed, and so, says systemd, has the service
					assert.Equal(t, "inactive", s.unit()["ActiveState"])
					assert.Equal(t, "success", s.unit()["Result"])
				}
				assert.NotContains(t, s.journalText(), "SIGKILL")
				return
			}
			s.WaitFor(t, "the next start", func() bool {
				return s.unit()["ActiveState"] == "active" && s.hdctl("status", "demo").ExitCode == 0
			})
			s.requireServing(1, "v1")
			assert.NotContains(t, s.journalText(), "SIGKILL")
		})
	}
}
