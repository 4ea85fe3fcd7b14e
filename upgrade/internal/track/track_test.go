package track_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/internal/track"
)

type conn struct {
	entry track.Entry[*conn]
}

func newSet() *track.Set[*conn] {
	return track.NewSet("owner", func(c *conn) *track.Entry[*conn] { return &c.entry })
}

// add makes a connection that was accepted i seconds after some time.
func add(s *track.Set[*conn], i int) *conn {
	c := new(conn)
	s.Init(c, time.Unix(1_000_000+int64(i), 0))
	s.Add(c)
	return c
}

func TestCountsFollowPhases(t *testing.T) {
	s := newSet()
	assert.Equal(t, "owner", s.Owner())
	conns := make([]*conn, 6)
	for i := range conns {
		conns[i] = add(s, i)
	}
	conns[1].entry.SetPhase(track.Active)
	conns[2].entry.SetPhase(track.Idle)
	conns[3].entry.SetPhase(track.Stream)
	conns[4].entry.SetPhase(track.Stream)
	conns[5].entry.SetPhase(track.Hijacked)

	c, oldest := s.Counts()
	assert.Equal(t, track.Counts{track.New: 1, track.Active: 1, track.Idle: 1, track.Stream: 2, track.Hijacked: 1}, c)
	assert.Equal(t, 6, c.Total())
	assert.Equal(t, c.Plus(c).Total(), 12)
	assert.Equal(t, conns[0].entry.Accepted(), oldest)
	assert.Same(t, s, conns[0].entry.Set())

	s.Remove(conns[0])
	s.Remove(conns[0]) // a second time does nothing
	s.Remove(conns[2])
	s.Remove(conns[5])
	c, oldest = s.Counts()
	assert.Equal(t, track.Counts{track.Active: 1, track.Stream: 2}, c)
	assert.Equal(t, conns[1].entry.Accepted(), oldest)
	assert.Equal(t, []*conn{conns[1], conns[3], conns[4]}, s.All())
	assert.Equal(t, 3, s.Len())
	for c := range s.Each {
		assert.Same(t, conns[1], c)
		break
	}

	old := add(s, -100) // adopted: older than those that came before it
	_, oldest = s.Counts()
	assert.Equal(t, old.entry.Accepted(), oldest)
	for _, c := range s.All() {
		s.Remove(c)
	}
	c, oldest = s.Counts()
	assert.Zero(t, c.Total())
	assert.Zero(t, oldest)
}

func TestWaitEmpty(t *testing.T) {
	s := newSet()
	require.NoError(t, s.WaitEmpty(t.Context()), "empty from the start")

	c := add(s, 0)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	require.ErrorIs(t, s.WaitEmpty(ctx), why)

	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { assert.NoError(t, s.WaitEmpty(context.Background())) })
	}
	s.Remove(c)
	wg.Wait()
}

func TestLabels(t *testing.T) {
	s := newSet()
	e := &add(s, 0).entry
	assert.Empty(t, e.Label())
	for _, tt := range []struct{ method, target, want string }{
		{"GET", "/", "GET /"},
		{"POST", "/a/b?password=secret", "POST /a/b"},
		{"PROPFIND", "/dav?x", "PROPFIND /dav"},
		{"OPTIONS", "*", "OPTIONS *"},
		{"GET", "?", "GET "},
		{"GET", "/" + string(make([]byte, 1000)), "GET /" + string(make([]byte, 255))},
	} {
		e.SetRequest(tt.method, tt.target)
		assert.Equal(t, tt.want, e.Label())
	}
	e.SetLabel("session 7")
	assert.Equal(t, "session 7", e.Label())
	assert.Equal(t, track.New, e.Phase(), "a label leaves the phase alone")
}

func TestFlagsAndPhaseLeaveEachOtherAlone(t *testing.T) {
	s := newSet()
	e := &add(s, 0).entry
	const a, b = track.State(track.FirstFlag), track.State(track.FirstFlag << 1)
	e.SetFlags(a | b)
	e.SetPhase(track.Stream)
	assert.Equal(t, a|b, e.ClearFlags(b)&(a|b))
	assert.Equal(t, a|track.State(track.Stream), e.State())
	_, ok := e.Update(func(s track.State) (track.State, bool) { return s, s&b != 0 })
	assert.False(t, ok)
	before, ok := e.Update(func(s track.State) (track.State, bool) { return s.With(track.Idle) | b, true })
	assert.True(t, ok)
	assert.Equal(t, track.Stream, before.Phase())
	assert.Equal(t, a|b|track.State(track.Idle), e.State())
}

func TestBytesAndTimes(t *testing.T) {
	s := newSet()
	c := new(conn)
	accepted := time.Now().Add(-time.Hour)
	s.Init(c, accepted)
	e := &c.entry
	assert.True(t, e.Moved().Equal(accepted), "nothing went over it yet")
	e.In(3)
	e.Out(4)
	in, out := e.Bytes()
	assert.Equal(t, [2]int64{3, 4}, [2]int64{in, out})
	assert.WithinRange(t, e.Moved(), accepted.Add(time.Hour), time.Now().Add(time.Second))
	e.SetBytes(30, 40, accepted.Add(time.Minute))
	assert.True(t, e.Moved().Equal(accepted.Add(time.Minute)))
	in, out = e.Bytes()
	assert.Equal(t, [2]int64{30, 40}, [2]int64{in, out})

	assert.Zero(t, e.Ticks(accepted.Add(-time.Second)))
	assert.EqualValues(t, 1, e.Ticks(accepted.Add(1)), "rounded up")
	assert.EqualValues(t, 10, e.Ticks(accepted.Add(time.Second)))
	assert.EqualValues(t, 1<<32-1, e.Ticks(accepted.Add(100*365*24*time.Hour)))
}

// TestAConnectionCostsLittle holds the package to its word: with the interface
// that a connection's type has besides, the entry fits an object of 96 bytes.
func TestAConnectionCostsLittle(t *testing.T) {
	assert.LessOrEqual(t, unsafe.Sizeof(conn{}), uintptr(80))
	e := &add(newSet(), 0).entry
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		e.SetRequest("GET", "/some/path?query")
		e.In(100)
		e.SetPhase(track.Active)
		e.Out(1000)
		e.SetPhase(track.Idle)
	}), "a request allocates nothing")
}

func TestConcurrentUse(t *testing.T) {
	s := newSet()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 1000 {
				c := add(s, i)
				c.entry.SetPhase(track.Active)
				c.entry.SetRequest("GET", "/")
				s.Counts()
				for _, o := range s.All() {
					assert.Contains(t, []string{"", "GET /"}, o.entry.Label())
				}
				s.Remove(c)
			}
		})
	}
	wg.Wait()
	assert.Zero(t, s.Len())
}

func BenchmarkAddRemove(b *testing.B) {
	s := newSet()
	b.ReportAllocs()
	c := new(conn)
	for b.Loop() {
		s.Init(c, time.Now())
		s.Add(c)
		s.Remove(c)
	}
}

// BenchmarkRequest is what a request costs.
func BenchmarkRequest(b *testing.B) {
	e := &add(newSet(), 0).entry
	b.ReportAllocs()
	for b.Loop() {
		e.In(100)
		e.SetRequest("GET", "/some/path?query")
		e.SetPhase(track.Active)
		e.Out(1000)
		e.SetPhase(track.Idle)
	}
}

func BenchmarkCounts(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := newSet()
			for i := range n {
				add(s, i)
			}
			for b.Loop() {
				s.Counts()
			}
		})
	}
}
