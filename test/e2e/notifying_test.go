package e2e

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/faulty/fault"
	"github.com/hdctl/handoff/upgrade/control"
)

// TestFaultsWhileSystemdIsTold has a new version go wrong after MAINPID= was sent and
// before systemd has read it, which would be the confirm: systemd stands still
// meanwhile, as a loaded one may for a moment. The old version serves at once, and not
// only when systemd goes on; that reload has failed; and systemd, which hears of both
// main processes then, believes the last word.
func TestFaultsWhileSystemdIsTold(t *testing.T) {
	s := newTrials(t, nil)
	for _, tt := range []struct {
		via    string
		signal syscall.Signal
		ending string
	}{
		{control.ViaSystemctl, syscall.SIGKILL, "killed by SIGKILL"},
		{control.ViaHdctl, syscall.SIGSTOP, "its process is stopped (SIGSTOP) for "},
	} {
		t.Run(tt.signal.String()+" by "+tt.via, func(t *testing.T) {
			s.t = t
			tr := s.begin(fault.Plan{})
			up := s.inBackground(tr.commandLine(tt.via)...)
			pid := s.waitPhase(control.PhaseProbation).Upgrade.PID
			s.kill(1, syscall.SIGSTOP)
			defer s.kill(1, syscall.SIGCONT) // in any case
			s.waitConfirm()
			tr.deed, tr.done = fmt.Sprint("between MAINPID= and the confirm: ", tt.signal), time.Now()
			s.kill(pid, tt.signal)
			s.waitAnswered(tr.load, tr.before.Main, 20)
			s.kill(1, syscall.SIGCONT)
			tr.answer(<-up)
			s.waitGone(pid)
			tr.end()

			assert.Equal(t, 1, tr.command.ExitCode, "%s%s", tr.command.Stdout, tr.command.Stderr)
			assert.Equal(t, control.OutcomeFellBack, tr.result.Outcome)
			assert.Equal(t, control.PhaseConfirm, tr.result.Phase)
			assert.Equal(t, pid, tr.result.ToPID)
			require.NotNil(t, tr.result.Error)
			assert.Contains(t, tr.result.Error.Message, tt.ending)
			tr.assertTold(tr.result)
			assert.Equal(t, mainOf(t, tr.before).PID, s.MainPID(service))
			tr.requireNoRestart()
			tr.assertAnswered(true)
			tr.assertServedOnce()
			s.afterwards()
		})
	}
}

// waitConfirm waits until systemd is being told of a new main process. It asks the
// service itself, for hdctl also asks systemd, and waits for its answer.
func (s *site) waitConfirm() {
	s.t.Helper()
	const socket = "/run/handoff/demo/control.sock"
	c := control.Client{Socket: socket, Dial: func(ctx context.Context) (net.Conn, error) { return s.Dial(ctx, "unix", socket) }}
	s.WaitFor(s.t, "an upgrade in "+control.PhaseConfirm, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		st, err := c.Status(ctx)
		require.NoError(s.t, err)
		return st.Upgrade != nil && st.Upgrade.Phase == control.PhaseConfirm
	})
}
