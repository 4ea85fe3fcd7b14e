package track_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/internal/track"
)

type conn struct {
	track.Entry
	closed bool
}

func (c *conn) Close() error {
	c.closed = true
	c.Remove()
	return nil
}

func TestCountsFollowPhases(t *testing.T) {
	var s track.Set
	conns := make([]*conn, 5)
	for i := range conns {
		conns[i] = new(conn)
		s.Add(&conns[i].Entry, conns[i])
	}
	conns[1].SetPhase(track.Active)
	conns[2].SetPhase(track.Idle)
	conns[3].SetPhase(track.Stream)
	conns[4].SetPhase(track.Stream)

	c, oldest := s.Counts()
	assert.Equal(t, track.Counts{track.New: 1, track.Active: 1, track.Idle: 1, track.Stream: 2}, c)
	assert.Equal(t, 5, c.Total())
	assert.Equal(t, conns[0].Accepted(), oldest)

	conns[0].Remove()
	conns[0].Remove() // a second time does nothing
	conns[2].Remove()
	c, oldest = s.Counts()
	assert.Equal(t, track.Counts{track.Active: 1, track.Stream: 2}, c)
	assert.Equal(t, conns[1].Accepted(), oldest)
	assert.Len(t, s.Entries(), 3)
	assert.Same(t, conns[1], s.Entries()[0].Owner())
}

func TestCutClosesAllAndCountsByPhase(t *testing.T) {
	var s track.Set
	a, b := new(conn), new(conn)
	s.Add(&a.Entry, a)
	s.Add(&b.Entry, b)
	b.SetPhase(track.Idle)
	assert.Equal(t, track.Counts{track.New: 1, track.Idle: 1}, s.Cut())
	assert.True(t, a.closed && b.closed)
	assert.Zero(t, s.Len())
	assert.Equal(t, track.Counts{}, s.Cut())
}

func TestWaitEmpty(t *testing.T) {
	var s track.Set
	require.NoError(t, s.WaitEmpty(t.Context()), "empty from the start")

	c := new(conn)
	s.Add(&c.Entry, c)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	require.ErrorIs(t, s.WaitEmpty(ctx), why)

	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { assert.NoError(t, s.WaitEmpty(context.Background())) })
	}
	c.Remove()
	wg.Wait()
}

func TestConcurrentUse(t *testing.T) {
	var s track.Set
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				c := new(conn)
				s.Add(&c.Entry, c)
				c.SetPhase(track.Active)
				s.Counts()
				c.Remove()
			}
		})
	}
	wg.Wait()
	assert.Zero(t, s.Len())
}

func BenchmarkAddRemove(b *testing.B) {
	var s track.Set
	b.ReportAllocs()
	c := new(conn)
	for b.Loop() {
		s.Add(&c.Entry, c)
		c.Remove()
	}
}
