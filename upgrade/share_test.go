package upgrade

import (
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/gate"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

// stagedPair is an old and a new generation of one listener, in one process. Each
// answers a connection with its letter, and closes it.
type stagedPair struct {
	address  string
	old, new *Listener
	share    *share
	receiver *link.Conn // the new one's end
	servers  sync.WaitGroup
}

func newStagedPair(t *testing.T) *stagedPair {
	t.Helper()
	leak.Check(t)
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer raw.Close()
	p := &stagedPair{address: raw.Addr().String()}
	listener := func() *Listener {
		file, err := raw.(*net.TCPListener).File()
		require.NoError(t, err)
		t.Cleanup(func() { _ = file.Close() })
		fd, err := rawFD(file)
		require.NoError(t, err)
		return newListener("test", []*socket{{name: "test", network: "tcp", address: p.address, fd: fd}}, new(goodbyes), newPlaces())
	}
	p.old, p.new = listener(), listener()
	ours, theirs, err := link.Pair()
	require.NoError(t, err)
	conn, err := link.New(ours)
	require.NoError(t, err)
	p.receiver, err = link.New(theirs)
	require.NoError(t, err)
	p.share = &share{
		sender: transfer.NewSender(conn), listeners: map[string]bool{"test": true},
		places: transfer.NewPlaces(gate.MaxPushed), log: slog.New(slog.DiscardHandler),
	}
	p.old.share.Store(p.share)
	t.Cleanup(func() {
		p.share.end(0)
		_ = p.receiver.Close()
		_ = p.old.Close()
		_ = p.new.Close()
		p.servers.Wait()
	})
	require.NoError(t, p.old.open())
	p.serve(p.old, "o")
	return p
}

func (p *stagedPair) serve(l *Listener, letter string) {
	p.servers.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, letter)
			_ = c.Close()
		}
	})
}

// adopt has the new generation take what is passed on to it.
func (p *stagedPair) adopt(t *testing.T) *transfer.Receiver {
	t.Helper()
	u := &Upgrader{listeners: []*Listener{p.new}}
	r := transfer.Receive(p.receiver, adoptWorkers, u.adopt)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// connect makes n connections, and returns what they were answered.
func (p *stagedPair) connect(t *testing.T, n int) (answers map[string]int) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	answers = make(map[string]int)
	work := make(chan struct{})
	for range 16 {
		wg.Go(func() {
			for range work {
				answer := "refused"
				if c, err := net.Dial("tcp", p.address); err == nil {
					b, err := io.ReadAll(c)
					answer = string(b)
					if err != nil {
						answer = err.Error()
					}
					_ = c.Close()
				}
				mu.Lock()
				answers[answer]++
				mu.Unlock()
			}
		})
	}
	for range n {
		work <- struct{}{}
	}
	close(work)
	wg.Wait()
	return answers
}

func TestShareIsExact(t *testing.T) {
	p := newStagedPair(t)
	p.serve(p.new, "n")
	p.adopt(t)
	for _, percent := range []float64{5, 50, 100, 0.5} {
		p.share.setShare(percent)
		answers := p.connect(t, 400)
		want := int(400 * percent / 100)
		assert.Equal(t, map[string]int{"n": want, "o": 400 - want}, nonZero(answers, "n", "o"), "%v%%", percent)
		passed, kept := p.share.counts()
		assert.Equal(t, []int{want, 400 - want}, []int{passed, kept}, "%v%%", percent)
	}
}

func nonZero(m map[string]int, keys ...string) map[string]int {
	for _, k := range keys {
		m[k] += 0
	}
	return m
}

// TestEachConnectionIsAnsweredOnce ends a share in the middle of a load, in the ways
// in which that happens.
func TestEachConnectionIsAnsweredOnce(t *testing.T) {
	for _, tt := range []struct {
		name  string
		serve bool // the new generation accepts
		adopt bool // it answers what it is offered
		end   func(p *stagedPair, r *transfer.Receiver)
	}{
		{"promoted", true, true, func(p *stagedPair, _ *transfer.Receiver) {
			p.old.share.Store(nil)
			p.share.end(lastWords)
		}},
		{"rolled back", true, true, func(p *stagedPair, r *transfer.Receiver) {
			r.Refuse(transfer.CodeDraining, "it drains")
			p.share.end(lastWords)
		}},
		{"the new one is gone", true, true, func(p *stagedPair, r *transfer.Receiver) {
			_ = r.Close()
			p.share.end(0)
		}},
		{"the new one answers nothing", false, false, func(p *stagedPair, _ *transfer.Receiver) {
			p.share.end(0)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newStagedPair(t)
			var r *transfer.Receiver
			if tt.serve {
				p.serve(p.new, "n")
			}
			if tt.adopt {
				r = p.adopt(t)
			}
			p.share.setShare(50)
			done := make(chan map[string]int, 1)
			go func() { done <- p.connect(t, 600) }()
			require.Eventually(t, func() bool { passed, _ := p.share.counts(); return passed >= 15 }, time.Minute, time.Millisecond)
			tt.end(p, r)
			answers := <-done
			assert.Equal(t, 600, answers["o"]+answers["n"], "%v", answers)
			require.Eventually(t, func() bool { return p.old.conns.Len()+p.new.conns.Len() == 0 }, time.Minute, time.Millisecond, "nothing is left")
		})
	}
}

// TestComeBackLeavesPromisedPlaces: a connection that was promised a place in the
// queue of Accept must find it.
func TestComeBackLeavesPromisedPlaces(t *testing.T) {
	p := newStagedPair(t)
	p.new.reserved.Store(gate.MaxPushed)
	a, b := net.Pipe()
	defer a.Close()
	close(p.new.closing) // it would wait
	p.new.closed.Do(func() {})
	p.new.comeBack(p.new.newConn(b, time.Now()))
	assert.Zero(t, p.new.gates[0].Pushed())
	_, err := a.Read(make([]byte, 1))
	assert.ErrorIs(t, err, io.EOF)
	_ = p.new.gates[0].Close()
}
