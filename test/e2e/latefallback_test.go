package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/faulty/fault"
	kinds "github.com/hdctl/handoff/test/kinds/client"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// What a client holds in the old generation, so that it drains.
const (
	aWebSocket = "a WebSocket"
	aRequest   = "a slow request"
)

// late are versions that go wrong when they are confirmed already. Those at
// [fault.Confirmed] do so while the answer to the upgrade is on its way: between
// MAINPID= and the end of the reload, or just after it.
var late = []struct {
	plan fault.Plan
	via  string
	hold string
}{
	{fault.Plan{Fault: fault.Kill, At: fault.Confirmed}, control.ViaSystemctl, aWebSocket},
	{fault.Plan{Fault: fault.Stop, At: fault.Confirmed}, control.ViaHdctl, aRequest},
	{fault.Plan{Fault: fault.Panic, At: fault.Confirmed}, control.ViaHdctl, aRequest},
	{fault.Plan{Fault: fault.Exit0, At: fault.Confirmed}, control.ViaSystemctl, aRequest},
	{fault.Plan{Fault: fault.Kill, At: fault.Drain}, control.ViaHdctl, aRequest},
	{fault.Plan{Fault: fault.Stop, At: fault.Drain}, control.ViaSystemctl, aWebSocket},
	{fault.Plan{Fault: fault.Exit0, At: fault.Drain}, control.ViaHdctl, aWebSocket},
	{fault.Plan{Fault: fault.Panic, At: fault.Request, Request: 900}, control.ViaHdctl, aWebSocket},
	{fault.Plan{Fault: fault.Kill, At: fault.Drain, Memory: 2048}, control.ViaHdctl, aWebSocket},
}

// lateLimit is how long it may take until the old generation is main again. It is no
// promise, which is much shorter: only what would hang for ever reaches it.
const lateLimit = 20 * time.Second

// newLateTrials is a site where it is late soon.
func newLateTrials(t *testing.T) *trials {
	return newTrials(t, func(u *units.Service) {
		u.Probation = 200 * time.Millisecond
		u.Environment = append(u.Environment, units.Variable{Name: "HANDOFF_STOPPED_TIMEOUT", Value: lateStopped.String()})
	})
}

// TestLateFallBack has a new version go wrong after it was confirmed, while the old
// one still drains, because a client holds something there: the old one serves again,
// for systemd nothing has happened but that the main process is the one that it was,
// and what the client holds goes on.
func TestLateFallBack(t *testing.T) {
	s := newLateTrials(t)
	for _, tt := range late {
		t.Run(fmt.Sprintf("%v, %s, %s", tt.plan, tt.via, tt.hold), func(t *testing.T) {
			s.t = t
			kept := s.hold(tt.hold)
			tr := s.begin(tt.plan)
			tr.upgrade(tt.via)
			s.waitBack(tr)
			require.NoError(t, kept.alive(), "what the client holds")
			if tt.plan.Fault == fault.Stop {
				tr.goOn()
			}
			s.waitGone(tr.result.ToPID) // one that is stopped is killed
			tr.end()

			assert.NotZero(t, tr.struck(), "it was this fault")
			tr.assertToldLate()
			tr.requireNoRestart()
			tr.assertAnswered(true)
			tr.assertServedOnce()
			require.NoError(t, kept.alive(), "what the client holds")
			s.afterwards()
			require.NoError(t, kept.alive(), "what the client holds")
			kept.leave()
			s.waitOnly(s.number)
		})
	}
}

// assertToldLate asserts that the answer was the truth of its moment. Either it says
// that the new version was confirmed, which it was then; or that it is gone already,
// and the old one serves again. Both are told of, if both have been.
func (tr *trial) assertToldLate() {
	t := tr.s.t
	t.Helper()
	require.NotNil(t, tr.after.Last)
	last := tr.after.Last.Result
	assert.Equal(t, control.OutcomeFellBack, last.Outcome)
	assert.Equal(t, tr.result.To, last.To)
	assert.Equal(t, mainOf(t, tr.before).PID, mainOf(t, tr.after).PID)
	confirmed := last
	confirmed.Outcome, confirmed.Error = control.OutcomeConfirmed, nil

	said := confirmed
	if tr.command.ExitCode != 0 {
		assert.Equal(t, 1, tr.command.ExitCode, "%s%s", tr.command.Stdout, tr.command.Stderr)
		said = last
	}
	if tr.result.Trigger.Via == control.ViaHdctl {
		assert.Equal(t, tell(said), tell(tr.result))
	}
	if last.Phase == control.PhaseConfirm { // it was never confirmed, and nobody has said so
		assert.Equal(t, 1, tr.command.ExitCode)
		tr.assertTold(last)
		return
	}
	assert.Equal(t, control.PhaseDraining, last.Phase)
	entries := tr.assertTold(last, confirmed)
	assert.True(t, entries[1].Time.Before(entries[0].Time), "%v, then %v", entries[1].Time, entries[0].Time)
}

// waitBack waits until the generation that was main before is main again: for the
// service, for systemd, and for who connects.
func (s *trials) waitBack(tr *trial) {
	s.t.Helper()
	pid := mainOf(s.t, tr.before).PID
	ctx, cancel := context.WithTimeoutCause(context.Background(), lateLimit, fmt.Errorf("PID %d is not main again within %v", pid, lateLimit))
	defer cancel()
	s.WaitFor(s.t, fmt.Sprintf("PID %d to be main again", pid), func() bool {
		require.NoError(s.t, context.Cause(ctx))
		r := s.hdctl("status", "-o", "json", "demo")
		if r.ExitCode != 0 {
			return false // nobody answers for a moment
		}
		st := parseStatus(s.t, r.Stdout)
		return st.Main == tr.before.Main && st.State == control.StateServing && s.MainPID(service) == pid &&
			st.Last.Outcome == control.OutcomeFellBack
	})
	// The load has gone on: it is answered by the old one again.
	s.waitAnswered(tr.load, tr.before.Main, 20)
}

// goOn has a process that is stopped go on, when it has been replaced. It may be gone.
func (tr *trial) goOn() {
	err := tr.s.Kill(tr.result.ToPID, syscall.SIGCONT)
	if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrProcessDone) {
		require.NoError(tr.s.t, err)
	}
}

// held is what a client holds in a generation, so that it drains for as long as the
// client wants.
type held struct {
	alive func() error // does the generation still answer?
	leave func()       // in an orderly way
}

// hold opens what keeps the generation that serves alive.
func (s *trials) hold(what string) held {
	s.t.Helper()
	if what == aRequest {
		return s.holdRequest()
	}
	return s.holdWebSocket()
}

func (s *trials) holdWebSocket() held {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ks := kindsSite{s.site}
	c, err := kinds.Open(ctx, kinds.WebSocket, ks.dial("http"))
	require.NoError(s.t, err)
	s.t.Cleanup(c.Close)
	number := s.number
	return held{
		alive: func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			n, err := c.Alive(ctx)
			if err == nil && n != number {
				err = fmt.Errorf("generation %d answers, not %d", n, number)
			}
			return err
		},
		leave: c.Close,
	}
}

// holdRequest sends all of a request but its last byte. Each question whether the
// generation is alive ends it, and begins another one on the same connection.
func (s *trials) holdRequest() held {
	s.t.Helper()
	const head, body = "POST / HTTP/1.1\r\nHost: demo\r\nContent-Length: 4\r\n\r\n", "body"
	c := s.connect()
	c.write(head + body[:3])
	s.WaitFor(s.t, "the request", func() bool { return working(mainOf(s.t, s.status())) >= 1 })
	number := strconv.Itoa(s.number)
	return held{
		alive: func() error {
			c.write(body[3:] + head + body[:3])
			if a := c.receive(); a.header("X-Handoff-Generation") != number {
				return fmt.Errorf("generation %s answers, not %s", a.header("X-Handoff-Generation"), number)
			}
			return nil
		},
		leave: func() {
			c.write(body[3:])
			c.receive()
			c.close()
		},
	}
}
