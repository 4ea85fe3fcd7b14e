package link_test

import (
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/link"
)

// In these tests the peer's end stays open, as if a third process had it.

func TestFinishWakesReceive(t *testing.T) {
	leak.Check(t)
	a, _ := connect(t)
	received := make(chan error)
	go func() {
		_, _, err := a.Receive()
		received <- err
	}()
	a.Finish()
	require.ErrorIs(t, <-received, io.EOF)
}

func TestFinishLosesNothing(t *testing.T) {
	leak.Check(t)
	a, b := connect(t)
	tracers := newTracers(t, 2)
	files, _ := writers(tracers)
	const n = 50
	for i := range n {
		require.NoError(t, b.Send(link.Hurry{DeadlineUnixNano: int64(i)}))
	}
	require.NoError(t, b.Send(link.Meet{Generation: 3}, files...))
	a.Finish()
	a.Finish()
	for i := range n {
		m, _ := next(t, a)
		require.Equal(t, link.Hurry{DeadlineUnixNano: int64(i)}, m)
	}
	m, got := next(t, a)
	assert.Equal(t, link.Meet{Generation: 3}, m)
	assert.Len(t, got, 2)
	closeFiles(t, got)
	for range 2 {
		_, _, err := a.Receive()
		require.ErrorIs(t, err, io.EOF)
	}
	requireGone(t, tracers)
}

// A refused frame in the rest is no end of it.
func TestFinishWithBadFrames(t *testing.T) {
	leak.Check(t)
	conn, peer := connectRaw(t)
	defer peer.close(t)
	defer conn.Close()
	peer.send(t, "")
	peer.send(t, "nonsense")
	peer.send(t, `{"kind":"serve"}`)
	conn.Finish()
	for range 2 {
		_, _, err := conn.Receive()
		var refused *link.FrameError
		require.ErrorAs(t, err, &refused)
	}
	m, _ := next(t, conn)
	assert.Equal(t, link.Serve{}, m)
	_, _, err := conn.Receive()
	require.ErrorIs(t, err, io.EOF)
}

func TestFinishOfClosedPeer(t *testing.T) {
	leak.Check(t)
	a, b := connect(t)
	require.NoError(t, b.Send(link.Serving{}))
	require.NoError(t, b.Close())
	a.Finish()
	m, _ := next(t, a)
	assert.Equal(t, link.Serving{}, m)
	_, _, err := a.Receive()
	require.ErrorIs(t, err, io.EOF)
}

// The reader and the watcher of the pidfd are two goroutines: whatever Finish
// interrupts, what was sent before it is received.
func TestFinishWhileReceiving(t *testing.T) {
	leak.Check(t)
	for range 200 {
		a, b := open(t)
		received := make(chan int)
		go func() {
			n := 0
			for {
				if _, _, err := a.Receive(); err != nil {
					assert.ErrorIs(t, err, io.EOF)
					received <- n
					return
				}
				n++
			}
		}()
		for range 3 {
			require.NoError(t, b.Send(link.Serve{}))
		}
		a.Finish()
		require.Equal(t, 3, <-received)
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	}
}
