package e2e

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/faulty/fault"
	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade"
	"github.com/hdctl/handoff/upgrade/control"
)

// lateStopped is HANDOFF_STOPPED_TIMEOUT where it is too long by default.
const lateStopped = time.Second

// noHangs are what looks like a hang of a new version to somebody who only sees that
// clients wait, and is none.
var noHangs = []struct {
	name string
	plan fault.Plan
	// begin makes it so, on probation, unless the plan does. end ends it.
	begin func(s *trials, pid int) (end func())
	// soon: it ends on probation. Otherwise it lasts until some time after the confirm.
	soon bool
}{
	{
		name: "it has declared that it is busy", plan: fault.Plan{Fault: fault.Busy, At: fault.Serving},
		begin: func(s *trials, pid int) func() { return func() { s.kill(pid, syscall.SIGUSR1) } },
	},
	{
		name:  "a debugger holds it",
		begin: func(s *trials, pid int) func() { return s.attach(pid) },
	},
	{
		name:  "the unit has 5 % of a CPU",
		begin: func(s *trials, _ int) func() { return s.throttle(5) },
	},
	{
		name: "it goes on before the limit", plan: fault.Plan{Fault: fault.Stop, At: fault.Probation}, soon: true,
		begin: func(s *trials, pid int) func() {
			s.waitStopped(pid)
			return func() { s.kill(pid, syscall.SIGCONT) }
		},
	},
	{
		// The worst order: the old one has seen it stopped before, and after.
		name: "the whole unit is stopped", soon: true,
		begin: func(s *trials, pid int) func() {
			old := s.MainPID(service)
			s.kill(pid, syscall.SIGSTOP)
			s.waitStopped(pid)
			s.MustSystemctl(s.t, "kill", "--signal=STOP", service)
			s.waitStopped(old)
			s.waitLonger(upgrade.DefaultHangTimeout)
			return func() {
				s.kill(old, syscall.SIGCONT)
				s.WaitFor(s.t, "the old one to go on", func() bool { return s.processState(old) != "T" })
				s.MustSystemctl(s.t, "kill", "--signal=CONT", service)
			}
		},
	},
}

// patientLoad is as much as the backlog can hold for some seconds.
func patientLoad() load.Options { return load.Options{Arrivals: 200} }

// TestWhatIsNoHang has clients wait for a new version for longer than a hang may last,
// on probation and after the confirm, for a reason that is none to replace it: it is
// confirmed, nothing is reported, and nobody has waited in vain.
func TestWhatIsNoHang(t *testing.T) {
	s := newTrials(t, func(u *units.Service) {
		u.Probation = 2 * time.Second
		u.Environment = append(u.Environment, units.Variable{Name: "HANDOFF_STOPPED_TIMEOUT", Value: lateStopped.String()})
	})
	for _, tt := range noHangs {
		t.Run(tt.name, func(t *testing.T) {
			s.t = t
			kept := s.hold(aWebSocket)
			tr := s.beginUnder(patientLoad(), tt.plan)
			tr.deed = tt.name
			up := s.inBackground("hdctl", "upgrade", "-o", "json", "demo")
			pid := s.waitPhase(control.PhaseProbation).Upgrade.PID
			end := sync.OnceFunc(tt.begin(s, pid))
			t.Cleanup(end)
			if tt.soon {
				end()
			}
			tr.answer(<-up)
			require.Equal(t, 0, tr.command.ExitCode, "%s%s", tr.command.Stdout, tr.command.Stderr)
			if !tt.soon {
				s.waitLonger(lateStopped)
				end()
			}
			s.waitAnswered(tr.load, tr.result.To, 20)
			tr.end()

			assert.Equal(t, pid, tr.result.ToPID)
			assert.Equal(t, pid, mainOf(t, tr.after).PID)
			tr.assertTold(tr.result)
			for _, e := range tr.journal() {
				assert.NotEqual(t, hungID, e.Fields["MESSAGE_ID"], "%s", e.Message)
			}
			assert.Empty(t, tr.after.Warnings)
			tr.assertAnswered(false)
			require.NoError(t, kept.alive())
			kept.leave()
			s.number, s.version = tr.result.To, tr.label
			s.waitOnly(s.number)
		})
	}
}

// waitStopped waits until a process is stopped.
func (s *site) waitStopped(pid int) {
	s.t.Helper()
	s.WaitFor(s.t, fmt.Sprintf("process %d to be stopped", pid), func() bool { return s.processState(pid) == "T" })
}

// waitLonger waits for longer than a limit, by as much again.
func (s *site) waitLonger(limit time.Duration) {
	s.t.Helper()
	began := time.Now()
	s.WaitFor(s.t, "a limit to pass", func() bool { return time.Since(began) > 2*limit })
}

// TestAHangAfterTheConfirmIsReported has a new version accept nothing after it was
// confirmed: it runs, it is main, and nobody replaces it; but status and journal tell
// of it, as long as it lasts.
func TestAHangAfterTheConfirmIsReported(t *testing.T) {
	t.Parallel()
	s := newLateTrials(t)
	for _, f := range []fault.Fault{fault.Deadlock, fault.Accept} {
		t.Run(string(f), func(t *testing.T) {
			s.t = t
			kept := s.hold(aWebSocket)
			tr := s.beginUnder(patientLoad(), fault.Plan{Fault: f, At: fault.Drain})
			tr.upgrade(control.ViaHdctl)
			require.Equal(t, 0, tr.command.ExitCode, "%s%s", tr.command.Stdout, tr.command.Stderr)
			pid := tr.result.ToPID

			s.WaitFor(t, "a warning", func() bool { return len(s.status().Warnings) > 0 })
			st := s.status()
			require.Len(t, st.Warnings, 1)
			assert.Contains(t, st.Warnings[0], `it accepts nothing on "http" for `)
			assert.Equal(t, pid, mainOf(t, st).PID)
			assert.Equal(t, pid, s.MainPID(service))
			assert.Contains(t, s.hdctl("status", "demo").Stdout, st.Warnings[0])

			s.kill(pid, syscall.SIGUSR1)
			s.WaitFor(t, "the warning to end", func() bool { return len(s.status().Warnings) == 0 })
			s.waitAnswered(tr.load, tr.result.To, 20)
			tr.end()

			assert.NotZero(t, tr.struck(), "it was this fault")
			var reports []string
			for _, e := range tr.journal() {
				if e.Fields["MESSAGE_ID"] == hungID {
					assert.Equal(t, fmt.Sprint(tr.result.To), e.Fields["HANDOFF_GENERATION"])
					reports = append(reports, fmt.Sprintf("%d %s", e.Priority, e.Message))
				}
			}
			if assert.Len(t, reports, 2, "%q", reports) {
				whose := fmt.Sprintf("demo: generation %d (pid %d) ", tr.result.To, pid)
				assert.Contains(t, reports[0], "3 "+whose+`does not work: it accepts nothing on "http" for `)
				assert.Contains(t, reports[1], "5 "+whose+"goes on: ")
			}
			tr.assertTold(tr.result)
			tr.assertAnswered(false)
			require.NoError(t, kept.alive())
			kept.leave()
			s.number, s.version = tr.result.To, tr.label
			s.waitOnly(s.number)
			s.afterwards()
		})
	}
}
