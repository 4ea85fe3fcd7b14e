package upgrade

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/internal/track"
)

// listenOn serves a new listener with s until the test ends.
func listenOn(t *testing.T, s Server) *served {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	file, err := raw.(*net.TCPListener).File()
	require.NoError(t, err)
	fd, err := rawFD(file)
	require.NoError(t, err)
	v := &served{
		t: t, server: s, stop: make(chan struct{}),
		ln: newListener("test", []*socket{{name: "test", network: "tcp", address: raw.Addr().String(), fd: fd}}, new(goodbyes), newPlaces()),
	}
	require.NoError(t, raw.Close())
	require.NoError(t, v.ln.open())
	if h, ok := s.(*httpServer); ok {
		v.ln.served.Store(h)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(v.ln) }()
	t.Cleanup(func() {
		require.NoError(t, v.ln.Close())
		require.NoError(t, <-done, "a gate that is shut is no error")
		v.ln.cut()
		require.NoError(t, file.Close())
	})
	return v
}

// TestOneTCPServerOnTwoListeners drains both, of which one has no connection: the
// handlers of the other one go on until the deadline.
func TestOneTCPServerOnTwoListeners(t *testing.T) {
	ended := make(chan error, 1)
	server := TCP(func(ctx context.Context, c *Conn) {
		lines := bufio.NewScanner(c)
		for lines.Scan() {
			err := context.Cause(ctx)
			fmt.Fprintln(c, lines.Text())
			if err != nil {
				ended <- err
				return
			}
		}
	})
	empty, busy := listenOn(t, server), listenOn(t, server)
	c := busy.dial()
	echo := func() string {
		_, err := fmt.Fprintln(c, "hello")
		require.NoError(t, err)
		line, _ := c.br.ReadString('\n')
		return line
	}
	assert.Equal(t, "hello\n", echo())
	busy.await(track.Counts{track.Stream: 1})

	ctx, deadline := context.WithCancelCause(t.Context())
	require.NoError(t, <-empty.drain(ctx, time.Hour))
	drained := busy.drain(ctx, time.Hour)
	assert.Equal(t, "hello\n", echo())
	assert.Equal(t, "hello\n", echo(), "its context is not done")
	deadline(ErrDrainDeadline)
	require.ErrorIs(t, <-drained, ErrDrainDeadline)
	assert.Equal(t, "hello\n", echo())
	require.ErrorIs(t, <-ended, ErrDrainDeadline)
}
