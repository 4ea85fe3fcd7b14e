package transfer_test

import (
	"errors"
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

// connectRaw returns an end of a link, and the descriptor of the other one, for a
// peer that keeps no rules.
func connectRaw(t testing.TB) (conn *link.Conn, peer *link.Conn, fd int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	conn, err = link.NewFD(fds[0])
	require.NoError(t, err)
	peer, err = link.NewFD(fds[1])
	require.NoError(t, err)
	return conn, peer, fds[1]
}

// A receiver that answers nonsense confuses nobody.
func TestSenderGetsGarbage(t *testing.T) {
	leak.Check(t)
	clients := dialAll(t, 2)
	conn, peer, fd := connectRaw(t)
	s := newSender(conn, 2)
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()

	garbage := func() {
		require.NoError(t, peer.Send(link.Answer{ID: 0}))
		require.NoError(t, peer.Send(link.Answer{ID: 999}))
		require.NoError(t, peer.Send(link.Answer{ID: math.MaxUint64, Code: "error"}))
		require.NoError(t, peer.Send(link.Answer{ID: 998}, null))
		require.NoError(t, peer.Send(link.Serve{}))
		require.NoError(t, peer.Send(link.Offer{ID: 1}, null))
		require.NoError(t, unix.Send(fd, []byte("nonsense"), 0))
		require.NoError(t, unix.Send(fd, []byte(`{"kind":"answer","body":{"id":-1}}`), 0))
		require.NoError(t, unix.Send(fd, []byte(`{"kind":"teleport"}`), 0))
	}
	results := make(chan error)
	give := func(c *client) { results <- s.Give(c.ours, link.Offer{}) }
	garbage()
	go give(clients[0])
	first := offer(t, peer)
	garbage()
	go give(clients[1])
	second := offer(t, peer)
	assert.NotEqual(t, first.ID, second.ID)

	// The first answer counts; it may come with files that nobody wants, or that
	// have not come.
	require.NoError(t, peer.Send(link.Answer{ID: second.ID, Code: "busy"}, null))
	require.NoError(t, peer.Send(link.Answer{ID: second.ID}))
	assert.Equal(t, &transfer.Refused{Code: "busy"}, <-results)
	require.NoError(t, unix.Send(fd, []byte(`{"kind":"answer","fds":1,"body":{"id":1}}`), 0))
	require.NoError(t, peer.Send(link.Answer{ID: first.ID, Code: "busy"}))
	assert.NoError(t, <-results)
	garbage()
	s.Withdraw(errors.New("enough"))
	require.NoError(t, peer.Close())
}

// A sender that offers nonsense confuses nobody.
func TestReceiverGetsGarbage(t *testing.T) {
	leak.Check(t)
	c := dialAll(t, 1)[0]
	conn, peer, fd := connectRaw(t)
	h := newHouse()
	r := transfer.Receive(conn, 2, h.adopt)
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	answer := func() link.Message {
		m, files, err := peer.Receive()
		require.NoError(t, err)
		require.Empty(t, files)
		return m
	}

	require.NoError(t, unix.Send(fd, []byte("nonsense"), 0))
	require.NoError(t, unix.Send(fd, []byte(`{"kind":"offer","body":{"id":1}}`), 0)) // without files
	require.NoError(t, peer.Send(link.Answer{ID: 1}))
	require.NoError(t, peer.Send(link.Serve{}, null))
	require.NoError(t, unix.Send(fd, []byte(`{"kind":"teleport"}`), 0))
	assert.Equal(t, link.Unknown{Name: "teleport"}, answer())

	// An offer whose files did not come, or that is no connection.
	require.NoError(t, unix.Send(fd, []byte(`{"kind":"offer","fds":1,"body":{"id":2}}`), 0))
	a := answer().(link.Answer)
	assert.Equal(t, uint64(2), a.ID)
	assert.Equal(t, transfer.CodeFiles, a.Code)
	require.NoError(t, peer.Send(link.Offer{ID: 3}, null))
	a = answer().(link.Answer)
	assert.Equal(t, uint64(3), a.ID)
	assert.Equal(t, transfer.CodeError, a.Code)

	// One more file than it needs.
	require.NoError(t, peer.SendFrom(link.Offer{ID: 4, Label: "0"}, c.ours, null))
	assert.Equal(t, link.Answer{ID: 4}, answer())
	require.NoError(t, c.ours.Close())
	c.requireOwner(t, taker)

	require.NoError(t, peer.Close())
	<-r.Done()
	h.serving.Wait()
}
