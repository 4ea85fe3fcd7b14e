package transfer_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

func TestGive(t *testing.T) {
	leak.Check(t)
	clients := dialAll(t, 300)
	a, b := connect(t)
	s := newSender(a, 32)
	h := newHouse()
	r := transfer.Receive(b, 4, h.adopt)

	served := giveAll(t, s, clients)()
	require.NoError(t, s.Close())
	<-r.Done() // all are committed
	assert.Equal(t, len(clients), h.requireServed(t, clients))
	served()
	h.serving.Wait()
}

// An offer arrives as it was made, with its session.
func TestGiveSession(t *testing.T) {
	leak.Check(t)
	c := dialAll(t, 1)[0]
	a, b := connect(t)
	s := newSender(a, 1)
	defer s.Close()
	want := link.Offer{
		ID: 1, Listener: "echo", Accepted: 2, Moved: 3, In: 4, Out: 5, Label: "user 6",
		Session: &link.Session{Version: 7, File: true},
	}
	h := newHouse()
	var data []byte
	r := transfer.Receive(b, 1, func(o link.Offer, files []*os.File) (transfer.Adoption, error) {
		assert.Equal(t, want, o)
		var err error
		data, err = io.ReadAll(files[1])
		assert.NoError(t, err)
		return h.adopt(o, files)
	})

	read, write, err := os.Pipe()
	require.NoError(t, err)
	_, err = write.WriteString("state")
	require.NoError(t, err)
	require.NoError(t, write.Close())
	offer := want
	offer.ID = 77 // is set by Give
	require.NoError(t, s.Give(c.ours, offer, read))
	require.NoError(t, read.Close()) // it was lent
	require.NoError(t, c.ours.Close())
	require.NoError(t, r.Close())
	assert.Equal(t, "state", string(data))
	c.requireOwner(t, taker)
	h.serving.Wait()
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		want transfer.Refused
	}{
		{"with a code", &transfer.Refused{Code: transfer.CodeSession, Message: "version 3"}, transfer.Refused{Code: "session", Message: "version 3"}},
		{"wrapped", fmt.Errorf("x: %w", &transfer.Refused{Code: transfer.CodeBusy}), transfer.Refused{Code: "busy"}},
		{"without a code", &transfer.Refused{Message: "no"}, transfer.Refused{Code: "error", Message: "no"}},
		{"some error", errors.New("no"), transfer.Refused{Code: "error", Message: "no"}},
		{"no descriptors", os.NewSyscallError("dup", syscall.EMFILE), transfer.Refused{Code: "files", Message: "dup: too many open files"}},
		{"no descriptors on the machine", syscall.ENFILE, transfer.Refused{Code: "files", Message: "too many open files in system"}},
		{"a long story", errors.New("x" + strings.Repeat("ü", 100_000)), transfer.Refused{Code: "error", Message: "x" + strings.Repeat("ü", 511)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			leak.Check(t)
			c := dialAll(t, 1)[0]
			a, b := connect(t)
			s := newSender(a, 1)
			defer s.Close()
			r := transfer.Receive(b, 1, func(link.Offer, []*os.File) (transfer.Adoption, error) { return nil, test.err })
			defer r.Close()
			for range 3 {
				err := s.Give(c.ours, link.Offer{Listener: "echo"})
				var refused *transfer.Refused
				require.ErrorAs(t, err, &refused)
				assert.Equal(t, test.want, *refused)
				assert.ErrorContains(t, err, "refused by the other generation: "+test.want.Code)
			}
			go func() {
				serve(c.ours, giver)
				c.ours.Close()
			}()
			c.requireOwner(t, giver)
		})
	}
}

// Some are adopted and some are not, and each has its owner.
func TestRefusalsInBetween(t *testing.T) {
	leak.Check(t)
	clients := dialAll(t, 200)
	a, b := connect(t)
	s := newSender(a, 16)
	h := newHouse()
	var n atomic.Int64
	h.refuse = func(link.Offer) error {
		if n.Add(1)%3 == 0 {
			return &transfer.Refused{Code: transfer.CodeBusy}
		}
		return nil
	}
	r := transfer.Receive(b, 4, h.adopt)
	served := giveAll(t, s, clients)()
	require.NoError(t, r.Close())
	assert.Equal(t, 134, h.requireServed(t, clients))
	served()
	require.NoError(t, s.Close())
	h.serving.Wait()
}

func TestRefuseAll(t *testing.T) {
	leak.Check(t)
	clients := dialAll(t, 2)
	a, b := connect(t)
	s := newSender(a, 1)
	defer s.Close()
	h := newHouse()
	r := transfer.Receive(b, 4, h.adopt)
	defer r.Close()
	require.NoError(t, s.Give(clients[0].ours, link.Offer{Label: "0"}))
	require.NoError(t, clients[0].ours.Close())
	r.Refuse(transfer.CodeDraining, "on its way out")
	err := s.Give(clients[1].ours, link.Offer{Label: "1"})
	assert.Equal(t, &transfer.Refused{Code: "draining", Message: "on its way out"}, err)
	require.NoError(t, r.Close())
	assert.Equal(t, map[string]int{"0": 1}, h.committed)
	clients[0].requireOwner(t, taker)
	h.serving.Wait()
	go func() {
		serve(clients[1].ours, giver)
		clients[1].ours.Close() // is the end: there is no other copy
	}()
	clients[1].requireOwner(t, giver)
}

// held makes the taker wait in adopt, when its connection is made.
type held struct {
	*house
	inside chan struct{} // gets one value for each offer
	free   chan struct{} // closed: go on
}

func newHeld() *held {
	return &held{newHouse(), make(chan struct{}, 10_000), make(chan struct{})}
}

func (h *held) adopt(o link.Offer, files []*os.File) (transfer.Adoption, error) {
	a, err := h.house.adopt(o, files)
	h.inside <- struct{}{}
	<-h.free
	return a, err
}

// What the receiver has in its hands, and has not answered, is the sender's, and
// the receiver learns of it.
func TestWithdrawBeforeTheAnswer(t *testing.T) {
	leak.Check(t)
	clients := dialAll(t, 20)
	a, b := connect(t)
	s := newSender(a, 20)
	h := newHeld()
	r := transfer.Receive(b, 4, h.adopt)
	wait := giveAll(t, s, clients)
	for range 4 {
		<-h.inside
	}
	cause := errors.New("it stalls")
	s.Withdraw(cause)
	s.Withdraw(errors.New("too late"))
	served := wait()
	for _, c := range clients {
		require.ErrorIs(t, c.given, transfer.ErrWithdrawn)
		require.ErrorIs(t, c.given, cause)
	}
	<-s.Done()
	assert.Zero(t, s.Oldest())
	close(h.free)
	<-r.Done()
	assert.Len(t, h.aborted, 4)
	assert.Zero(t, h.requireServed(t, clients))
	served()

	require.ErrorIs(t, s.Give(clients[0].ours, link.Offer{}), cause)
}

// The same when it is the receiver that ends.
func TestCloseBeforeTheAnswer(t *testing.T) {
	leak.Check(t)
	clients := dialAll(t, 20)
	a, b := connect(t)
	s := newSender(a, 20)
	h := newHeld()
	r := transfer.Receive(b, 4, h.adopt)
	wait := giveAll(t, s, clients)
	for range 4 {
		<-h.inside
	}
	closed := make(chan error)
	go func() { closed <- r.Close() }()
	<-s.Done() // which needs no worker to end
	close(h.free)
	require.NoError(t, <-closed)
	served := wait()
	for _, c := range clients {
		require.ErrorIs(t, c.given, transfer.ErrWithdrawn)
	}
	assert.Len(t, h.aborted, 4)
	assert.Zero(t, h.requireServed(t, clients))
	served()
	require.NoError(t, s.Close())
	require.NoError(t, r.Close())
}

// Whatever ends the link, and whenever: every connection has one owner, and both
// sides agree who.
func TestOneOwnerWhateverEndsIt(t *testing.T) {
	leak.Check(t)
	ends := map[string]func(*sender, *transfer.Receiver){
		"withdraw": func(s *sender, _ *transfer.Receiver) { s.Withdraw(errors.New("so it is")) },
		"close":    func(_ *sender, r *transfer.Receiver) { r.Close() },
		"both": func(s *sender, r *transfer.Receiver) {
			var both sync.WaitGroup
			both.Go(func() { r.Close() })
			both.Go(func() { s.Close() })
			both.Wait()
		},
	}
	var taken, kept int
	rapid.Check(t, func(rt *rapid.T) {
		end := ends[rapid.SampledFrom([]string{"withdraw", "close", "both"}).Draw(rt, "end")]
		n := rapid.IntRange(1, 40).Draw(rt, "connections")
		window := rapid.IntRange(1, 40).Draw(rt, "window")
		workers := rapid.IntRange(1, 4).Draw(rt, "workers")
		after := rapid.IntRange(0, n-1).Draw(rt, "end after so many")
		busy := rapid.Bool().Draw(rt, "one of four is refused")

		clients := dialAll(t, n)
		a, b := connect(t)
		s := newSender(a, window)
		h := newHouse()
		var offers atomic.Int64
		reached := make(chan struct{})
		h.refuse = func(link.Offer) error {
			k := int(offers.Add(1))
			if k == after+1 {
				close(reached)
			}
			if busy && k%4 == 0 {
				return &transfer.Refused{Code: transfer.CodeBusy}
			}
			return nil
		}
		r := transfer.Receive(b, workers, h.adopt)
		wait := giveAll(t, s, clients)
		<-reached
		end(s, r)
		served := wait()
		<-r.Done()
		k := h.requireServed(t, clients)
		taken, kept = taken+k, kept+n-k
		served()
		require.NoError(t, s.Close())
		h.serving.Wait()
		for _, c := range clients {
			c.Close()
		}
	})
	t.Logf("%d connections were given, %d stayed", taken, kept)
	assert.NotZero(t, taken)
	assert.NotZero(t, kept)
}

// Offers that do not fit into the link wait, and none is lost.
func TestGiveWaitsForRoom(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(s *sender, h *held, gives *sync.WaitGroup)
		want int
	}{
		{"until there is some", func(_ *sender, h *held, gives *sync.WaitGroup) {
			close(h.free)
			gives.Wait()
		}, 30},
		{"until it is withdrawn", func(s *sender, h *held, gives *sync.WaitGroup) {
			s.Withdraw(errors.New("it stalls"))
			gives.Wait()
			close(h.free)
		}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			leak.Check(t)
			clients := dialAll(t, 30)
			a, b := connect(t)
			s := newSender(a, 30)
			h := newHeld()
			session := &link.Session{Data: make([]byte, 40_000)} // only a few fit
			var gives sync.WaitGroup
			for i, c := range clients {
				gives.Go(func() {
					c.given = s.Give(c.ours, link.Offer{Label: fmt.Sprint(i), Session: session})
				})
			}
			r := transfer.Receive(b, 2, h.adopt)
			<-h.inside
			<-h.inside
			require.NotZero(t, s.Oldest())
			test.end(s, h, &gives)
			var served sync.WaitGroup
			for _, c := range clients {
				served.Go(func() {
					defer c.ours.Close()
					if c.given != nil {
						serve(c.ours, giver)
					}
				})
			}
			require.NoError(t, s.Close())
			<-r.Done()
			assert.Equal(t, test.want, h.requireServed(t, clients))
			served.Wait()
			h.serving.Wait()
		})
	}
}

// An answer that does not fit into the link waits, and nothing is committed
// before it is sent.
func TestAnswersWaitForRoom(t *testing.T) {
	for _, test := range []struct {
		name               string
		end                func(peer *link.Conn)
		committed, aborted int
	}{
		{"until there is some", func(peer *link.Conn) {
			for answers := 0; answers < 10; {
				m, _, err := peer.Receive()
				require.NoError(t, err)
				if a, ok := m.(link.Answer); ok {
					assert.Empty(t, a.Code)
					answers++
				}
			}
			require.NoError(t, peer.Close())
		}, 10, 0},
		{"until the sender withdraws", func(peer *link.Conn) {
			peer.CloseRead()
			for err := error(nil); err == nil; { // as a Sender does
				_, _, err = peer.Receive()
			}
			require.NoError(t, peer.Close())
		}, 0, 4},
		{"until the sender is gone", func(peer *link.Conn) { require.NoError(t, peer.Close()) }, 0, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			leak.Check(t)
			clients := dialAll(t, 10)
			conn, peer := connect(t)
			defer peer.Close()
			for err := error(nil); err == nil; {
				err = conn.Send(link.Unknown{Name: "fill"})
			}
			h := newHeld()
			close(h.free)
			r := transfer.Receive(conn, 4, h.adopt)
			for i, c := range clients {
				require.NoError(t, peer.SendFrom(link.Offer{ID: uint64(i), Label: fmt.Sprint(i)}, c.ours))
				require.NoError(t, c.ours.Close())
			}
			for range 4 {
				<-h.inside
			}
			assert.Empty(t, h.commits)
			test.end(peer)
			<-r.Done()
			assert.Len(t, h.committed, test.committed)
			assert.Len(t, h.aborted, test.aborted)
			for _, c := range clients {
				require.NoError(t, c.Close())
			}
			h.serving.Wait()
		})
	}
}

func TestPlaces(t *testing.T) {
	p := transfer.NewPlaces(2)
	require.True(t, p.TryAcquire())
	p <- struct{}{}
	require.False(t, p.TryAcquire())
	got := make(chan struct{})
	go func() { p <- struct{}{}; close(got) }()
	p.Release()
	<-got
	p.Release()
	p.Release()
	require.Panics(t, p.Release)
}

// Who comes after a Withdraw is told at once, and why.
func TestGiveAfterWithdraw(t *testing.T) {
	leak.Check(t)
	c := dialAll(t, 1)[0]
	a, b := connect(t)
	defer b.Close()
	s := transfer.NewSender(a)
	cause := errors.New("enough")
	s.Withdraw(cause)
	err := s.Give(c.ours, link.Offer{})
	require.ErrorIs(t, err, transfer.ErrWithdrawn)
	require.ErrorIs(t, err, cause)
}

func TestOldest(t *testing.T) {
	leak.Check(t)
	clients := dialAll(t, 2)
	a, b := connect(t)
	s := newSender(a, 2)
	assert.Zero(t, s.Oldest())
	results := make(chan error)
	give := func(c *client) { results <- s.Give(c.ours, link.Offer{}) }
	go give(clients[0])
	offer(t, b)
	first := s.Oldest()
	require.NotZero(t, first)
	go give(clients[1])
	offer(t, b)
	assert.Equal(t, first, s.Oldest())
	require.NoError(t, b.Send(link.Answer{ID: 1, Code: "no"}))
	require.Error(t, <-results)
	assert.True(t, s.Oldest().After(first))
	require.NoError(t, b.Send(link.Answer{ID: 2}))
	require.NoError(t, <-results)
	assert.Zero(t, s.Oldest())
	require.NoError(t, b.Close())
	<-s.Done() // the receiver is gone, and nothing was in transit
	err := s.Give(clients[0].ours, link.Offer{})
	require.ErrorIs(t, err, transfer.ErrWithdrawn)
	require.ErrorIs(t, err, link.ErrPeerClosed)
}

// What cannot be sent is nobody else's.
func TestGiveFails(t *testing.T) {
	leak.Check(t)
	c := dialAll(t, 1)[0]
	a, b := connect(t)
	defer b.Close()
	s := newSender(a, 1)
	defer s.Close()
	big := &link.Session{Data: make([]byte, link.MaxFrame)}
	require.ErrorIs(t, s.Give(c.ours, link.Offer{Session: big}), link.ErrTooLarge)
	require.Error(t, s.Give(c.ours, link.Offer{Session: &link.Session{File: true}})) // without a file
	require.NoError(t, c.ours.Close())
	require.ErrorIs(t, s.Give(c.ours, link.Offer{}), os.ErrClosed)
	assert.Zero(t, s.Oldest())
}

// offer receives one, and drops its files.
func offer(t testing.TB, c *link.Conn) link.Offer {
	t.Helper()
	m, files, err := c.Receive()
	require.NoError(t, err)
	for _, f := range files {
		require.NoError(t, f.Close())
	}
	return m.(link.Offer)
}
