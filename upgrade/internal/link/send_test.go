package link_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/link"
)

// dialed returns the two ends of a TCP connection.
func dialed(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	s, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

func TestSendFromConnection(t *testing.T) {
	leak.Check(t)
	a, b := connect(t)
	client, server := dialed(t)
	tr := newTracer(t)
	o := link.Offer{ID: 1, Listener: "echo", Session: &link.Session{Version: 1, File: true}}
	require.NoError(t, a.SendFrom(o, server, tr.w))
	require.NoError(t, server.Close()) // the descriptor on the way keeps the connection

	m, files := next(t, b)
	assert.Equal(t, o, m)
	require.Len(t, files, 2)
	conn, err := net.FileConn(files[0])
	require.NoError(t, err)
	closeFiles(t, files)
	defer conn.Close()
	_, err = fmt.Fprint(conn, "here")
	require.NoError(t, err)
	text := make([]byte, 4)
	_, err = client.Read(text)
	require.NoError(t, err)
	assert.Equal(t, "here", string(text))
	requireGone(t, []*tracer{tr})

	require.ErrorContains(t, a.SendFrom(link.Adopt{}, server), "send adopt: file 0: file already closed")
	require.ErrorContains(t, a.SendFrom(link.Adopt{}, nil), "send adopt: file 0: invalid argument")
	require.EqualError(t, a.SendWait(nil), "send: no message")
}

// fill sends until the link is full.
func fill(t *testing.T, c *link.Conn) (sent int) {
	t.Helper()
	for {
		err := c.Send(link.Unknown{Name: "fill"})
		if err != nil {
			require.ErrorIs(t, err, link.ErrFull)
			return sent
		}
		sent++
	}
}

// Many wait at a full link; all that they sent arrives, once, with its files.
func TestSendWait(t *testing.T) {
	leak.Check(t)
	a, b := connect(t)
	filled := fill(t, a)
	tr := newTracer(t)
	const senders, each = 50, 20
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				assert.NoError(t, a.SendWait(link.Meet{Generation: s, PID: i, Version: strings.Repeat("x", 2000)}, tr.w, tr.r))
			}
		})
	}
	for range filled {
		m, _ := next(t, b)
		require.Equal(t, link.Unknown{Name: "fill"}, m)
	}
	var seen [senders]int
	for range senders * each {
		m, files := next(t, b)
		meet := m.(link.Meet)
		require.Equal(t, seen[meet.Generation], meet.PID, "order of sender %d", meet.Generation)
		seen[meet.Generation]++
		require.Len(t, files, 2)
		closeFiles(t, files)
	}
	wg.Wait()
	requireGone(t, []*tracer{tr})
}

// Everything that ends a link ends a wait for room in it; and while one waits,
// its files can be closed.
func TestSendWaitEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(a, b *link.Conn)
		want error
	}{
		{"Close", func(a, _ *link.Conn) { a.Close() }, net.ErrClosed},
		{"Close of the peer", func(_, b *link.Conn) { b.Close() }, link.ErrPeerClosed},
		{"CloseRead and Close of the peer", func(_, b *link.Conn) { b.CloseRead(); b.Close() }, link.ErrPeerClosed},
		{"CloseRead of the peer, that receives the rest", func(_, b *link.Conn) {
			b.CloseRead()
			for {
				if _, _, err := b.Receive(); err != nil {
					return
				}
			}
		}, link.ErrPeerClosed},
	} {
		t.Run(test.name, func(t *testing.T) {
			leak.Check(t)
			a, b := connect(t)
			fill(t, a)
			_, server := dialed(t)
			const waiting = 5
			results := make(chan error)
			for range waiting {
				go func() { results <- a.SendWait(link.Adopt{}, server) }()
			}
			require.NoError(t, server.Close()) // hangs if a waiting call holds it
			test.end(a, b)
			for range waiting {
				err := <-results
				// Who comes to send only now finds the file closed.
				if !errors.Is(err, net.ErrClosed) && !errors.Is(err, test.want) {
					require.ErrorContains(t, err, "file 0")
				}
			}
		})
	}
}
