package upgrade

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/track"
)

// pipes makes a listener without a socket, and n connections of it.
func pipes(t *testing.T, g *goodbyes, n int) (*Listener, []*Conn) {
	t.Helper()
	l := newListener("pipes", nil, g, newPlaces())
	conns := make([]*Conn, n)
	for i := range conns {
		client, server := net.Pipe()
		conns[i] = l.admit(server).(*Conn)
		t.Cleanup(func() {
			_ = client.Close()
			_ = server.Close()
		})
	}
	return l, conns
}

// moments are when hooks were called.
type moments struct {
	start time.Time
	mu    sync.Mutex
	at    []time.Duration
}

func (m *moments) hook() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = append(m.at, time.Since(m.start))
}

func (m *moments) take() []time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := m.at
	m.at = nil
	return at
}

// TestFarewellsAreSpreadOverTheirTime gives 400 connections a moment each.
func TestFarewellsAreSpreadOverTheirTime(t *testing.T) {
	for _, tt := range []struct {
		name          string
		delay, spread time.Duration
	}{
		{"at once", 0, 0},
		{"spread", 0, time.Minute},
		{"delayed", time.Hour, 0},
		{"delayed and spread", time.Hour, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := &goodbyes{delay: tt.delay, spread: tt.spread}
				l, conns := pipes(t, g, 400)
				m := moments{start: time.Now()}
				for _, c := range conns {
					c.OnDrain(m.hook)
				}
				time.Sleep(time.Hour) // as long as nobody drains
				synctest.Wait()
				require.Empty(t, m.take())

				m.start = time.Now()
				g.begin([]*Listener{l})
				time.Sleep(24 * time.Hour)
				synctest.Wait()
				at := m.take()
				assert.Len(t, at, len(conns), "each once")
				quarters := [4]int{}
				for _, d := range at {
					assert.GreaterOrEqual(t, d, tt.delay)
					assert.LessOrEqual(t, d, tt.delay+tt.spread)
					if tt.spread > 0 {
						quarters[min(4*(d-tt.delay)/tt.spread, 3)]++
					}
				}
				if tt.spread > 0 {
					for _, n := range quarters {
						assert.Greater(t, n, 40, "%v: all over the time", quarters)
					}
				}
				g.hasten([]*Listener{l})
				synctest.Wait()
				assert.Empty(t, m.take(), "nobody says it twice")
			})
		})
	}
}

// TestFarewellsWaitForNothingInAStop: neither those that have a moment already, nor
// those who come late.
func TestFarewellsWaitForNothingInAStop(t *testing.T) {
	for _, begun := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			g := &goodbyes{delay: time.Hour, spread: time.Hour}
			l, conns := pipes(t, g, 50)
			m := moments{start: time.Now()}
			for _, c := range conns[:49] {
				c.OnDrain(m.hook)
			}
			if begun {
				g.begin([]*Listener{l})
			}
			g.hasten([]*Listener{l})
			synctest.Wait()
			assert.Equal(t, make([]time.Duration, 49), m.take())
			conns[49].OnDrain(m.hook)
			synctest.Wait()
			assert.Equal(t, make([]time.Duration, 1), m.take())
			g.hasten([]*Listener{l})
			time.Sleep(24 * time.Hour)
			synctest.Wait()
			assert.Empty(t, m.take())
		})
	}
}

// TestLateFarewellsGetAMomentInWhatIsLeft registers in the middle of the spread, and
// after it.
func TestLateFarewellsGetAMomentInWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &goodbyes{delay: time.Hour, spread: time.Hour}
		l, conns := pipes(t, g, 200)
		m := moments{start: time.Now()}
		g.begin([]*Listener{l})
		for i, c := range conns[:100] {
			if i == 50 {
				time.Sleep(90 * time.Minute)
			}
			c.OnDrain(m.hook)
		}
		synctest.Wait()
		early := m.take()
		assert.NotEmpty(t, early)
		assert.Less(t, len(early), 50)
		time.Sleep(time.Hour)
		synctest.Wait()
		late := m.take()
		assert.Len(t, late, 100-len(early))
		for _, d := range late {
			assert.GreaterOrEqual(t, d, 90*time.Minute)
			assert.LessOrEqual(t, d, 2*time.Hour)
		}
		m.start = time.Now()
		for _, c := range conns[100:] {
			c.OnDrain(m.hook)
		}
		synctest.Wait()
		assert.Equal(t, make([]time.Duration, 100), m.take(), "after the spread at once")
	})
}

// TestFarewellsAreTakenBackWithTheDrain opens the door in the middle of the spread,
// and closes it again later.
func TestFarewellsAreTakenBackWithTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &goodbyes{spread: time.Hour}
		l, conns := pipes(t, g, 100)
		all := []*Listener{l}
		m := moments{start: time.Now()}
		called := make([]atomic.Int32, len(conns))
		for i, c := range conns {
			c.OnDrain(func() {
				called[i].Add(1)
				m.hook()
			})
		}
		g.begin(all)
		time.Sleep(30 * time.Minute)
		g.end(all)
		synctest.Wait()
		before := len(m.take())
		assert.NotZero(t, before)
		assert.Less(t, before, 100)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		assert.Empty(t, m.take(), "nobody says goodbye while the door is open")

		g.begin(all)
		time.Sleep(30 * time.Minute)
		g.end(all)
		g.begin(all)
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Len(t, m.take(), 100-before)
		for i := range called {
			assert.EqualValues(t, 1, called[i].Load(), "each exactly once")
		}
	})
}

func TestAFarewellCanBeTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &goodbyes{spread: time.Hour}
		l, conns := pipes(t, g, 3)
		m := moments{start: time.Now()}
		before, during, after := conns[0].OnDrain(m.hook), conns[1].OnDrain(m.hook), conns[2].OnDrain(m.hook)
		assert.True(t, before())
		assert.False(t, before(), "a second time it does nothing")
		g.begin([]*Listener{l})
		assert.True(t, during())
		time.Sleep(time.Hour)
		synctest.Wait()
		assert.Len(t, m.take(), 1)
		assert.False(t, after(), "too late")
	})
}

// TestNoFarewellOnAClosedConnection closes it before its moment, and registers
// after it.
func TestNoFarewellOnAClosedConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &goodbyes{spread: time.Hour}
		l, conns := pipes(t, g, 3)
		m := moments{start: time.Now()}
		stop := conns[0].OnDrain(m.hook)
		require.NoError(t, conns[0].Close())
		assert.False(t, stop(), "nothing to take back")
		g.begin([]*Listener{l})
		conns[1].OnDrain(m.hook)
		require.NoError(t, conns[1].Close())
		require.NoError(t, conns[2].Close())
		conns[2].OnDrain(m.hook)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		assert.Empty(t, m.take())
		assert.Empty(t, l.extras, "and nothing of them is kept")
	})
}

// TestAFarewellMayDoWhatItLikes: it closes its connection, or takes itself back, and
// others do not wait for one that takes its time.
func TestAFarewellMayDoWhatItLikes(t *testing.T) {
	inTime := func(t *testing.T, done <-chan struct{}) {
		t.Helper()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("it hangs")
		}
	}
	for _, tt := range []struct {
		name string
		f    func(c *Conn, stop func() bool)
	}{
		{"close", func(c *Conn, _ func() bool) { _ = c.Close() }},
		{"stop", func(_ *Conn, stop func() bool) { stop() }},
		{"register again", func(c *Conn, _ func() bool) { c.OnDrain(func() {}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := new(goodbyes)
			l, conns := pipes(t, g, 1)
			done, registered := make(chan struct{}), make(chan struct{})
			var stop func() bool
			stop = conns[0].OnDrain(func() {
				<-registered
				tt.f(conns[0], stop)
				close(done)
			})
			close(registered)
			g.hasten([]*Listener{l})
			inTime(t, done)
		})
	}
	for _, tt := range []struct {
		name string
		do   func(c *Conn, stop func() bool)
	}{
		{"close meanwhile", func(c *Conn, _ func() bool) { _ = c.Close() }},
		{"stop meanwhile", func(_ *Conn, stop func() bool) { assert.False(t, stop(), "it is called") }},
		{"the request ends meanwhile", func(c *Conn, _ func() bool) { c.forgetFarewells() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := new(goodbyes)
			l, conns := pipes(t, g, 1)
			began, proceed, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
			stop := conns[0].OnDrain(func() {
				close(began)
				<-proceed
				close(ended)
			})
			g.hasten([]*Listener{l})
			<-began
			done := make(chan struct{})
			go func() {
				tt.do(conns[0], stop)
				close(done)
			}()
			defer func() {
				close(proceed)
				<-ended
				<-done
			}()
			inTime(t, done)
		})
	}
}

// TestFarewellsThatAreTakenBackAreForgotten: a connection that lives long may
// register for every one of its messages.
func TestFarewellsThatAreTakenBackAreForgotten(t *testing.T) {
	l, conns := pipes(t, new(goodbyes), 1)
	for range 1000 {
		require.True(t, conns[0].OnDrain(func() {})())
	}
	l.extrasMu.Lock()
	defer l.extrasMu.Unlock()
	if x := l.extras[conns[0]]; x != nil {
		assert.Zero(t, len(x.farewell))
	}
}

// TestARequestThatEndsSaysNoGoodbye: while it runs it is a stream, and afterwards
// the connection is idle as any other.
func TestARequestThatEndsSaysNoGoodbye(t *testing.T) {
	leak.Check(t)
	registered, proceed := make(chan struct{}), make(chan struct{})
	var called atomic.Int32
	s := serveHTTP(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := ConnFrom(r.Context())
		if !assert.True(t, ok) {
			return
		}
		c.OnDrain(func() { called.Add(1) })
		registered <- struct{}{}
		<-proceed
	})})
	k := s.dial()
	for range 3 {
		_, err := io.WriteString(k, getA)
		require.NoError(t, err)
		<-registered
		s.await(track.Counts{track.Stream: 1})
		proceed <- struct{}{}
		k.answer(t)
		s.await(track.Counts{track.Idle: 1})
	}
	c := s.ln.conns.All()[0]
	// The hooks are dropped right after the phase has changed.
	require.Eventually(t, func() bool {
		n := -1
		c.withExtra(func(x *extra) { n = len(x.farewell) })
		return n == 0
	}, time.Minute, time.Millisecond)
	s.ln.goodbyes.hasten([]*Listener{s.ln})
	_, err := io.WriteString(k, getA)
	require.NoError(t, err)
	<-registered
	require.Eventually(t, func() bool { return called.Load() == 1 }, time.Minute, time.Millisecond, "one in a drain: at once")
	proceed <- struct{}{}
	k.answer(t)
	assert.EqualValues(t, 1, called.Load(), "and none of the others")
}

// TestFarewellStorm registers, takes back and closes, while drains begin, hurry and
// are taken back: nobody is called twice, or after a stop that said that it would
// not be.
func TestFarewellStorm(t *testing.T) {
	leak.Check(t)
	g := &goodbyes{spread: time.Millisecond}
	l := newListener("pipes", nil, g, newPlaces())
	var running, drains sync.WaitGroup
	over := make(chan struct{})
	drains.Go(func() {
		all := []*Listener{l}
		for i := 0; ; i++ {
			select {
			case <-over:
				g.hasten(all)
				return
			default:
			}
			g.begin(all)
			if i%3 == 0 {
				g.hasten(all)
			}
			g.end(all)
		}
	})
	var total atomic.Int64
	for worker := range 8 {
		running.Go(func() {
			for i := range 300 {
				client, server := net.Pipe()
				c := l.admit(server).(*Conn)
				var called, wontBe [3]atomic.Int32
				for j := range called {
					stop := c.OnDrain(func() {
						called[j].Add(1)
						total.Add(1)
					})
					if (i+j+worker)%2 == 0 && stop() {
						wontBe[j].Store(1)
					}
				}
				if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
					assert.NoError(t, err)
				}
				_ = client.Close()
				for j := range called {
					assert.LessOrEqual(t, called[j].Load()+wontBe[j].Load(), int32(1))
				}
			}
		})
	}
	running.Wait()
	close(over)
	drains.Wait()
	assert.Empty(t, l.extras)
	t.Logf("%d goodbyes", total.Load())
}
