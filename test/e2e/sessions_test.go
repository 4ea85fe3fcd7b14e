package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	kinds "github.com/hdctl/handoff/test/kinds/client"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// TestFiveHundredHandoffsOfOneSession hands one TCP session from generation to
// generation, with a client that asks between the upgrades and at random moments
// during them: no question is lost, none is answered twice, and what the session
// knows is never forgotten.
func TestFiveHundredHandoffsOfOneSession(t *testing.T) {
	t.Parallel()
	handoffs := 500
	if testing.Short() {
		handoffs = 20
	}
	s := newKinds(t, nil, func(u *units.Service) { u.Probation = time.Millisecond }, "session")
	h := s.open(kinds.Session, 1)
	asker := &asker{conn: h.Conn, asked: 2} // two questions came with the opening
	asker.start(t)

	began := time.Now()
	for n := 2; n <= handoffs+1; n++ {
		r := s.hdctl("upgrade", "-q", "demo")
		require.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
		s.WaitFor(t, fmt.Sprintf("handoff %d", n-1), func() bool {
			last, err := asker.latest()
			require.NoError(t, err)
			return last == n
		})
	}
	t.Logf("%d handoffs in %v", handoffs, time.Since(began).Round(time.Second))
	asker.stop(t)
	t.Logf("%d questions", asker.asked)

	// It is the same connection all the time.
	s.waitOnly(handoffs + 1)
	list := s.conns()
	require.Len(t, list, 1)
	assert.Equal(t, h.address, list[0].Peer)
	assert.Equal(t, handoffs+1, list[0].Generation)
	assert.Equal(t, 1, mainOf(t, s.status()).Adopted)
	s.assertNoTrouble()
}

// asker asks on a session until it is stopped, after random pauses, and checks each
// answer.
type asker struct {
	conn  *kinds.Conn
	asked int

	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	last   int // that answered
	err    error
}

func (a *asker) start(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel = cancel
	t.Cleanup(func() { a.cancel(); a.wg.Wait() })
	a.wg.Go(func() {
		pause := time.NewTimer(0)
		defer pause.Stop()
		for {
			select {
			case <-pause.C:
			case <-ctx.Done():
				return
			}
			generation, err := a.ask()
			a.mu.Lock()
			a.last, a.err = generation, err
			a.mu.Unlock()
			if err != nil {
				return
			}
			pause.Reset(rand.N(10 * time.Millisecond))
		}
	})
}

// ask asks for the name, or gives a new one.
func (a *asker) ask() (generation int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	a.asked++
	text, want := "name", fmt.Sprintf("name Ada %d", a.asked/100*100)
	if a.asked%100 == 0 || a.asked == 3 {
		text = fmt.Sprintf("name Ada %d", a.asked/100*100)
		want = text
	}
	answer, err := a.conn.Ask(ctx, text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("question %d: %w", a.asked, err)
	case answer.Count != a.asked || answer.Text != want || answer.Generation < a.last:
		return 0, fmt.Errorf("question %d, %q after generation %d, has the answer %+v", a.asked, text, a.last, answer)
	}
	return answer.Generation, nil
}

// latest is the generation that answered last, or why there is no answer.
func (a *asker) latest() (generation int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last, a.err
}

// stop asserts that all answers were right.
func (a *asker) stop(t *testing.T) {
	t.Helper()
	a.cancel()
	a.wg.Wait()
	require.NoError(t, a.err)
}

// TestARefusedSessionIsServedOn has a session that no successor takes: the old
// generation serves it on, until the deadline, while the others move.
func TestARefusedSessionIsServedOn(t *testing.T) {
	t.Parallel()
	const moving = 5
	s := newKinds(t, silent, func(u *units.Service) { u.DrainTimeout = 5 * time.Second }, "session")
	ctx := t.Context()
	stays := s.open(kinds.Session, 1)
	_, err := stays.Ask(ctx, "stay")
	require.NoError(t, err)
	var others []*heldConn
	for i := range moving {
		h := s.open(kinds.Session, 1)
		_, err := h.Ask(ctx, fmt.Sprintf("name %d", i))
		require.NoError(t, err)
		others = append(others, h)
	}
	var ends endings
	ends.watch(stays)

	up := s.inBackground("hdctl", "upgrade", "--wait=drained", "-o", "json", "demo")
	s.waitMain(2)
	for i, h := range others {
		s.WaitFor(t, "the session to move", func() bool { return s.answeredBy(h) == 2 })
		a, err := h.Ask(ctx, "name")
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprintf("name %d", i), a.Text)
	}
	for range 10 {
		s.requireAlive(stays)
	}
	a, err := stays.Ask(ctx, "name")
	require.NoError(t, err)
	assert.Equal(t, kinds.Answer{Generation: 1, Count: 14, Text: "name stay"}, a)
	list := s.conns("--generation", "1")
	require.Len(t, list, 1)
	assert.Equal(t, stays.address, list[0].Peer)

	ends.wait()
	assertPolite(t, stays)
	r := <-up
	assert.Equal(t, 8, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	result := upgradeResult(t, r)
	assert.Equal(t, control.Counts{Total: 1, Stream: 1}, result.Cut)
	assert.Equal(t, moving, result.Migrated)
	for _, h := range others {
		assert.Equal(t, 2, s.answeredBy(h))
	}
}
