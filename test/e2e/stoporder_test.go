package e2e

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/faulty/fault"
	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// situations are those in which an end might be taken for one to fall back from. In
// each there are two generations, and what keeps both from ending soon.
var situations = []struct {
	name      string
	probation time.Duration
	// begin returns where the answer to an upgrade is still to come.
	begin func(s *trials) <-chan testbed.Result
}{
	{"staged", 20 * time.Millisecond, func(s *trials) <-chan testbed.Result {
		s.stageWithRequest()
		return nil
	}},
	{"on probation", time.Minute, func(s *trials) <-chan testbed.Result {
		s.holdWebSocket()
		s.install(fault.Plan{})
		up := s.inBackground("hdctl", "upgrade", "demo")
		s.waitPhase(control.PhaseProbation)
		return up
	}},
	{"in a drain", 20 * time.Millisecond, func(s *trials) <-chan testbed.Result {
		s.holdWebSocket()
		s.install(fault.Plan{})
		s.mustHdctl("upgrade", "demo")
		return nil
	}},
	{"after a late fall back", 20 * time.Millisecond, func(s *trials) <-chan testbed.Result {
		s.holdWebSocket()
		s.install(fault.Plan{Fault: fault.Kill, At: fault.Drain, After: 10 * time.Millisecond})
		s.mustHdctl("upgrade", "demo")
		s.WaitFor(s.t, "the fall back", func() bool {
			r := s.hdctl("status", "-o", "json", "demo")
			return r.ExitCode == 0 && parseStatus(s.t, r.Stdout).Last.Outcome == control.OutcomeFellBack
		})
		s.install(fault.Plan{}) // what systemd starts then
		return nil
	}},
	{"after a rollback", 20 * time.Millisecond, func(s *trials) <-chan testbed.Result {
		s.holdWebSocket()
		s.stageWithRequest()
		s.mustHdctl("rollback", "demo")
		return nil
	}},
}

// stageWithRequest stages a version, with a request that it does not answer soon.
func (s *trials) stageWithRequest() {
	s.t.Helper()
	s.install(fault.Plan{})
	s.mustHdctl("upgrade", "--stage", "50%", "demo")
	c := s.connectTo(2)
	c.send("/sleep?ms=60000")
	s.WaitFor(s.t, "the request", func() bool { return working(generation(s.t, s.status(), 2)) >= 1 })
}

// stopOrders are the ways in which all is ended.
var stopOrders = []struct {
	name string
	stop func(s *trials, pids []int) // the oldest first
	down bool                        // systemd does not start it again
}{
	{name: "SIGTERM to main", stop: func(s *trials, _ []int) { s.kill(s.MainPID(service), syscall.SIGTERM) }},
	{name: "SIGTERM to all", stop: func(s *trials, _ []int) {
		s.MustSystemctl(s.t, "kill", "--signal=TERM", service)
	}},
	{name: "SIGTERM to the old one first", stop: func(s *trials, pids []int) {
		for _, pid := range pids {
			_ = s.Kill(pid, syscall.SIGTERM) // it may have gone with the one before
		}
	}},
	{name: "SIGTERM to the new one first", stop: func(s *trials, pids []int) {
		for _, pid := range slices.Backward(pids) {
			_ = s.Kill(pid, syscall.SIGTERM)
		}
	}},
	{name: "systemctl stop", down: true, stop: func(s *trials, _ []int) {
		s.MustSystemctl(s.t, append([]string{"stop", service}, s.sockets...)...)
	}},
}

// TestStopIsNeverAFallBack stops the service, in several orders, while it is in the
// middle of something from which it might fall back: all generations end in time, none
// takes the place of another one, no fall back is told of, and the unit is started
// again or stays down, as was asked.
func TestStopIsNeverAFallBack(t *testing.T) {
	const limit = 500 * time.Millisecond
	for _, situation := range situations {
		t.Run(situation.name, func(t *testing.T) {
			t.Parallel()
			s := newTrials(t, func(u *units.Service) { u.StopTimeout, u.Probation = limit, situation.probation })
			for _, order := range stopOrders {
				t.Run(order.name, func(t *testing.T) {
					s.t = t
					up := situation.begin(s)
					pids, err := s.Pids(service)
					require.NoError(t, err)
					before := s.status()
					told := s.fellBack()
					l := s.startLoad(load.Options{Arrivals: 200})

					began := time.Now()
					order.stop(s, pids)
					for _, pid := range pids {
						s.waitGone(pid)
					}
					took := time.Since(began)
					if up != nil {
						r := <-up
						assert.NotEqual(t, 0, r.ExitCode)
						assert.NotContains(t, r.Stdout+r.Stderr, "fell back")
						assert.Contains(t, r.Stderr, "stop")
					}
					assert.Less(t, took, limit+10*time.Second, "far from for ever")
					if order.down {
						unit := s.unit()
						assert.Equal(t, "inactive", unit["ActiveState"], "%v", unit)
						assert.Equal(t, "success", unit["Result"], "%v", unit)
						s.MustSystemctl(t, append([]string{"start", service}, s.sockets...)...)
					}
					s.WaitFor(t, "the next start", func() bool {
						r := s.hdctl("status", "-o", "json", "demo")
						return r.ExitCode == 0 && parseStatus(t, r.Stdout).Invocation != before.Invocation
					})
					s.requireServing(1, fmt.Sprint("t", s.labels))
					assert.Nil(t, s.status().Last, "a new start remembers no upgrade")
					assert.Equal(t, told, s.fellBack(), "what is told of")

					r := l.Stop()
					failed := r.Arrivals.Failed()
					if !order.down { // then the sockets are closed for a moment
						assert.Zero(t, failed[load.Refused], "%v", r)
					}
					t.Logf("all gone after %v; failed %v of %d", took.Round(time.Millisecond), failed, len(r.Arrivals))
				})
			}
		})
	}
}

// fellBack counts what history and journal have of fall backs.
func (s *site) fellBack() (n [2]int) {
	s.t.Helper()
	for _, e := range s.history("-n", "0") {
		if e.Outcome == control.OutcomeFellBack {
			n[0]++
		}
	}
	entries, err := s.Journal("MESSAGE_ID=" + failedID)
	require.NoError(s.t, err)
	for _, e := range entries {
		if e.Fields["HANDOFF_OUTCOME"] == control.OutcomeFellBack {
			n[1]++
		}
	}
	return n
}
