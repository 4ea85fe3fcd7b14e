package e2e

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	kinds "github.com/hdctl/handoff/test/kinds/client"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// silent has nobody say goodbye before the deadline.
var silent = map[string]string{"HANDOFF_DRAIN_DELAY": "1h"}

// fill holds one connection of each kind in each of so many generations, and
// upgrades between them.
func (s *kindsSite) fill(generations int) []*heldConn {
	s.t.Helper()
	var all []*heldConn
	for n := 1; n <= generations; n++ {
		if n > 1 {
			s.reload()
		}
		all = append(all, s.openSteady(n)...)
	}
	return all
}

// perGeneration is what one connection of each kind counts.
var perGeneration = control.Counts{Total: 4, Stream: 3, Hijacked: 1}

// TestSixGenerationsHoldOneOfEachKind holds a WebSocket, a gRPC stream, an SSE
// stream and a raw TCP connection in each of six generations: all live, each in the
// generation that has accepted it, and status and conns list them right.
func TestSixGenerationsHoldOneOfEachKind(t *testing.T) {
	const generations = 6
	s := newKinds(t, silent, nil, "http", "grpc", "raw")
	all := s.fill(generations)
	for _, h := range all {
		s.requireAlive(h)
	}

	var st control.Status
	s.WaitFor(t, "the reports of all generations", func() bool {
		st = s.status()
		return !slices.ContainsFunc(st.Generations, func(g control.Generation) bool { return g.Conns != perGeneration })
	})
	require.Len(t, st.Generations, generations)
	assert.Equal(t, generations, st.Main)
	pids := make(map[int]int)
	for i, g := range st.Generations {
		assert.Equal(t, generations-i, g.Number, "newest first")
		state := control.StateDraining
		if g.Number == generations {
			state = control.StateServing
		}
		assert.Equal(t, state, g.State)
		assert.Zero(t, g.Cut)
		assert.Equal(t, state == control.StateDraining, !g.Deadline.IsZero())
		pids[g.Number] = g.PID
	}

	type line struct {
		generation, pid       int
		listener, state, peer string
	}
	var want, got []line
	for _, h := range all {
		state := control.ConnStream
		if h.Kind() == kinds.WebSocket {
			state = control.ConnHijacked
		}
		want = append(want, line{h.generation, pids[h.generation], h.Kind().Socket(), state, h.address})
	}
	list := s.conns()
	for _, c := range list {
		got = append(got, line{c.Generation, c.PID, c.Listener, c.State, c.Peer})
		assert.Positive(t, c.In, "%+v", c)
		assert.Positive(t, c.Out, "%+v", c)
	}
	assert.ElementsMatch(t, want, got)
	assert.True(t, slices.IsSortedFunc(list, func(a, b control.Conn) int { return cmp.Compare(b.Age, a.Age) }), "oldest first: %+v", list)
	assert.True(t, slices.IsSortedFunc(list, func(a, b control.Conn) int { return cmp.Compare(a.Generation, b.Generation) }))
	assert.Contains(t, s.hdctl("conns", "demo").Stdout, "24 connections: 4 of generation 6, 4 of generation 5, ")

	// To look at them has not hurt them; neither does it when one leaves.
	all[0].Close()
	s.WaitFor(t, "the end of one", func() bool { return generation(t, s.status(), 1).Conns.Total == 3 })
	for _, h := range all[1:] {
		s.requireAlive(h)
	}
}

// TestDeadlinesFireInOrder lets the deadlines of four generations pass: each ends
// its connections with a goodbye, the oldest generation first, and says by kind what
// it has cut.
func TestDeadlinesFireInOrder(t *testing.T) {
	t.Parallel()
	const draining = 3
	s := newKinds(t, silent, func(u *units.Service) {
		// Between two deadlines is the time of an upgrade.
		u.DrainTimeout, u.Probation = 4*time.Second, 500*time.Millisecond
	}, "http", "grpc", "raw")
	// The connection of the server-sent events goes on in the serving generation
	// when the goodbye has been said on it.
	cut := perGeneration
	cut.Total--
	cut.Stream--
	var ends endings
	var upgrades []<-chan testbed.Result
	for n := 1; n <= draining; n++ {
		ends.watch(s.openSteady(n)...)
		upgrades = append(upgrades, s.inBackground("hdctl", "upgrade", "--wait=drained", "-o", "json", "demo"))
		s.waitMain(n + 1)
	}
	last := s.open(kinds.Raw, draining+1)
	st := s.status()
	for _, g := range st.Generations[1:] {
		if next := g.Number + 1; next <= draining {
			assert.True(t, g.Deadline.Before(generation(t, st, next).Deadline), "%+v", st.Generations)
		}
	}

	list := ends.wait()
	require.Len(t, list, draining*len(steady()))
	for i, e := range list {
		assert.Equal(t, 1+i/len(steady()), e.generation, "number %d to end", i)
		assertPolite(t, e.heldConn)
	}
	for i, up := range upgrades {
		r := <-up
		assert.Equal(t, 8, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
		result := upgradeResult(t, r)
		assert.Equal(t, i+1, result.From)
		assert.True(t, result.Drained)
		assert.Equal(t, cut, result.Cut)
		assert.Equal(t, 1, result.Migrated)
	}
	s.waitOnly(draining + 1)
	assert.Equal(t, cut, s.status().Last.Cut)
	s.waitDrained(draining)
	entries, err := s.Journal("MESSAGE_ID=" + drainedID)
	require.NoError(t, err)
	require.Len(t, entries, draining)
	for i, e := range entries {
		assert.Equal(t, strconv.Itoa(i+1), e.Fields["HANDOFF_GENERATION"])
		assert.Equal(t, strconv.Itoa(cut.Total), e.Fields["HANDOFF_CUT"], "%s", e.Message)
		assert.Equal(t, "drained", e.Fields["HANDOFF_OUTCOME"])
		assert.Equal(t, 4, e.Priority, "a warning")
	}
	s.requireAlive(last)
}

// TestStopEndsAllGenerationsWithAGoodbye stops a service of six generations, which
// hold 24 connections: all are told, nobody has to be cut, and no process killed.
func TestStopEndsAllGenerationsWithAGoodbye(t *testing.T) {
	const generations = 6
	s := newKinds(t, silent, func(u *units.Service) { u.StopTimeout = 5 * time.Second }, "http", "grpc", "raw")
	all := s.fill(generations)
	pids, err := s.Pids(service)
	require.NoError(t, err)
	require.Len(t, pids, generations)
	var ends endings
	ends.watch(all...)

	began := time.Now()
	s.stop()
	t.Logf("the stop took %v", time.Since(began))
	require.Len(t, ends.wait(), len(all))
	for _, h := range all {
		assertPolite(t, h)
	}
	unit := s.unit()
	assert.Equal(t, "inactive", unit["ActiveState"], "%v", unit)
	assert.Equal(t, "success", unit["Result"], "%v", unit)
	for _, pid := range pids {
		assert.Empty(t, s.processState(pid), "pid %d", pid)
	}
	// Who was killed did not come to say this. (That systemd sends SIGKILL to the main
	// process is in the journal, too: it was dead, and not yet reaped.)
	s.waitText(`msg=over generation=`, generations)
	s.assertNoTrouble()
}

// waitText waits until so many messages in the journal contain a text.
func (s *site) waitText(text string, times int) {
	s.t.Helper()
	s.WaitFor(s.t, fmt.Sprintf("%d times %q", times, text), func() bool {
		return strings.Count(s.journalText(), text) == times
	})
}

// assertNoTrouble asserts that the journal has no sign of an end that was not in
// order.
func (s *site) assertNoTrouble() {
	s.t.Helper()
	for line := range strings.Lines(s.journalText()) {
		for _, bad := range []string{"code=killed", "timed out", "connections cut", "died", "panic:", "DATA RACE"} {
			assert.NotContains(s.t, line, bad)
		}
	}
}

// TestStopWaitsForAllGenerations stops a service whose oldest generation is in the
// middle of a request, while the main one has nothing to do and ends at once.
func TestStopWaitsForAllGenerations(t *testing.T) {
	s := newKinds(t, nil, nil, "http")
	c := s.connect()
	c.write("POST / HTTP/1.1\r\nHost: kinds\r\nContent-Length: 5\r\n\r\nhel")
	s.WaitFor(t, "the request", func() bool { return mainOf(t, s.status()).Conns.Active == 1 })
	s.reload()
	s.reload()
	s.WaitFor(t, "the end of generation 2", func() bool { return len(s.status().Generations) == 2 })

	main := mainOf(t, s.status()).PID
	stopped := s.inBackground(append([]string{"systemctl", "stop", service}, s.sockets...)...)
	s.waitGone(main)
	c.write("lo")
	assert.Equal(t, "1: hello", c.receive().body)
	c.close()
	require.NoError(t, (<-stopped).Err())
	unit := s.unit()
	assert.Equal(t, "inactive", unit["ActiveState"], "%v", unit)
	assert.Equal(t, "success", unit["Result"], "%v", unit)
	s.waitText(`msg=over generation=`, 3)
	s.assertNoTrouble()
}

// TestGoodbyesAreSpread has fifty WebSockets told to go: not all at the same moment,
// for they all come back. A client that comes when this has begun is told as well,
// and the drain ends with the last one, not at its deadline.
func TestGoodbyesAreSpread(t *testing.T) {
	const clients = 50
	s := newKinds(t, map[string]string{"HANDOFF_DRAIN_SPREAD": "3s"},
		func(u *units.Service) { u.DrainTimeout = 30 * time.Second }, "http")
	var ends endings
	for range clients {
		ends.watch(s.open(kinds.WebSocket, 1))
	}
	// The late one is in the middle of its request, so it stays with generation 1.
	late := s.connect()
	late.write("GET /ws HTTP/1.1\r\nHost: kinds\r\n")
	s.WaitFor(t, "the first bytes to be read", func() bool {
		return slices.ContainsFunc(s.conns(), func(c control.Conn) bool {
			return c.Peer == late.c.LocalAddr().String() && c.In > 0
		})
	})

	up := s.inBackground("hdctl", "upgrade", "--wait=drained", "-o", "json", "demo")
	s.waitMain(2)
	late.write("Connection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	r, err := http.ReadResponse(late.br, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, r.StatusCode)
	goodbye := append([]byte{0x88, 2 + 23, 0x03, 0xe9}, "generation 1 is leaving"...) // RFC 6455: close, 1001
	frame := make([]byte, len(goodbye))
	_, err = io.ReadFull(late.br, frame)
	require.NoError(t, err)
	assert.Equal(t, goodbye, frame)
	late.close()

	list := ends.wait()
	require.Len(t, list, clients)
	for _, e := range list {
		assertPolite(t, e.heldConn)
	}
	soon := 0
	for _, e := range list {
		if e.at.Before(list[0].at.Add(300 * time.Millisecond)) {
			soon++
		}
	}
	assert.LessOrEqual(t, soon, clients/2, "in the first tenth of the time")

	drained := <-up
	assert.Equal(t, 0, drained.ExitCode, "%s%s", drained.Stdout, drained.Stderr)
	result := upgradeResult(t, drained)
	assert.True(t, result.Drained)
	assert.Zero(t, result.Cut)
	s.waitOnly(2)
	t.Logf("%d of %d in the first tenth; from the first to the last %v", soon, len(list), list[clients-1].at.Sub(list[0].at))
}
