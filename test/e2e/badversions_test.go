package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/faulty/fault"
	kinds "github.com/hdctl/handoff/test/kinds/client"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// badEnding is how a process ended that a fault has killed, in the words of a result.
func badEnding(f fault.Fault) string {
	switch f {
	case fault.Kill:
		return "killed by SIGKILL"
	case fault.Panic:
		return "exit status 2"
	case fault.Exit0:
		return "exit status 0"
	case fault.Exit3:
		return "exit status 3"
	}
	return ""
}

// TestBadVersionsBeforeConfirm has a new version die, in each way, at each moment up
// to the end of its probation, under new connections at a fixed rate. The old one
// serves as if nothing had been, the answer says what has happened, and the next good
// version takes over.
func TestBadVersionsBeforeConfirm(t *testing.T) {
	moments := []fault.Moment{fault.Init, fault.Started, fault.Listening, fault.Ready, fault.Serving, fault.Probation}
	faults := []fault.Fault{fault.Kill, fault.Panic, fault.Exit0, fault.Exit3}
	s := newTrials(t, nil)
	for i, at := range moments {
		for j, f := range faults {
			via := []string{control.ViaHdctl, control.ViaSystemctl}[(i+j)%2]
			t.Run(fmt.Sprintf("%s at %s by %s", f, at, via), func(t *testing.T) {
				s.t = t
				outcome := control.OutcomeFailed
				served := at == fault.Serving || at == fault.Probation
				if served {
					outcome = control.OutcomeFellBack
				}
				tr := s.begin(fault.Plan{Fault: f, At: at})
				tr.upgrade(via)
				tr.end()

				assert.Equal(t, 1, tr.command.ExitCode, "%s%s", tr.command.Stdout, tr.command.Stderr)
				assert.Equal(t, outcome, tr.result.Outcome)
				assert.Equal(t, via, tr.result.Trigger.Via)
				require.NotNil(t, tr.result.Error)
				assert.Contains(t, tr.result.Error.Message, badEnding(f))
				assert.Contains(t, strings.Join(tr.result.Output, "\n"), "faulty: going to "+tr.plan.String())
				assert.NotZero(t, tr.struck(), "it was this fault")
				require.NotNil(t, tr.after.Last)
				assert.Equal(t, tr.result.Error, tr.after.Last.Error, "status tells the same")
				assert.Contains(t, strings.Join(tr.messages, "\n"), tr.result.Error.Message, "and so does the journal")
				assert.Equal(t, mainOf(t, tr.before).PID, mainOf(t, tr.after).PID, "the same process is main")
				assert.Len(t, tr.after.Generations, 1, "nothing is left of it")
				tr.requireNoRestart()
				tr.assertAnswered(served)
				s.afterwards()
			})
		}
	}
}

// hangs are versions that live on probation, and do not serve.
var hangs = []struct {
	plan    fault.Plan
	message string // in the error
}{
	{fault.Plan{Fault: fault.Stop, At: fault.Serving}, "stopped"},
	{fault.Plan{Fault: fault.Stop, At: fault.Probation}, "stopped"},
	{fault.Plan{Fault: fault.Deadlock, At: fault.Serving}, "accept"},
	{fault.Plan{Fault: fault.Deadlock, At: fault.Probation}, "accept"},
	{fault.Plan{Fault: fault.Accept, At: fault.Serving}, "accept"},
	{fault.Plan{Fault: fault.Accept, At: fault.Probation}, "accept"},
}

// TestHangsInProbation has a new version hang after it has begun to serve: the old
// one ends it, and serves again.
func TestHangsInProbation(t *testing.T) {
	s := newTrials(t, func(u *units.Service) { u.Probation = 5 * time.Second })
	for _, tt := range hangs {
		t.Run(tt.plan.String(), func(t *testing.T) {
			s.t = t
			tr := s.begin(tt.plan)
			tr.upgrade(control.ViaHdctl)
			tr.end()

			assert.Equal(t, 1, tr.command.ExitCode, "%s%s", tr.command.Stdout, tr.command.Stderr)
			assert.Equal(t, control.OutcomeFellBack, tr.result.Outcome)
			require.NotNil(t, tr.result.Error)
			assert.Contains(t, tr.result.Error.Message, tt.message)
			assert.NotZero(t, tr.struck(), "it was this fault")
			s.waitGone(tr.result.ToPID)
			assert.Equal(t, mainOf(t, tr.before).PID, mainOf(t, tr.after).PID, "the same process is main")
			tr.requireNoRestart()
			tr.assertAnswered(true)
			s.afterwards()
		})
	}
}

// late are versions that go wrong when they are confirmed already. Those at
// [fault.Confirmed] do so while the answer to the upgrade is on its way.
var late = []fault.Plan{
	{Fault: fault.Kill, At: fault.Confirmed},
	{Fault: fault.Kill, At: fault.Drain},
	{Fault: fault.Kill, At: fault.Drain, Memory: 2048},
	{Fault: fault.Stop, At: fault.Confirmed},
	{Fault: fault.Stop, At: fault.Drain},
	{Fault: fault.Exit0, At: fault.Confirmed},
	{Fault: fault.Exit0, At: fault.Drain},
	{Fault: fault.Panic, At: fault.Confirmed},
	{Fault: fault.Panic, At: fault.Drain},
}

// lateLimit is how long it may take until the old generation is main again. It is no
// promise, which is much shorter: only what would hang for ever reaches it.
const lateLimit = 20 * time.Second

// TestLateFallBack has a new version go wrong after it was confirmed, while the old
// one still drains, because a client holds something there: the old one serves again,
// for systemd nothing has happened but that the main process is the one that it was,
// and what the client holds goes on.
func TestLateFallBack(t *testing.T) {
	s := newTrials(t, func(u *units.Service) { u.Probation = 200 * time.Millisecond })
	for _, plan := range late {
		for name, hold := range s.holders() {
			t.Run(fmt.Sprintf("%v, %s", plan, name), func(t *testing.T) {
				s.t = t
				kept := hold()
				tr := s.begin(plan)
				old := mainOf(t, tr.before).PID
				tr.upgrade(control.ViaHdctl)
				// The answer is the truth of its moment: of one that dies at its confirm
				// either may be true.
				if plan.At == fault.Confirmed && tr.command.ExitCode != 0 {
					assert.Equal(t, 1, tr.command.ExitCode, "%s%s", tr.command.Stdout, tr.command.Stderr)
					assert.Equal(t, control.OutcomeFellBack, tr.result.Outcome)
				} else {
					assert.Equal(t, 0, tr.command.ExitCode, "%s%s", tr.command.Stdout, tr.command.Stderr)
					assert.Equal(t, control.OutcomeConfirmed, tr.result.Outcome)
				}
				s.waitBack(tr, old)
				require.NoError(t, kept.alive(), "what the client holds")
				s.waitGone(tr.result.ToPID) // one that is stopped is killed
				tr.end()

				assert.NotZero(t, tr.struck(), "it was this fault")
				tr.requireNoRestart()
				tr.assertAnswered(true)
				require.NoError(t, kept.alive(), "what the client holds")
				s.afterwards()
				require.NoError(t, kept.alive(), "what the client holds")
				kept.leave()
				s.waitOnly(s.number)
			})
		}
	}
}

// waitBack waits until the given process is main again: for the service, for systemd
// and for who asks.
func (s *trials) waitBack(tr *trial, pid int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeoutCause(context.Background(), lateLimit, fmt.Errorf("PID %d is not main again within %v", pid, lateLimit))
	defer cancel()
	s.WaitFor(s.t, fmt.Sprintf("PID %d to be main again", pid), func() bool {
		require.NoError(s.t, context.Cause(ctx))
		r := s.hdctl("status", "-o", "json", "demo")
		if r.ExitCode != 0 {
			return false // nobody answers for a moment
		}
		st := parseStatus(s.t, r.Stdout)
		return st.Main == tr.before.Main && st.State == control.StateServing && s.MainPID(service) == pid
	})
	// The load has gone on: it is answered by the old one again.
	answered, stop := context.WithTimeout(context.Background(), lateLimit)
	defer stop()
	require.NoError(s.t, tr.load.WaitAnswered(answered, tr.before.Main, 20))
}

// held is what a client holds in a generation, so that it drains for as long as the
// client wants.
type held struct {
	alive func() error // does the generation still answer?
	leave func()       // in an orderly way
}

// holders open what keeps a generation alive.
func (s *trials) holders() map[string]func() held {
	return map[string]func() held{"a WebSocket": s.holdWebSocket, "a slow request": s.holdRequest}
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
