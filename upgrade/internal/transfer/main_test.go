package transfer_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(childEnv); mode != "" {
		child(mode) // does not return
	}
	leak.Main(m)
}

// The two owners of connections in these tests.
const (
	giver = "giver"
	taker = "taker"
)

// serve answers every line with the name of the owner and the line, until the
// client ends the connection.
func serve(c net.Conn, owner string) {
	lines := bufio.NewReader(c)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := fmt.Fprintf(c, "%s %s", owner, line); err != nil {
			return
		}
	}
}

// A client has a connection that one of the two owners serves. Its first line is
// under way from the beginning, so that it lies in the kernel while the
// connection is in transit.
type client struct {
	*net.TCPConn
	lines *bufio.Reader
	asked int
	ours  *net.TCPConn // the giver's end
	given error        // result of Give
}

// ask returns who answers the next line.
func (c *client) ask() (owner string, err error) {
	line := fmt.Sprintf("line-%d", c.asked)
	if c.asked > 0 {
		if _, err := fmt.Fprintln(c, line); err != nil {
			return "", err
		}
	}
	c.asked++
	answer, err := c.lines.ReadString('\n')
	if err != nil {
		return "", err
	}
	var got string
	if _, err := fmt.Sscan(answer, &owner, &got); err != nil || got != line {
		return "", fmt.Errorf("asked %q, answered %q", line, answer)
	}
	return owner, nil
}

func dial(t testing.TB, ln net.Listener) *client {
	t.Helper()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	ours, err := ln.Accept()
	require.NoError(t, err)
	return &client{TCPConn: c.(*net.TCPConn), lines: bufio.NewReader(c), ours: ours.(*net.TCPConn)}
}

// dialAll makes n clients, that are closed with the test.
func dialAll(t testing.TB, n int) []*client {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = dial(t, ln)
		t.Cleanup(func() {
			clients[i].Close()
			clients[i].ours.Close()
		})
		_, err := fmt.Fprintln(clients[i], "line-0")
		require.NoError(t, err)
	}
	return clients
}

// requireOwner checks that the one and only one who answers is owner.
func (c *client) requireOwner(t testing.TB, owner string) {
	t.Helper()
	for range 4 {
		got, err := c.ask()
		require.NoError(t, err)
		require.Equal(t, owner, got)
	}
	// Nothing that two have answered is on its way.
	require.NoError(t, c.CloseWrite())
	rest, err := io.ReadAll(c.lines)
	require.NoError(t, err)
	require.Empty(t, rest)
}

// connect returns the two ends of a link.
func connect(t testing.TB) (a, b *link.Conn) {
	t.Helper()
	ours, theirs, err := link.Pair()
	require.NoError(t, err)
	a, err = link.New(ours)
	require.NoError(t, err)
	b, err = link.New(theirs)
	require.NoError(t, err)
	return a, b
}

// sender is a Sender with places for connections in transit.
type sender struct {
	*transfer.Sender
	places transfer.Places
}

func newSender(conn *link.Conn, places int) *sender {
	return &sender{transfer.NewSender(conn), transfer.NewPlaces(places)}
}

// giveAll offers all connections, each in a goroutine of its own, that goes on
// serving what stays here. wait returns when all offers are decided, and the
// function that it returns when all clients are gone.
func giveAll(t testing.TB, s *sender, clients []*client) (wait func() func()) {
	var decided, served sync.WaitGroup
	decided.Add(len(clients))
	for i, c := range clients {
		served.Go(func() {
			defer c.ours.Close()
			s.places <- struct{}{}
			err := s.Give(c.ours, link.Offer{Listener: "echo", Label: strconv.Itoa(i)})
			s.places.Release()
			c.given = err
			if err == nil {
				c.ours.Close()
				decided.Done()
				return
			}
			decided.Done()
			serve(c.ours, giver)
			if errors.Is(err, transfer.ErrWithdrawn) {
				// The receiver may have a copy on the way; after a refusal it
				// has none.
				c.ours.CloseWrite()
			}
		})
	}
	return func() func() {
		decided.Wait()
		return served.Wait
	}
}

// house is the taker: what it has committed it serves.
type house struct {
	refuse func(o link.Offer) error // nil: adopts all

	serving   sync.WaitGroup
	mu        sync.Mutex
	committed map[string]int // by label
	aborted   map[string]int
	commits   chan struct{} // gets one value for each, if there is room
}

func newHouse() *house {
	return &house{committed: map[string]int{}, aborted: map[string]int{}, commits: make(chan struct{}, 10_000)}
}

func (h *house) adopt(o link.Offer, files []*os.File) (transfer.Adoption, error) {
	if h.refuse != nil {
		if err := h.refuse(o); err != nil {
			return nil, err
		}
	}
	c, err := net.FileConn(files[0])
	if err != nil {
		return nil, err
	}
	return &guest{h, o, c}, nil
}

type guest struct {
	h *house
	o link.Offer
	c net.Conn
}

func (g *guest) Commit() {
	g.h.mu.Lock()
	g.h.committed[g.o.Label]++
	g.h.mu.Unlock()
	g.h.commits <- struct{}{}
	g.h.serving.Go(func() {
		defer g.c.Close()
		serve(g.c, taker)
	})
}

func (g *guest) Abort() {
	g.h.mu.Lock()
	defer g.h.mu.Unlock()
	g.h.aborted[g.o.Label]++
	g.c.Close()
}

// requireOneOwner is the heart: each connection has exactly one owner, and both
// owners know who. committed says how often the taker has taken which.
func requireOneOwner(t testing.TB, clients []*client, committed map[string]int) (taken int) {
	t.Helper()
	for i, c := range clients {
		if c.given == nil {
			taken++
			require.Equal(t, 1, committed[strconv.Itoa(i)], "connection %d was given, and nobody has taken it", i)
			c.requireOwner(t, taker)
			continue
		}
		var refused *transfer.Refused
		if !errors.As(c.given, &refused) {
			require.ErrorIs(t, c.given, transfer.ErrWithdrawn)
		}
		require.Zero(t, committed[strconv.Itoa(i)], "connection %d was taken, and not given: %v", i, c.given)
		c.requireOwner(t, giver)
	}
	require.Len(t, committed, taken)
	return taken
}

// requireServed is requireOneOwner for a house in this process.
func (h *house) requireServed(t testing.TB, clients []*client) (taken int) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	taken = requireOneOwner(t, clients, h.committed)
	for label := range h.aborted {
		assert.Zero(t, h.committed[label], "connection %s was committed and aborted", label)
	}
	return taken
}
