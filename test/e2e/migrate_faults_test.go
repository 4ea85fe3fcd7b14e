package e2e

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/test/load"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// What goes wrong here goes wrong in the middle of a migration: some connections
// have moved, others have not. To be there for certain, the tests let the successor
// have descriptors for a part of them only.
const (
	faultClients = 1500
	faultRoom    = 600 // descriptors of the successor, besides those that it has on probation
)

// lightLoad goes on beside. There are no pipelined requests in it: where the end of
// a connection is announced, those behind the announcement are lost, as HTTP has it
// (RFC 9112, section 9.6).
func lightLoad() load.Options {
	return load.Options{
		New:       load.Traffic{Conns: 2, Rate: 20},
		KeepAlive: load.Traffic{Conns: 16, Rate: 40},
		Torn:      load.Traffic{Conns: 4, Rate: 8},
	}
}

// loadConns are those of its connections that are kept.
const loadConns = 16 + 4

// halfMoved is a service in the middle of a migration.
type halfMoved struct {
	*site
	clients  fleet
	load     *load.Load
	held     *hold // keeps the old generation alive
	old, new int   // PIDs
	upgrade  <-chan testbed.Result
	room     unix.Rlimit // RLIMIT_NOFILE of the successor as it was
}

// startHalf has a successor take over that has too few descriptors, and returns
// when it has taken some of the connections.
func startHalf(t *testing.T, wait string) *halfMoved {
	t.Helper()
	h := &halfMoved{site: newSite(t, options{probation: time.Second, unit: func(u *units.Service) {
		u.DrainTimeout = 10 * time.Minute
		// A successor that stands still is not replaced: what it has stays its own.
		u.Environment = append(u.Environment, units.Variable{Name: "HANDOFF_STOPPED_TIMEOUT", Value: "-1s"})
	}})}
	h.held = h.openEcho()
	require.Equal(t, "1: a", h.held.say("a"))
	h.clients = h.openFleet(faultClients, faultClients/10)
	h.load = h.startLoad(lightLoad())
	h.old = h.MainPID(service)

	h.deploy("demo-v2")
	h.upgrade = h.inBackground("hdctl", "upgrade", "--wait="+wait, "demo")
	h.new = h.waitPhase(control.PhaseProbation).Upgrade.PID
	host, err := h.HostPID(h.new)
	require.NoError(t, err)
	open, err := leak.OfPID(host)
	require.NoError(t, err)
	require.NoError(t, unix.Prlimit(host, unix.RLIMIT_NOFILE, nil, &h.room))
	less := unix.Rlimit{Cur: uint64(len(open) + faultRoom), Max: h.room.Max}
	require.NoError(t, unix.Prlimit(host, unix.RLIMIT_NOFILE, &less, nil))
	h.WaitFor(t, "some connections to have moved", func() bool { return h.holds(h.new) > faultRoom/3 })
	return h
}

// makeRoom gives the successor as many descriptors as it would have had.
func (h *halfMoved) makeRoom() {
	h.t.Helper()
	host, err := h.HostPID(h.new)
	require.NoError(h.t, err)
	require.NoError(h.t, unix.Prlimit(host, unix.RLIMIT_NOFILE, &h.room, nil))
}

// holds counts the connections of clients that a process has descriptors of.
func (s *site) holds(pid int) int {
	s.t.Helper()
	table, err := s.ReadFile(fmt.Sprintf("/proc/%d/net/tcp6", pid))
	require.NoError(s.t, err)
	host, err := s.HostPID(pid)
	require.NoError(s.t, err)
	fds, err := leak.OfPID(host)
	require.NoError(s.t, err)
	open := make(map[string]bool)
	for _, fd := range fds {
		_, link, _ := strings.Cut(fd, " ")
		open[link] = true
	}
	n := 0
	for line := range bytes.Lines(table) { // proc_net_tcp(5); 0x1F90 is 8080, 01 is ESTABLISHED
		f := strings.Fields(string(line))
		if len(f) > 9 && strings.HasSuffix(f[1], ":1F90") && f[3] == "01" && open["socket:["+f[9]+"]"] {
			n++
		}
	}
	return n
}

// answered asks for the status of a service that may have no descriptor for the
// connection that asks.
func (h *halfMoved) answered() (control.Status, bool) {
	h.t.Helper()
	r := h.hdctl("status", "-o", "json", "demo")
	if r.ExitCode != 0 {
		return control.Status{}, false
	}
	return parseStatus(h.t, r.Stdout), true
}

// TestSuccessorWithoutDescriptors has a successor that cannot have all connections.
// Each of them is served by one of the two, and when there is room the rest moves.
func TestSuccessorWithoutDescriptors(t *testing.T) {
	h := startHalf(t, control.WaitDrained)
	h.WaitFor(t, "the successor to be full", func() bool {
		host, err := h.HostPID(h.new)
		require.NoError(t, err)
		open, err := leak.OfPID(host)
		return err == nil && len(open) >= faultRoom
	})
	h.WaitFor(t, "status to tell who has how many", func() bool {
		st, ok := h.answered()
		if !ok {
			return false
		}
		old, main := generation(t, st, 1), mainOf(t, st)
		return old.Migrated == main.Adopted && main.Adopted > faultRoom/3 && old.Conns.Total >= faultClients-faultRoom
	})
	for range 2 {
		asked := h.clients.ask()
		t.Logf("full: %v", asked)
		require.NoError(t, asked.err())
		assert.Positive(t, asked.by[1])
		assert.Positive(t, asked.by[2])
		assert.Zero(t, asked.announced, "there may be room later")
	}

	h.makeRoom()
	h.WaitFor(t, "all but the held one to have moved", func() bool {
		st, ok := h.answered()
		return ok && mainOf(t, st).Adopted >= faultClients && generation(t, st, 1).Conns.Total == 1
	})
	asked := h.clients.ask()
	t.Logf("with room: %v", asked)
	require.NoError(t, asked.err())
	assert.Equal(t, map[int]int{2: faultClients}, asked.by)
	assert.Zero(t, asked.announced)

	h.held.c.Close()
	r := <-h.upgrade
	assert.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	rep := requireNoFailure(t, h.load)
	assert.Zero(t, rep.ClosedByServer())
	h.requireServing(2, "v2")
}

// TestSuccessorKilledWhileItAdopts kills the successor in the middle. That is after
// the confirm, so the old generation, which still drains, takes over again. What had
// moved is gone with the dead one, and everybody is told so: nobody waits for an
// answer that never comes. What had not moved stays, and who connects is served.
func TestSuccessorKilledWhileItAdopts(t *testing.T) {
	h := startHalf(t, control.WaitConfirmed)
	require.NoError(t, (<-h.upgrade).Err())
	before := h.Show(service, "InvocationID", "NRestarts")
	h.kill(h.new, syscall.SIGKILL)
	h.WaitFor(t, "the old one to serve again", func() bool {
		st, ok := h.answered()
		return ok && st.Main == 1 && st.Last != nil && st.Last.Outcome == control.OutcomeFellBack
	})
	asked := h.clients.ask()
	t.Logf("%v", asked)
	assert.Equal(t, faultClients, asked.failed+asked.answers(), "everybody gets an answer, or an end")
	assert.Positive(t, asked.failed, "some had moved")
	assert.Equal(t, asked.answers(), asked.by[1])
	assert.Equal(t, "1: b", h.held.say("b"))

	h.requireServing(1, "v1")
	again := h.openFleet(100, 0).ask()
	require.NoError(t, again.err())
	assert.Equal(t, map[int]int{1: 100}, again.by)
	assert.Equal(t, before, h.Show(service, "InvocationID", "NRestarts"))
	assert.Equal(t, h.old, h.MainPID(service))

	r := h.load.Stop()
	for _, f := range r.Failures {
		assert.NotEqual(t, load.PhaseDial, f.Phase, "%v", f)
	}
	t.Logf("%d requests of the load failed, longest wait %v", r.Total().Failed, r.Total().LongestWait)
}

// TestSuccessorStallsWhileItAdopts stops the successor in the middle for longer than
// the old generation waits for it. What has not moved by then stays, and is served
// where it is; what has moved waits for the successor. Nothing is answered twice.
func TestSuccessorStallsWhileItAdopts(t *testing.T) {
	t.Parallel()
	h := startHalf(t, control.WaitConfirmed)
	require.NoError(t, (<-h.upgrade).Err())
	h.kill(h.new, syscall.SIGSTOP)
	h.WaitFor(t, "the process to be stopped", func() bool { return h.processState(h.new) == "T" })
	most := h.holds(h.new) // among them a few that it was about to answer
	asked, done := h.clients.askAll()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := h.WaitJournal(ctx, func(e testbed.JournalEntry) bool {
		return strings.Contains(e.Message, "the successor does not take connections; they stay here")
	}, "--unit="+service)
	require.NoError(t, err)
	h.WaitFor(t, "the answers to those who have stayed", func() bool { return asked.answers() >= faultClients-most })
	t.Logf("the successor stands still, with %d connections: %v", most, asked)
	require.NoError(t, asked.err())
	assert.Zero(t, asked.by[2])
	assert.Equal(t, "1: b", h.held.say("b"))

	h.makeRoom()
	h.kill(h.new, syscall.SIGCONT)
	<-done
	t.Logf("it goes on: %v", asked)
	require.NoError(t, asked.err())
	assert.Equal(t, faultClients, asked.answers())
	st := h.requireServing(2, "v2")
	old := generation(t, st, 1)
	assert.Contains(t, old.Note, "generation 2 has not answered")
	assert.LessOrEqual(t, asked.by[2], mainOf(t, st).Adopted)
	r := h.hdctl("conns", "--generation", "1", "demo")
	assert.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	assert.Contains(t, r.Stdout, "echo")

	// Nothing moves any more: who is still there is told to leave.
	stayed := make(fleet, 0, faultClients)
	for _, m := range h.clients {
		if !m.left {
			stayed = append(stayed, m)
		}
	}
	again := stayed.ask()
	t.Logf("once more: %v", again)
	require.NoError(t, again.err())
	assert.Equal(t, again.by[1], again.announced)
	assert.Equal(t, asked.by[2], again.by[2])
	requireNoFailure(t, h.load)
	h.held.c.Close()
	h.WaitFor(t, "the end of the drain", func() bool { return len(h.status().Generations) == 1 })
}

// TestSuccessorThatTakesNoConnections has two reasons why idle connections stay:
// the operator wants it so, and the new version serves HTTP in its own way. They are
// told with their next answer, nobody loses a request, and status says why.
func TestSuccessorThatTakesNoConnections(t *testing.T) {
	for _, tt := range []struct {
		name, dropIn, note string
		deploy             func(*site)
	}{
		{
			"migration is turned off", "Environment=HANDOFF_MIGRATE=off\n", "HANDOFF_MIGRATE",
			func(s *site) { s.deploy("demo-v2") },
		},
		{
			"a version that serves in its own way", "", "generation 2 takes none",
			func(s *site) { s.deployFaulty("own-way") },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const clients = 300
			s := newSite(t, options{dropIn: tt.dropIn, unit: func(u *units.Service) { u.DrainTimeout = 10 * time.Minute }})
			f := s.openFleet(clients, clients/10)
			var l *load.Load
			if tt.dropIn != "" { // otherwise the answers are not what the load expects
				l = s.startLoad(lightLoad())
			}
			tt.deploy(s)
			up := s.inBackground("hdctl", "upgrade", "--wait=drained", "demo")
			s.WaitFor(t, "the reason in status", func() bool {
				st := s.status()
				return st.Main == 2 && len(st.Generations) == 2 && generation(t, st, 1).Note != ""
			})
			old := generation(t, s.status(), 1)
			assert.Contains(t, old.Note, "end with their next answer")
			assert.Contains(t, old.Note, tt.note)
			assert.Zero(t, old.Migrated)
			assert.GreaterOrEqual(t, old.Conns.Total, clients)

			asked := f.ask()
			t.Logf("%q: %v", old.Note, asked)
			require.NoError(t, asked.err())
			assert.Equal(t, map[int]int{1: clients}, asked.by)
			assert.Equal(t, clients, asked.announced)
			assert.Equal(t, "2", s.get("/").header("X-Handoff-Generation"))
			if l != nil {
				requireNoFailure(t, l)
			}
			r := <-up
			assert.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
		})
	}
}

// TestGiverKilledWhileItGives kills the old generation in the middle. What it had
// given lives on, the rest has ended, and the journal tells.
func TestGiverKilledWhileItGives(t *testing.T) {
	h := startHalf(t, control.WaitConfirmed)
	require.NoError(t, (<-h.upgrade).Err())
	h.kill(h.old, syscall.SIGKILL)
	h.waitGone(h.old)
	h.makeRoom() // the one that asks for the status needs some
	h.WaitFor(t, "the end of generation 1", func() bool { return len(h.status().Generations) == 1 })
	e := h.waitRecord("HANDOFF_OUTCOME=died")
	assert.Equal(t, "1", e.Fields["HANDOFF_GENERATION"])
	assert.Contains(t, e.Message, "generation 1")
	assert.Equal(t, 3, e.Priority)

	st := h.requireServing(2, "v2")
	asked := h.clients.ask()
	t.Logf("%v; adopted %d\n%s", asked, mainOf(t, st).Adopted, e.Message)
	assert.Equal(t, faultClients, asked.by[2]+asked.failed)
	assert.Len(t, asked.by, 1)
	assert.Positive(t, asked.failed)
	assert.LessOrEqual(t, asked.by[2], mainOf(t, st).Adopted)
	assert.GreaterOrEqual(t, asked.by[2], mainOf(t, st).Adopted-loadConns, "the others are of the load")
	assert.Zero(t, asked.announced)
	assert.Empty(t, h.held.say("b"))
	for _, f := range h.load.Stop().Failures {
		assert.NotEqual(t, load.PhaseDial, f.Phase, "%v", f)
	}
}
