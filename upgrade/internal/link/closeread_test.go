package link_test

import (
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/link"
)

func TestCloseRead(t *testing.T) {
	leak.Check(t)
	a, b := connect(t)
	tracers := newTracers(t, 2)
	files, _ := writers(tracers)
	require.NoError(t, b.Send(link.Serve{}))
	require.NoError(t, b.Send(link.Meet{Generation: 1}, files...))
	a.CloseRead()
	a.CloseRead()
	require.ErrorIs(t, b.Send(link.Meet{Generation: 2}, files...), link.ErrPeerClosed)

	m, _ := next(t, a)
	assert.Equal(t, link.Serve{}, m)
	m, got := next(t, a)
	assert.Equal(t, link.Meet{Generation: 1}, m)
	closeFiles(t, got)
	for range 2 {
		_, _, err := a.Receive()
		require.ErrorIs(t, err, io.EOF)
	}
	requireGone(t, tracers)

	// The other direction is as before.
	require.NoError(t, a.Send(link.Serving{}))
	m, _ = next(t, b)
	assert.Equal(t, link.Serving{}, m)

	require.NoError(t, a.Close())
	a.CloseRead() // is nothing
}

func TestCloseReadWakesReceive(t *testing.T) {
	leak.Check(t)
	a, _ := connect(t)
	received := make(chan error)
	go func() {
		_, _, err := a.Receive()
		received <- err
	}()
	a.CloseRead()
	require.ErrorIs(t, <-received, io.EOF)
}

// The sender knows for each message whether it arrived.
func TestCloseReadIsExact(t *testing.T) {
	leak.Check(t)
	for range 300 {
		a, b := open(t)
		sent := make(chan int)
		go func() {
			n := 0
			for b.Send(link.Hurry{DeadlineUnixNano: int64(n)}) == nil {
				n++
			}
			sent <- n
		}()
		var received int
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				m, _, err := a.Receive()
				if err != nil {
					assert.ErrorIs(t, err, io.EOF)
					return
				}
				assert.Equal(t, link.Hurry{DeadlineUnixNano: int64(received)}, m)
				received++
			}
		})
		a.CloseRead()
		wg.Wait()
		require.Equal(t, <-sent, received)
		require.NoError(t, a.Close())
		require.NoError(t, b.Close())
	}
}
