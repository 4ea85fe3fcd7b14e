package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/faulty/fault"
	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// mustStage begins a staged upgrade, and returns its result.
func (s *site) mustStage(share string, args ...string) control.Result {
	s.t.Helper()
	r := s.hdctl(append([]string{"upgrade", "-o", "json", "--stage", share, "demo"}, args...)...)
	require.Equal(s.t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	result := upgradeResult(s.t, r)
	require.Equal(s.t, control.OutcomeStaged, result.Outcome)
	return result
}

// requireStaged asserts that the generation of a result is staged, for the service
// and for systemd, which knows the old one only.
func (s *site) requireStaged(result control.Result, share float64) control.Status {
	s.t.Helper()
	st := s.status()
	require.NotNil(s.t, st.Upgrade)
	require.NotNil(s.t, st.Upgrade.Stage)
	require.Equal(s.t, control.PhaseStaged, st.Upgrade.Phase)
	require.Equal(s.t, share, st.Upgrade.Stage.Share)
	require.Equal(s.t, result.From, st.Main)
	require.Equal(s.t, control.StateServing, mainOf(s.t, st).State)
	require.Equal(s.t, control.StateStaged, generation(s.t, st, result.To).State)
	require.Equal(s.t, result.ToPID, generation(s.t, st, result.To).PID)
	require.Equal(s.t, mainOf(s.t, st).PID, s.MainPID(service))
	return st
}

// connectTo opens a connection to one of the generations that accept, and keeps it.
func (s *site) connectTo(generation int) *client {
	s.t.Helper()
	var c *client
	s.WaitFor(s.t, fmt.Sprintf("a connection to generation %d", generation), func() bool {
		c = s.connect()
		if c.get("/").header("X-Handoff-Generation") == strconv.Itoa(generation) {
			return true
		}
		c.close()
		return false
	})
	return c
}

// waitAnswered waits until a generation has answered more requests of a load.
func (s *site) waitAnswered(l *load.Load, generation, n int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(s.t, l.WaitAnswered(ctx, generation, n), "requests answered by generation %d\n%v", generation, l.Report())
}

// waitBegunAfter waits until a connection of a load that began after an instant was
// answered: those before it may have waited for that in the backlog.
func (s *site) waitBegunAfter(l *load.Load, at time.Time) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(s.t, l.Wait(ctx, func(r load.Report) bool {
		return slices.ContainsFunc(r.Arrivals, func(a load.Arrival) bool {
			return a.Due.Add(a.Begun).After(at) && a.Answered > 0
		})
	}), "%v", l.Report())
}

// TestFortyStagedUpgradesLoseNothing stages 40 versions, 20 of which are promoted and
// 20 rolled back, in turn, under every kind of load: no request fails, no connection
// of HTTP/1.1 is closed by the server, and systemd has the right main process right
// after each.
func TestFortyStagedUpgradesLoseNothing(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 4
	}
	s := newSite(t, options{probation: 50 * time.Millisecond})
	l := s.startLoad(load.MixWithPool())
	main := 1
	for i := range rounds {
		s.deploy("demo-" + versions[i%len(versions)])
		for _, verb := range []string{"promote", "rollback"} {
			staged := s.mustStage("25%")
			require.Equal(t, main, staged.From)
			s.requireStaged(staged, 25)
			s.waitAnswered(l, staged.To, 5)

			r := s.hdctl(verb, "-o", "json", "demo")
			require.Equal(t, 0, r.ExitCode, "%s: %s%s", verb, r.Stdout, r.Stderr)
			result := upgradeResult(t, r)
			want, pid := control.OutcomeConfirmed, staged.ToPID
			if verb == "rollback" {
				want, pid = control.OutcomeRolledBack, staged.FromPID
			} else {
				main = staged.To
			}
			require.Equal(t, want, result.Outcome)
			require.Equal(t, staged.To, result.To)
			require.Equal(t, pid, s.MainPID(service), "after %s of generation %d", verb, staged.To)
			require.Equal(t, main, s.status().Main)
		}
	}
	r := l.Stop()
	total := r.Total()
	require.NoError(t, r.Err(), "%v", r)
	require.Equal(t, total.Requests, total.Responses)
	assert.Zero(t, r.ClosedByServer(), "connections that the server has closed\n%v", r)
	t.Logf("%d staged upgrades in %v, each of %d generations answered\n%s", 2*rounds, r.Elapsed.Round(time.Millisecond),
		len(r.Generations()), table(r))
	s.waitOnly(main)
	s.noZombies()
}

// newcomers makes new connections, some at the same time, each with one request, and
// counts by which generation they were answered.
func (s *site) newcomers(n int, network, address string) map[int]int {
	s.t.Helper()
	var mu sync.Mutex
	by := make(map[int]int)
	inParallel(n, 16, func(int) {
		c, err := s.Dial(context.Background(), network, address)
		if !assert.NoError(s.t, err) {
			return
		}
		defer c.Close()
		r := (&member{Conn: c, br: bufio.NewReader(c)}).ask()
		assert.NoError(s.t, r.err)
		mu.Lock()
		by[r.generation]++
		mu.Unlock()
	})
	return by
}

// TestStageGetsExactlyItsShare counts who answers 2,000 new connections, on a TCP
// socket and on a unix socket, at one share after the other.
func TestStageGetsExactlyItsShare(t *testing.T) {
	const count, path = 2000, "/run/demo.sock"
	s := newSite(t, options{unit: func(u *units.Service) {
		l, err := units.ParseListen(path)
		require.NoError(t, err)
		u.Sockets[0].Listen = append(u.Sockets[0].Listen, l)
	}})
	staged := s.mustStage("5%")
	for _, share := range []float64{5, 50, 12.5} {
		if share != 5 {
			r := s.hdctl("promote", "-o", "json", "--share", fmt.Sprint(share), "demo")
			require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
			require.Equal(t, control.OutcomeStaged, upgradeResult(t, r).Outcome)
		}
		st := s.requireStaged(staged, share)
		require.Zero(t, st.Upgrade.Stage.Passed+st.Upgrade.Stage.Kept, "it counts from when the share was set")
		for network, to := range map[string]string{"tcp": address, "unix": path} {
			by := s.newcomers(count, network, to)
			t.Logf("%g%% over %s: %v", share, network, by)
			assert.Equal(t, count, by[staged.From]+by[staged.To])
			assert.InDelta(t, share, 100*float64(by[staged.To])/count, 1, "percent, over %s", network)
		}
		stage := s.status().Upgrade.Stage
		assert.Equal(t, 2*count, stage.Passed+stage.Kept)
		assert.InDelta(t, share, 100*float64(stage.Passed)/float64(stage.Passed+stage.Kept), 1, "percent, as status has it")
	}
}

// stage tries the version on a share of the new connections, and returns when it has
// answered some.
func (tr *trial) stage(share string, args ...string) {
	tr.s.t.Helper()
	tr.result = tr.s.mustStage(share, args...)
	tr.s.waitAnswered(tr.load, tr.result.To, 20)
}

// waitEnd waits until the upgrade is on record. Who asked for it was answered when it
// was staged.
func (tr *trial) waitEnd() {
	t := tr.s.t
	t.Helper()
	to := tr.result.To
	tr.s.WaitFor(t, "the end of the upgrade", func() bool {
		st := tr.s.status()
		if st.Upgrade != nil || st.Last == nil || st.Last.To != to {
			return false
		}
		tr.result = st.Last.Result
		return true
	})
}

// assertAnsweredAfter asserts that each connection that began after an instant was
// answered, and none was refused before that.
func (tr *trial) assertAnsweredAfter(at time.Time) {
	t := tr.s.t
	t.Helper()
	assert.Zero(t, tr.report.Arrivals.Failed()[load.Refused], "%v", tr.report)
	after := 0
	for _, a := range tr.report.Arrivals {
		if a.Due.Add(a.Begun).After(at) {
			after++
			assert.Empty(t, a.Cause, "began %v after", a.Due.Add(a.Begun).Sub(at))
		}
	}
	assert.Positive(t, after)
}

// TestNewOneDiesOnStage has the staged generation be killed, and hang: what it holds
// is lost, and nothing else. The old one goes on with all, and the next good version
// takes over.
func TestNewOneDiesOnStage(t *testing.T) {
	t.Parallel()
	s := newTrials(t, nil)
	for name, tt := range map[string]struct {
		strike func(pid int)
		code   string
		text   string
	}{
		"SIGKILL": {func(pid int) { s.kill(pid, syscall.SIGKILL) }, control.CodeStartFailed, "killed by SIGKILL"},
		"SIGSTOP": {s.freeze, control.CodeHung, "stopped (SIGSTOP)"},
		"SIGTERM": {func(pid int) { s.kill(pid, syscall.SIGTERM) }, control.CodeStartFailed, "exit status 0"},
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			tr := s.begin(fault.Plan{})
			tr.stage("30%")
			s.requireStaged(tr.result, 30)
			theirs, ours := s.connectTo(tr.result.To), s.connectTo(s.number)

			tt.strike(tr.result.ToPID)
			struck := time.Now()
			tr.waitEnd()
			s.waitGone(tr.result.ToPID)
			s.waitAnswered(tr.load, s.number, 20)
			tr.end()

			_, err := theirs.br.ReadByte()
			assert.Error(t, err, "what it held is lost")
			assert.Equal(t, strconv.Itoa(s.number), ours.get("/").header("X-Handoff-Generation"))
			assert.Equal(t, control.OutcomeFailed, tr.result.Outcome)
			assert.Equal(t, control.PhaseStaged, tr.result.Phase)
			require.NotNil(t, tr.result.Error)
			assert.Equal(t, tt.code, tr.result.Error.Code)
			assert.Contains(t, tr.result.Error.Message, tt.text)
			assert.Equal(t, mainOf(t, tr.before).PID, mainOf(t, tr.after).PID, "the same process is main")
			assert.Len(t, tr.after.Generations, 1, "nothing is left of it")
			tr.requireNoRestart()
			tr.assertAnsweredAfter(struck)
			assertRefused(t, s.hdctl("promote", "demo"), "no staged upgrade is in progress", "hdctl upgrade --stage")
			s.afterwards()
		})
	}
}

// TestOldOneDiesOnStage kills the main generation while another one is staged. The
// other one takes over, if systemd hears of that before it hears of the death;
// otherwise systemd ends it in an orderly way, and starts the service again, with what
// is on disk, while who connects waits. What the old one held is lost, and nothing
// else.
func TestOldOneDiesOnStage(t *testing.T) {
	t.Parallel()
	s := newTrials(t, nil)
	tr := s.begin(fault.Plan{})
	tr.stage("30%")
	theirs := s.connectTo(tr.result.To)
	s.kill(tr.result.FromPID, syscall.SIGKILL)
	var st control.Status
	s.WaitFor(t, "another main process", func() bool {
		r := s.hdctl("status", "-o", "json", "demo")
		if r.ExitCode != 0 {
			return false
		}
		st = parseStatus(t, r.Stdout)
		pid := mainOf(t, st).PID
		return pid != tr.result.FromPID && st.State == control.StateServing && pid == s.MainPID(service)
	})
	serves := time.Now()
	s.number, s.version = st.Main, tr.label
	s.waitBegunAfter(tr.load, serves)
	tr.report = tr.load.Stop()
	tr.assertAnswered(true)
	tr.assertAnsweredAfter(serves)

	restarts := s.unit()["NRestarts"]
	t.Logf("generation %d serves, %s restarts", s.number, restarts)
	if restarts == "0" {
		assert.Equal(t, tr.result.To, s.number)
		assert.Contains(t, s.mustHdctl("events", "demo"), "generation 1 died while generation 2 (t2) was staged, which serves all now")
		assert.Equal(t, strconv.Itoa(s.number), theirs.get("/").header("X-Handoff-Generation"))
	} else {
		assert.Equal(t, 1, s.number, "it counts from 1 again")
		_, err := theirs.br.ReadByte()
		assert.ErrorIs(t, err, io.EOF, "closed in an orderly way")
		s.waitGone(tr.result.ToPID)
	}
	st = s.requireServing(s.number, s.version)
	assert.Nil(t, st.Upgrade)
	s.waitOnly(s.number)
	s.afterwards()
}

// TestStageTimeLimitRollsBack stages a version about which nobody decides: it is
// rolled back by itself, and nobody notices but the operator.
func TestStageTimeLimitRollsBack(t *testing.T) {
	t.Parallel()
	s := newTrials(t, nil)
	tr := s.begin(fault.Plan{})
	tr.stage("30%", "--stage-timeout", "2s")
	st := s.requireStaged(tr.result, 30)
	assert.WithinDuration(t, st.Upgrade.Stage.Since.Add(2*time.Second), st.Upgrade.Stage.Deadline, 100*time.Millisecond)
	theirs := s.connectTo(tr.result.To)
	tr.waitEnd()
	s.waitAnswered(tr.load, s.number, 20)
	assert.Equal(t, strconv.Itoa(s.number), theirs.get("/").header("X-Handoff-Generation"), "what it held has moved back")
	s.waitGone(tr.result.ToPID)
	tr.end()

	assert.Equal(t, control.OutcomeRolledBack, tr.result.Outcome)
	assert.Equal(t, control.PhaseStaged, tr.result.Phase)
	assert.Nil(t, tr.result.Verdict)
	require.NotNil(t, tr.result.Error)
	assert.Equal(t, control.CodeRolledBack, tr.result.Error.Code)
	assert.Equal(t, "nobody has promoted it within 2s", tr.result.Error.Message)
	assert.Contains(t, s.unit()["StatusText"], tr.result.Error.Message)
	assert.Contains(t, s.mustHdctl("history", "demo"), tr.result.Error.Message)
	assert.Contains(t, s.mustHdctl("status", "demo"), "ROLLED-BACK in staged: "+tr.result.Error.Message)
	tr.requireNoRestart()
	tr.assertAnswered(false)
	s.afterwards()
}

// TestStatusShowsBothOnStage has both generations answer, the new one with errors and
// slower, and reads what an operator decides by.
func TestStatusShowsBothOnStage(t *testing.T) {
	t.Parallel()
	s := newTrials(t, nil)
	tr := s.begin(fault.Plan{Latency: 30 * time.Millisecond, Errors: 20})
	staged := s.mustStage("20%")
	var st control.Status
	s.WaitFor(t, "requests of both", func() bool {
		st = s.requireStaged(staged, 20)
		h := generation(t, st, staged.To).Health
		return h != nil && h.Requests >= 100
	})
	theirs, ours := generation(t, st, staged.To).Health, generation(t, st, staged.From).Health
	require.NotNil(t, ours)
	t.Logf("old %+v\nnew %+v\nstage %+v\n%s", ours, theirs, st.Upgrade.Stage, s.mustHdctl("status", "demo"))
	assert.Zero(t, ours.Errors)
	assert.InDelta(t, 0.2, float64(theirs.Errors)/float64(theirs.Requests), 0.02)
	assert.InDelta(t, 0.2, float64(theirs.Requests)/float64(theirs.Requests+ours.Requests), 0.05)
	assert.InDelta(t, 0.2, theirs.PerSecond/(theirs.PerSecond+ours.PerSecond), 0.05)
	assert.InEpsilon(t, float64(theirs.Requests)/theirs.Period, theirs.PerSecond, 0.01)
	for _, h := range []*control.Health{ours, theirs} {
		assert.GreaterOrEqual(t, h.P95, h.Median)
	}
	s.WaitFor(t, "the connections of the staged one", func() bool {
		return generation(t, s.status(), staged.To).Conns.Active > 0
	})
	assert.GreaterOrEqual(t, theirs.Median, 0.03/1.25, "a bucket wide")
	assert.GreaterOrEqual(t, ours.Median, 0.002/1.25)
	assert.Greater(t, theirs.Median, ours.Median)
	assert.InDelta(t, 20, 100*float64(st.Upgrade.Stage.Passed)/float64(st.Upgrade.Stage.Passed+st.Upgrade.Stage.Kept), 1)

	table := s.mustHdctl("status", "demo")
	for _, want := range []string{
		"serving generation 1 (t1), generation 2 staged at 20%", "staged 20%", "SHARE", "ERRORS", "MEDIAN", "0.00%", "rolled back in",
	} {
		assert.Contains(t, table, want)
	}
	assert.Contains(t, s.unit()["StatusText"], "generation 2 (t2) gets 20% of the new connections")

	r := s.hdctl("rollback", "-o", "json", "--reason", "answers 500", "demo")
	require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	tr.report = tr.load.Stop()
	failed := tr.report.Arrivals.Failed()
	assert.Positive(t, failed[load.Content])
	delete(failed, load.Content)
	assert.Empty(t, failed)
	last := s.status().Last
	require.NotNil(t, last.Error)
	assert.Equal(t, "rolled back via hdctl: answers 500", last.Error.Message)
	for _, g := range s.status().Generations {
		assert.Nil(t, g.Health, "only on stage")
	}
	s.afterwards()
}

// TestRolledBackFinishesWhatItHas rolls back a generation that holds what does not
// end by itself: who asked for that is answered, the old one serves all, and the
// client keeps what it has for as long as it likes.
func TestRolledBackFinishesWhatItHas(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{})
	s.deploy("demo-v2")
	staged := s.mustStage("50%")
	theirs := fmt.Sprintf("%d: ", staged.To)
	var held *hold
	s.WaitFor(t, "a connection to the staged one", func() bool {
		held = s.openEcho()
		return held.say("a") == theirs+"a"
	})
	r := s.hdctl("rollback", "-o", "json", "demo")
	require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	st := s.requireServing(1, "v1")
	assert.Nil(t, st.Upgrade)
	g := generation(t, st, staged.To)
	assert.Equal(t, control.StateDraining, g.State)
	assert.Equal(t, "rolled back", g.Reason)
	assert.Equal(t, theirs+"b", held.say("b"))
	s.WaitFor(t, "its report", func() bool { return generation(t, s.status(), staged.To).Conns.Stream == 1 })
	held.c.Close()
	s.waitOnly(1)
	assert.Equal(t, "0", s.waitDrained(staged.To).Fields["HANDOFF_CUT"])
	s.noZombies()
}

// TestOtherWordsOnStage has an operator say what does not fit while an upgrade waits
// for a decision, and then stop the service: that ends both generations, in an
// orderly way.
func TestOtherWordsOnStage(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{unit: func(u *units.Service) { u.StopTimeout = stopTimeout }})
	s.deploy("demo-v2")
	staged := s.mustStage("50%")
	const message, hint = "waits for a decision", "hdctl promote demo, or hdctl rollback demo"
	r := s.Systemctl("reload", service)
	assert.Equal(t, 1, r.ExitCode)
	e := s.waitRecord("SYSLOG_IDENTIFIER=hdctl")
	assert.Contains(t, e.Message, message)
	assert.Contains(t, s.journalText(), hint)
	assertRefused(t, s.hdctl("upgrade", "demo"), message, hint)
	assertRefused(t, s.hdctl("upgrade", "--queue", "demo"), message, hint)
	assertRefused(t, s.hdctl("upgrade", "--stage", "5%", "demo"), message, hint)
	assertRefused(t, s.hdctl("upgrade", "--auto", "demo"), message, hint)
	assert.Equal(t, 2, s.hdctl("promote", "--share", "0%", "demo").ExitCode)
	assert.Equal(t, 2, s.hdctl("promote", "--share", "101%", "demo").ExitCode)
	s.requireStaged(staged, 50)

	var streams []*stream
	by := make(map[string]int)
	for len(by) < 2 {
		st := s.openStream()
		streams = append(streams, st)
		by[st.generation]++
	}
	stopped := s.inBackground(append([]string{"systemctl", "stop", service}, s.sockets...)...)
	for _, st := range streams {
		assert.True(t, st.goodbye(), "generation %s", st.generation)
		st.close()
	}
	require.NoError(t, (<-stopped).Err())
	unit := s.unit()
	assert.Equal(t, "inactive", unit["ActiveState"], "%v", unit)
	assert.Equal(t, "success", unit["Result"], "%v", unit)
	s.assertNoTrouble()
	assert.NotContains(t, s.journalText(), "fell back")
}
