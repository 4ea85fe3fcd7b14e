package e2e

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	kinds "github.com/hdctl/handoff/test/kinds/client"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// TestIrreversibleServersAfterTheConfirm has a new version die while the old one
// drains a gRPC stream. On probation the old one serves again, as ever: a server that
// cannot take a drain back has not been asked to begin one. After the confirm it has,
// so the old one cannot serve: it ends at once, systemd starts the service again, and
// who connects meanwhile waits in the backlog and is not refused.
func TestIrreversibleServersAfterTheConfirm(t *testing.T) {
	t.Parallel()
	s := newKinds(t, silent, func(u *units.Service) { u.Probation = 700 * time.Millisecond }, "http", "grpc")
	stream := s.open(kinds.GRPC, 1)
	v := s.startVisits()
	old := s.MainPID(service)

	up := s.inBackground("hdctl", "upgrade", "-o", "json", "demo")
	s.kill(s.waitPhase(control.PhaseProbation).Upgrade.PID, syscall.SIGKILL)
	r := <-up
	require.Equal(t, 1, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	assert.Equal(t, control.OutcomeFellBack, upgradeResult(t, r).Outcome)
	assert.Equal(t, old, s.MainPID(service))
	s.requireAlive(stream)
	s.requireAlive(s.open(kinds.GRPC, 1)) // and others can be opened

	r = s.hdctl("upgrade", "-o", "json", "demo")
	require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	result := upgradeResult(t, r)
	s.requireAlive(stream) // it drains
	s.requireAlive(s.open(kinds.GRPC, result.To))
	s.kill(result.ToPID, syscall.SIGKILL)
	s.waitGone(old)
	s.WaitFor(t, "the restart", func() bool { return s.unit()["NRestarts"] == "1" && s.unit()["ActiveState"] == "active" })
	<-stream.Ended()
	s.requireAlive(s.open(kinds.GRPC, 1))
	answered := v.answered.Load()
	s.WaitFor(t, "more answers", func() bool { return v.answered.Load() > answered+20 })
	v.stop()
	t.Logf("%d visitors, %d of them in the hands of one that was killed", v.answered.Load()+v.cut.Load(), v.cut.Load())
	st := s.status()
	assert.Equal(t, 1, st.Main)
	assert.NotEqual(t, old, mainOf(t, st).PID)
	assert.NotContains(t, s.journalText(), "which still drained, serves again")
}

// visits are connections to the service, without a pause, with one request each.
type visits struct {
	answered, cut atomic.Int64
	stop          func() // waits for those that are under way
}

// startVisits has four visitors come and go. That one is refused fails the test.
func (s *kindsSite) startVisits() *visits {
	ctx, cancel := context.WithCancel(context.Background())
	v := new(visits)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				c, err := s.Dial(context.Background(), "tcp", address)
				if !assert.NoError(s.t, err) {
					return
				}
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n")
				answer, err := io.ReadAll(c)
				c.Close()
				switch {
				case bytes.HasPrefix(answer, []byte("HTTP/1.1 200 OK\r\n")):
					v.answered.Add(1)
				case assert.NotErrorIs(s.t, err, os.ErrDeadlineExceeded):
					v.cut.Add(1)
				}
			}
		})
	}
	v.stop = func() { cancel(); wg.Wait() }
	s.t.Cleanup(v.stop)
	return v
}
