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

// stopTimeout of the services that are stopped here.
const stopTimeout = 3 * time.Second

// TestAStopIsAStop sends SIGTERM to main alone, to all, and has systemd stop and
// restart the service, in each phase of an upgrade and with a connection held: all
// generations end, none falls back, and clients who connect wait for the next
// start.
func TestAStopIsAStop(t *testing.T) {
	stops := map[string]func(*site, []int){
		"SIGTERM to main": func(s *site, _ []int) { s.kill(s.MainPID(service), syscall.SIGTERM) },
		"SIGTERM to all": func(s *site, pids []int) {
			for _, pid := range pids {
				_ = s.Kill(pid, syscall.SIGTERM) // it may have gone with the one before
			}
		},
		"SIGTERM to all, newest first": func(s *site, pids []int) {
			for i := range pids {
				_ = s.Kill(pids[len(pids)-1-i], syscall.SIGTERM)
			}
		},
		"systemctl restart": func(s *site, _ []int) { s.MustSystemctl(s.t, "restart", service) },
	}
	phases := map[string]func(*site){
		"quiet":    func(*site) {},
		"draining": func(s *site) { s.reload() },
		"starting": func(s *site) {
			s.deployFaulty("hang")
			s.inBackground("hdctl", "upgrade", "demo")
			s.waitPhase(control.PhaseReady)
		},
		"probation": func(s *site) {
			s.MustSystemctl(s.t, "set-property", "--runtime", service, "Description=x") // a unit that changes meanwhile
			s.deploy("demo-v2")
			s.inBackground("hdctl", "upgrade", "demo")
			s.waitPhase(control.PhaseProbation)
		},
	}
	for stopName, stop := range stops {
		for phaseName, phase := range phases {
			t.Run(stopName+", "+phaseName, func(t *testing.T) {
				t.Parallel()
				probation := 200 * time.Millisecond
				if phaseName == "probation" {
					probation = 20 * time.Second
				}
				s := newSite(t, options{probation: probation, unit: func(u *units.Service) { u.StopTimeout = stopTimeout }})
				held := s.openEcho()
				require.Equal(t, "1: a", held.say("a"))
				phase(s)
				s.deploy("demo-v3") // what systemd starts then
				l := s.startLoad(load.Options{New: load.Traffic{Conns: 2, Rate: 20}})

				pids, err := s.Pids(service)
				require.NoError(t, err)
				invocation := s.status().Invocation
				stop(s, pids)
				for _, pid := range pids {
					s.waitGone(pid)
				}
				assert.Empty(t, held.say("b"))
				s.WaitFor(t, "the next start", func() bool {
					r := s.hdctl("status", "-o", "json", "demo")
					return r.ExitCode == 0 && parseStatus(t, r.Stdout).Invocation != invocation
				})
				st := s.requireServing(1, "v3")
				assert.Nil(t, st.Last, "a new start remembers no upgrade")

				r := l.Stop()
				for _, f := range r.Failures {
					// An answer that was being given may be cut; the door stays open.
					assert.NotEqual(t, load.PhaseDial, f.Phase, "%v", f)
				}
				wait := r.Total().LongestWait
				assert.Less(t, wait, stopTimeout+10*time.Second, "the longest wait")
				entries, err := s.Journal("MESSAGE_ID=" + failedID)
				require.NoError(t, err)
				for _, e := range entries {
					assert.NotEqual(t, "fell-back", e.Fields["HANDOFF_OUTCOME"], "%s", e.Message)
				}
				assert.NotContains(t, s.journalText(), "successor died", "a death after a SIGTERM is a stop")
				t.Logf("longest wait %v; %d requests, %d failed", wait, r.Total().Requests, r.Total().Failed)
			})
		}
	}
}

// TestStopEndsTheService stops sockets and service: nothing is left, the port is
// closed, and it was no failure.
func TestStopEndsTheService(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{unit: func(u *units.Service) { u.StopTimeout = stopTimeout }})
	held := s.openEcho()
	require.Equal(t, "1: a", held.say("a"))
	stream := s.openStream()
	s.reload()
	assert.True(t, stream.goodbye(), "at the upgrade")
	stream = s.openStream()
	s.MustSystemctl(t, "stop", "demo.socket", "demo-echo.socket", "demo-dgram.socket", service)
	assert.True(t, stream.goodbye(), "at the stop")
	unit := s.unit()
	assert.Equal(t, "inactive", unit["ActiveState"])
	assert.Equal(t, "success", unit["Result"], "%v", unit)
	pids, err := s.Pids(service)
	assert.True(t, err != nil || len(pids) == 0, "%v %v", pids, err)
	assert.NotEqual(t, 0, s.Run(t.Context(), "test", "-e", "/run/handoff/demo").ExitCode, "the control socket is gone")

	s.MustSystemctl(t, "start", service)
	s.requireServing(1, "v1")
}

// TestRestartMakesClientsWait restarts under load: no connection is refused, and
// idle keep-alive connections do not hold it up for the whole StopTimeout.
func TestRestartMakesClientsWait(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{})
	l := s.startLoad(load.Options{New: load.Traffic{Conns: 4, Rate: 50}, Idle: 8})
	began := time.Now()
	s.MustSystemctl(t, "restart", service)
	t.Logf("the restart took %v, longest wait so far %v", time.Since(began), l.Report().Total().LongestWait)
	s.requireServing(1, "v1")
	r := l.Stop()
	for _, f := range r.Failures {
		assert.NotEqual(t, load.PhaseDial, f.Phase, "%v", f)
	}
	assert.Less(t, r.Total().LongestWait, units.DefaultStopTimeout+10*time.Second, fmt.Sprint(r))
}
