package e2e

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// mustHdctl runs hdctl, which must succeed, and returns what it prints.
func (s *site) mustHdctl(args ...string) string {
	s.t.Helper()
	return s.MustRun(s.t, append([]string{"hdctl"}, args...)...).Stdout
}

// assertRefused asserts that hdctl has refused something, with a hint.
func assertRefused(t testing.TB, r testbed.Result, message, hint string) {
	t.Helper()
	assert.Equal(t, 7, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	assert.Contains(t, r.Stderr, message)
	assert.Contains(t, r.Stderr, hint)
}

// holdIn opens an echo connection in each of so many generations, and upgrades after
// each, so that they all drain.
func (s *site) holdIn(generations int) []*hold {
	s.t.Helper()
	var held []*hold
	for n := 1; n <= generations; n++ {
		h := s.openEcho()
		require.Equal(s.t, fmt.Sprintf("%d: hi", n), h.say("hi"))
		held = append(held, h)
		s.reload()
	}
	s.waitDraining(generations)
	return held
}

// freeze stops a process, and waits until each of its threads stands still.
func (s *site) freeze(pid int) {
	s.t.Helper()
	s.kill(pid, syscall.SIGSTOP)
	s.WaitFor(s.t, "the process to stand still", func() bool {
		threads := strings.TrimSpace(s.MustRun(s.t, "sh", "-c", fmt.Sprintf("cat /proc/%d/task/*/stat", pid)).Stdout)
		return !slices.ContainsFunc(strings.Split(threads, "\n"), func(thread string) bool {
			return !strings.Contains(thread, ") T ")
		})
	})
}

// heldStatus is the status of a service that accepts nothing.
func (s *site) heldStatus() control.Status {
	s.t.Helper()
	r := s.hdctl("status", "-o", "json", "demo")
	require.Equal(s.t, 3, r.ExitCode, "%s", r.Stderr)
	return parseStatus(s.t, r.Stdout)
}

// waitDrained waits for the record of the end of an old generation.
func (s *site) waitDrained(generation int) testbed.JournalEntry {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	e, err := s.WaitJournal(ctx, func(testbed.JournalEntry) bool { return true },
		"MESSAGE_ID="+drainedID, fmt.Sprint("HANDOFF_GENERATION=", generation))
	require.NoError(s.t, err)
	return e
}

// TestDrainClosesTheDoorForAWhile has an operator close the door under load, and
// open it again: those who are there are told to go, those who come wait, and nobody
// gets no answer.
func TestDrainClosesTheDoorForAWhile(t *testing.T) {
	s := newSite(t, options{})
	l := s.startLoad(load.Options{
		New: load.Traffic{Conns: 2, Rate: 20}, KeepAlive: load.Traffic{Conns: 8, Rate: 40}, Idle: 4, ProbeIdle: true,
	})
	held, events := s.openEcho(), s.openStream()
	require.Equal(t, "1: a", held.say("a"))
	pid := s.MainPID(service)

	out := s.mustHdctl("drain", "demo", "--reason", "kernel update")
	assert.Contains(t, out, "generation 1 accepts nothing any more")
	assert.Contains(t, s.mustHdctl("drain", "demo"), "accepts nothing: door closed by hdctl", "twice is no error")
	st := s.heldStatus()
	assert.Equal(t, 1, st.Main)
	assert.Equal(t, control.StateDraining, st.State)
	assert.Zero(t, mainOf(t, st).Deadline)
	require.NotNil(t, st.Held)
	assert.Equal(t, "kernel update", st.Held.Trigger.Reason)
	assert.Equal(t, control.ViaHdctl, st.Held.Trigger.Via)
	r := s.hdctl("status", "demo")
	assert.Equal(t, 3, r.ExitCode)
	assert.Contains(t, r.Stdout, "door closed")
	assert.Contains(t, r.Stdout, "kernel update")
	assert.True(t, events.goodbye(), "who is there is told to go")
	s.WaitFor(t, "announcements", func() bool { return l.Report().Total().Announced > 0 })
	assert.Equal(t, "1: b", held.say("b"), "nothing is cut")

	// Who comes is let in by the kernel, and waits.
	c := s.connect()
	c.send("/")
	s.WaitFor(t, "the others to go", func() bool { return mainOf(t, s.heldStatus()).Conns.Active == 0 })
	peer := c.c.LocalAddr().String()
	assert.False(t, slices.ContainsFunc(s.conns(), func(l control.Conn) bool { return l.Peer == peer }))

	// A new generation would open the door.
	assertRefused(t, s.hdctl("upgrade", "demo"), "closed by a drain request", "hdctl drain --undo demo")
	assert.Equal(t, 1, s.Systemctl("reload", service).ExitCode)
	s.waitText("hdctl drain --undo demo", 1) // from the reload: it is in the journal
	r = s.hdctl("wait", "demo", "--for=ready", "--timeout", "10ms")
	assert.Equal(t, 6, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	assert.Contains(t, r.Stderr, "accepts nothing")
	ready := s.inBackground("hdctl", "wait", "demo", "--for=ready")

	assert.Contains(t, s.mustHdctl("drain", "demo", "--undo"), "generation 1 accepts connections again")
	assert.Contains(t, s.mustHdctl("drain", "demo", "--undo"), "is open, as it was")
	require.NoError(t, (<-ready).Err())
	assert.Equal(t, "1", c.receive().header("X-Handoff-Generation"))
	st = s.requireServing(1, "v1")
	assert.Nil(t, st.Held)
	assert.Equal(t, pid, mainOf(t, st).PID)
	assert.Equal(t, "1: c", held.say("c"))
	answered := l.Report().Total().Responses
	s.WaitFor(t, "more answers", func() bool { return l.Report().Total().Responses > answered+20 })
	requireNoFailure(t, l)
	s.deploy("demo-v2")
	s.reload()
	s.requireServing(2, "v2")
	s.assertNoTrouble()
}

// TestStopWhileTheDoorIsClosed stops and restarts a service whose door is closed:
// that ends the hold as well, and who waits is served by the next start.
func TestStopWhileTheDoorIsClosed(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{unit: func(u *units.Service) { u.StopTimeout = stopTimeout }})
	s.reload()
	s.mustHdctl("drain", "demo")
	c := s.connect()
	c.send("/")
	s.MustSystemctl(t, "restart", service)
	assert.Equal(t, "1", c.receive().header("X-Handoff-Generation"))
	assert.Nil(t, s.requireServing(1, "v1").Held)

	held := s.openEcho()
	require.Equal(t, "1: a", held.say("a"))
	s.mustHdctl("drain", "demo")
	s.stop()
	assert.Empty(t, held.say("b"))
	unit := s.unit()
	assert.Equal(t, "inactive", unit["ActiveState"], "%v", unit)
	assert.Equal(t, "success", unit["Result"], "%v", unit)
}

// TestEndEndsDrains ends old generations: one, one that hangs, all that are left,
// and not the one that serves.
func TestEndEndsDrains(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{})
	held := s.holdIn(4)
	pid := func(n int) int { return generation(t, s.status(), n).PID }

	assertRefused(t, s.hdctl("end", "demo", "--generation", "5"), "generation 5 is the one that serves", "systemctl stop")
	assertRefused(t, s.hdctl("end", "demo", "--generation", "9"), "generation 9 does not drain", "hdctl status demo")
	s.waitDraining(4)

	second := pid(2)
	assert.Contains(t, s.mustHdctl("end", "demo", "--generation", "2", "--grace", "none"), "generation 2 ends now")
	s.waitGone(second)
	s.waitDraining(3)
	assert.Empty(t, held[1].say("?"), "cut")
	e := s.waitDrained(2)
	assert.Equal(t, "1", e.Fields["HANDOFF_CUT"], "%s", e.Message)

	// One that hangs does not hear.
	third := pid(3)
	s.freeze(third)
	assert.Contains(t, s.mustHdctl("end", "demo", "--generation", "3", "--grace", "none"), "generation 3 ends now")
	assert.Equal(t, "T", s.processState(third))
	assert.Contains(t, s.mustHdctl("end", "demo", "--generation", "3", "--kill"), "generation 3 was killed")
	s.waitGone(third)
	s.waitDraining(2)
	assert.Equal(t, "died", s.waitDrained(3).Fields["HANDOFF_OUTCOME"])

	for _, i := range []int{0, 3} {
		assert.Equal(t, fmt.Sprintf("%d: still", i+1), held[i].say("still"))
	}
	assert.Contains(t, s.mustHdctl("end", "demo", "--grace", "100ms"), "generations 4 and 1 end now")
	s.mustHdctl("wait", "demo", "--for=drained")
	assert.Len(t, s.status().Generations, 1)
	assert.Contains(t, s.mustHdctl("end", "demo"), "nothing to end")
	s.requireServing(5, "v1")
	s.noZombies()
}

// TestWaitForWhatIsToCome waits for each of the things that can be waited for, in
// vain and not.
func TestWaitForWhatIsToCome(t *testing.T) {
	s := newSite(t, options{})
	assert.Contains(t, s.mustHdctl("wait", "demo", "--for=ready"), "generation 1 (v1) serves")
	s.mustHdctl("wait", "demo", "--for=generation=1")
	s.mustHdctl("wait", "demo", "--for=drained")

	third := s.inBackground("hdctl", "wait", "demo", "--for=generation=3")
	held := s.holdIn(1)
	r := s.hdctl("wait", "demo", "--for=drained", "--timeout", "10ms")
	assert.Equal(t, 6, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	assert.Contains(t, r.Stderr, "generation 1 drains (1 connection open, ")
	assert.Contains(t, r.Stderr, "hdctl end demo")
	r = s.hdctl("wait", "demo", "--for=generation=3", "--timeout", "10ms")
	assert.Equal(t, 6, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	assert.Contains(t, r.Stderr, "generation 2 is still the main one")
	assert.Equal(t, 2, s.hdctl("wait", "demo", "--for=nothing").ExitCode)

	drained := s.inBackground("hdctl", "wait", "demo", "--for=drained")
	s.deploy("demo-v3")
	s.reload()
	r = <-third
	require.NoError(t, r.Err())
	assert.Contains(t, r.Stdout, "generation 3 (v3) serves")
	held[0].c.Close()
	r = <-drained
	require.NoError(t, r.Err())
	assert.Contains(t, r.Stdout, "only generation 3 (v3) is left")

	s.stop()
	assert.Equal(t, 3, s.hdctl("wait", "demo", "--for=drained").ExitCode, "nobody is there to drain")
	ready := s.inBackground("hdctl", "wait", "demo", "--for=ready")
	s.MustSystemctl(t, "start", service)
	require.NoError(t, (<-ready).Err())
}

// TestConnsTellsWhoIsThere lists connections by generation, listener and state.
func TestConnsTellsWhoIsThere(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{})
	old := s.holdIn(1)[0]
	idle, busy, fresh := s.connect(), s.connect(), s.connect()
	idle.get("/healthz?secret=1")
	busy.write("POST / HTTP/1.1\r\nHost: demo\r\nContent-Length: 9\r\n\r\n123")
	address := func(c *client) string { return c.c.LocalAddr().String() }
	echo, fresher, reader, poster := old.c.LocalAddr().String(), address(fresh), address(idle), address(busy)
	s.WaitFor(t, "all to be there", func() bool { return mainOf(t, s.status()).Conns.Active == 1 && len(s.conns()) == 4 })

	for filter, want := range map[string][]string{
		"":                               {echo, fresher, reader, poster},
		"--generation=1":                 {echo},
		"--generation=2":                 {fresher, reader, poster},
		"--listener=echo":                {echo},
		"--listener=http":                {fresher, reader, poster},
		"--listener=dgram":               nil,
		"--state=new":                    {fresher},
		"--state=idle":                   {reader},
		"--state=active":                 {poster},
		"--state=stream":                 {echo},
		"--state=hijacked":               nil,
		"--generation=1 --state=idle":    nil,
		"--generation=2 --state=idle":    {reader},
		"--generation=2 --listener=echo": nil,
		"--generation=1 --listener=echo": {echo},
		"--state=active --listener=http": {poster},
		"--state=stream --listener=http": nil,
	} {
		var got []string
		list := s.conns(strings.Fields(filter)...)
		for _, c := range list {
			got = append(got, c.Peer)
		}
		assert.ElementsMatch(t, want, got, filter)
		assert.True(t, slices.IsSortedFunc(list, func(a, b control.Conn) int { return cmp.Compare(b.Age, a.Age) }), "oldest first")
	}
	c := s.conns("--state=idle")[0]
	assert.Equal(t, "GET /healthz", c.Doing, "without the query")
	assert.Equal(t, s.MainPID(service), c.PID)
	assert.EqualValues(t, len("GET /healthz?secret=1 HTTP/1.1\r\nHost: demo\r\n\r\n"), c.In)
	assert.Positive(t, c.Out)

	text := s.mustHdctl("conns", "demo", "-o", "wide")
	t.Logf("\n%s", text)
	for _, want := range []string{echo, "POST /", "4 connections: 3 of generation 2, 1 of generation 1", "QUIET"} {
		assert.Contains(t, text, want)
	}
	assertRefused(t, s.hdctl("conns", "demo", "--generation", "7"), "there is no generation 7", "hdctl status demo")
	assert.Equal(t, 2, s.hdctl("conns", "demo", "--state", "sleepy").ExitCode)

	// A generation that hangs is missing, and said to be; the others are there.
	pid := generation(t, s.status(), 1).PID
	s.freeze(pid)
	r := s.hdctl("conns", "demo", "-o", "json")
	s.kill(pid, syscall.SIGCONT)
	assert.Equal(t, 9, r.ExitCode)
	assert.Contains(t, r.Stderr, "the connections of generation 1 are missing")
	assert.Contains(t, r.Stdout, poster)
	assert.Equal(t, "1: b", old.say("b"))
}

// TestUpgradeIsRefusedWhenCrowded has a service choose that too many drains are no
// reason to hurry one: the upgrade is refused, with the list of who is in the way.
func TestUpgradeIsRefusedWhenCrowded(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{unit: func(u *units.Service) {
		u.MaxDraining = 2
		u.Environment = append(u.Environment, units.Variable{Name: "HANDOFF_OVERFLOW", Value: "refuse"})
	}})
	held := s.holdIn(2)
	st := s.status()
	assert.Equal(t, "refuse", st.Options.Overflow)
	r := s.hdctl("upgrade", "demo")
	assertRefused(t, r, "2 old generations drain, and more than 2 may not", "hdctl end demo")
	for _, g := range st.Generations[1:] {
		assert.Contains(t, r.Stderr, fmt.Sprintf("generation %d (pid %d, v1) with 1 connections", g.Number, g.PID))
	}
	assert.Equal(t, 1, s.Systemctl("reload", service).ExitCode)
	s.requireServing(3, "v1")
	for n, h := range held {
		assert.Equal(t, fmt.Sprintf("%d: unhurried", n+1), h.say("unhurried"))
	}

	s.mustHdctl("end", "demo", "--generation", "1", "--grace", "none")
	s.waitDraining(1)
	s.deploy("demo-v2")
	s.reload()
	s.requireServing(4, "v2")
	assert.Equal(t, "2: unhurried", held[1].say("unhurried"))
}

// TestKilledDrainerLeavesWithItsReason kills an old generation: it leaves the list,
// events and journal tell why, and nobody else is disturbed.
func TestKilledDrainerLeavesWithItsReason(t *testing.T) {
	t.Parallel()
	s := newSite(t, options{})
	held := s.holdIn(2)
	pid := generation(t, s.status(), 1).PID
	s.kill(pid, syscall.SIGKILL)
	s.waitDraining(1)
	assert.Empty(t, held[0].say("?"))
	assert.Equal(t, "2: b", held[1].say("b"))

	want := fmt.Sprintf("generation 1 (pid %d) died while it drained, with 1 connections open", pid)
	e := s.waitRecord("HANDOFF_OUTCOME=died")
	assert.Contains(t, e.Message, want)
	assert.Equal(t, 3, e.Priority)
	assert.Equal(t, "1", e.Fields["HANDOFF_GENERATION"])
	if reason := e.Fields["HANDOFF_REASON"]; reason != "" { // Linux 6.15 tells
		assert.Equal(t, "killed by SIGKILL", reason)
	}
	assert.Contains(t, s.mustHdctl("events", "demo"), want)
	s.requireServing(3, "v1")
	s.noZombies()
	s.deploy("demo-v2")
	s.reload()
	s.requireServing(4, "v2")
}
