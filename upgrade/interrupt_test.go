package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/track"
)

// accepted serves a listener whose connections the test itself reads from, and
// returns one of them with its client.
func accepted(t *testing.T) (*served, *Conn, keepAlive) {
	t.Helper()
	conns, over := make(chan *Conn, 1), make(chan struct{})
	s := listenOn(t, TCP(func(_ context.Context, c *Conn) {
		conns <- c
		<-over
	}))
	k := s.dial()
	c := <-conns
	t.Cleanup(func() { close(over) })
	return s, c, k
}

// interruptions interrupts c all the time, until the test ends or stop is called.
func interruptions(t *testing.T, c *Conn) (stop func()) {
	t.Helper()
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(50 * time.Microsecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.interrupt()
			case <-done:
				return
			}
		}
	})
	stop = sync.OnceFunc(func() {
		close(done)
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// TestDeadlinesOfTheServiceSurviveInterruptions sets deadlines of all kinds before,
// while and after reads are interrupted.
func TestDeadlinesOfTheServiceSurviveInterruptions(t *testing.T) {
	leak.Check(t)
	far := map[string]time.Time{
		"none":           {},
		"in an hour":     time.Now().Add(time.Hour),
		"in a century":   time.Now().Add(100 * 365 * 24 * time.Hour),
		"at the horizon": time.Now().Add(math.MaxInt64),
		"in year 9999":   time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC),
	}
	for name, deadline := range far {
		t.Run(name, func(t *testing.T) {
			_, c, k := accepted(t)
			read := func() {
				t.Helper()
				var b [1]byte
				got := make(chan error, 1)
				go func() {
					_, err := c.Read(b[:])
					got <- err
				}()
				c.interrupt()
				c.interrupt()
				_, err := io.WriteString(k, "x")
				require.NoError(t, err)
				assert.NoError(t, <-got)
			}
			require.NoError(t, c.SetReadDeadline(deadline))
			c.interrupt() // before a Read
			read()
			stop := interruptions(t, c)
			require.NoError(t, c.SetReadDeadline(deadline)) // meanwhile
			read()
			require.NoError(t, c.SetDeadline(deadline))
			read()
			stop()
			require.NoError(t, c.SetReadDeadline(deadline)) // afterwards
			read()
		})
	}
	for _, interrupted := range []bool{false, true} {
		t.Run(fmt.Sprintf("soon, interrupted: %v", interrupted), func(t *testing.T) {
			_, c, k := accepted(t)
			if interrupted {
				interruptions(t, c)
			}
			for _, in := range []time.Duration{-time.Hour, -1, 0, time.Millisecond, 30 * time.Millisecond, 250 * time.Millisecond} {
				deadline := time.Now().Add(in)
				require.NoError(t, c.SetReadDeadline(deadline))
				_, err := c.Read(make([]byte, 1))
				require.ErrorIs(t, err, os.ErrDeadlineExceeded)
				var timeout net.Error
				require.ErrorAs(t, err, &timeout)
				assert.True(t, timeout.Timeout())
				assert.False(t, time.Now().Before(deadline), "%v: before the time", in)
				_, err = c.Read(make([]byte, 1))
				require.ErrorIs(t, err, os.ErrDeadlineExceeded, "and again")
			}
			require.NoError(t, c.SetReadDeadline(time.Time{}))
			_, err := io.WriteString(k, "x")
			require.NoError(t, err)
			_, err = c.Read(make([]byte, 1))
			require.NoError(t, err, "and not any more when it is taken back")
		})
	}
	t.Run("set while a Read waits", func(t *testing.T) {
		_, c, _ := accepted(t)
		interruptions(t, c)
		got := make(chan error, 1)
		go func() {
			_, err := c.Read(make([]byte, 1))
			got <- err
		}()
		require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)), "as net/http does")
		require.ErrorIs(t, <-got, os.ErrDeadlineExceeded)
	})
}

// TestACopyIsNotInterrupted: an interruption that comes too late, when the service
// has begun to copy all that comes.
func TestACopyIsNotInterrupted(t *testing.T) {
	_, c, k := accepted(t)
	c.interrupt()
	r, w := net.Pipe()
	defer r.Close()
	copied := make(chan error, 1)
	go func() {
		n, err := io.Copy(w, c)
		if err == nil && n != 10 {
			err = fmt.Errorf("%d bytes", n)
		}
		copied <- err
		w.Close()
	}()
	_, err := io.WriteString(k, "0123456789")
	require.NoError(t, err)
	require.NoError(t, k.Close())
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	assert.Equal(t, "0123456789", string(got))
	require.NoError(t, <-copied)
}

// TestOnlyIdleConnectionsAreEvicted has connections in all phases, of which a stop
// ends those that neither have a request nor the beginning of one.
func TestOnlyIdleConnectionsAreEvicted(t *testing.T) {
	leak.Check(t)
	running, proceed := make(chan struct{}), make(chan struct{})
	s := serveHTTP(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			running <- struct{}{}
			<-proceed
		}
		named("old").ServeHTTP(w, r)
	})})
	const getWait = "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
	fresh, idle, busy, torn, tornIdle := s.dial(), s.dial(), s.dial(), s.dial(), s.dial()
	idle.ask(t, getA)
	tornIdle.ask(t, getA)
	for _, c := range []keepAlive{torn, tornIdle} {
		_, err := io.WriteString(c, getA[:7])
		require.NoError(t, err)
	}
	_, err := io.WriteString(busy, getWait)
	require.NoError(t, err)
	<-running
	require.Eventually(t, func() bool {
		n := 0
		for _, c := range s.ln.conns.All() {
			if c.entry.State()&begun != 0 {
				n++
			}
		}
		return n == 3 && s.ln.conns.Len() == 5
	}, time.Minute, time.Millisecond)
	s.ln.evict(time.Now().Add(time.Hour))
	assert.EqualValues(t, 2, s.ln.evicted.Load())
	for _, c := range []keepAlive{fresh, idle} {
		_, err := c.br.ReadByte()
		assert.ErrorIs(t, err, io.EOF)
	}
	assert.Equal(t, "old GET /a ", torn.ask(t, getA[7:]))
	assert.Equal(t, "old GET /a ", tornIdle.ask(t, getA[7:]))
	close(proceed)
	assert.Equal(t, "old GET /wait ", busy.answer(t))
	s.await(track.Counts{track.Idle: 3})
	s.ln.evict(time.Now().Add(-time.Hour))
	assert.EqualValues(t, 2, s.ln.evicted.Load(), "the others not before their time")
	s.ln.evict(time.Now().Add(time.Hour))
	s.await(track.Counts{})
	assert.EqualValues(t, 5, s.ln.evicted.Load(), "now they are idle")
}

// TestEvictionIsNotLost interrupts for another reason at the same moment, once.
func TestEvictionIsNotLost(t *testing.T) {
	s := serveHTTP(t, &http.Server{Handler: hello, IdleTimeout: time.Hour})
	for range 500 {
		k := s.dial()
		s.await(track.Counts{track.New: 1})
		c := s.ln.conns.All()[0]
		interrupted := make(chan struct{})
		go func() {
			c.interrupt()
			close(interrupted)
		}()
		require.True(t, c.evict())
		<-interrupted
		require.NoError(t, k.SetReadDeadline(time.Now().Add(10*time.Second)))
		_, err := k.br.ReadByte()
		require.ErrorIs(t, err, io.EOF)
		s.await(track.Counts{})
	}
}

// TestInterruptionsDoNotReachHandlers pokes in a storm connections of a server whose
// handlers do what makes net/http read in the background and abort that: no
// request fails or hangs, no hijacked connection sees a deadline that nobody has
// set, and no context ends before its client does.
func TestInterruptionsDoNotReachHandlers(t *testing.T) {
	leak.Check(t)
	for _, timeouts := range []bool{false, true} {
		t.Run(fmt.Sprintf("timeouts: %v", timeouts), func(t *testing.T) {
			var gone atomic.Int32
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, err := io.ReadAll(r.Body); !assert.NoError(t, err) {
					return
				}
				switch r.URL.Path {
				case "/leave":
					<-r.Context().Done()
					gone.Add(1)
				case "/hijack":
					c, rw, err := http.NewResponseController(w).Hijack()
					if !assert.NoError(t, err) {
						return
					}
					defer c.Close()
					for {
						line, err := rw.ReadString('\n')
						if err != nil {
							assert.ErrorIs(t, err, io.EOF, "hijacked")
							return
						}
						_, _ = io.WriteString(c, line)
					}
				default:
					assert.NoError(t, r.Context().Err())
					fmt.Fprint(w, r.URL.Path)
				}
			})}
			if timeouts {
				srv.ReadTimeout, srv.ReadHeaderTimeout, srv.IdleTimeout = time.Hour, time.Minute, time.Hour
			}
			s := serveHTTP(t, srv)
			// A way that takes nothing: reads look at it, and stay.
			m := &mover{
				listeners: map[string]link.Adoptable{"test": {Name: "test", HTTP: true}}, places: s.ln.places,
				again: make(chan struct{}, 1), over: make(chan struct{}),
			}
			close(m.over)
			s.ln.mover.Store(m)
			done := make(chan struct{})
			var storm, clients sync.WaitGroup
			for i := range 2 {
				storm.Go(func() {
					tick := time.NewTicker(20 * time.Microsecond)
					defer tick.Stop()
					for {
						select {
						case <-done:
							return
						case <-tick.C:
						}
						for _, c := range s.ln.conns.All() {
							if i == 0 {
								c.interrupt()
							} else if m.places.TryAcquire() && !c.poke() {
								m.places.Release()
							}
						}
					}
				})
			}
			var left atomic.Int32
			for i := range 16 {
				clients.Go(func() {
					rng := rand.New(rand.NewPCG(2, uint64(i)))
					for range 15 {
						k := s.dial()
						for range rng.IntN(20) {
							if rng.IntN(2) == 0 {
								assert.Equal(t, "/a", k.ask(t, getA))
							} else {
								assert.Equal(t, "/b", k.ask(t, postB[:40], postB[40:]))
							}
						}
						switch rng.IntN(3) {
						case 0:
							_, err := io.WriteString(k, "GET /leave HTTP/1.1\r\nHost: x\r\n\r\n")
							assert.NoError(t, err)
							left.Add(1)
						case 1:
							_, err := io.WriteString(k, "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n")
							assert.NoError(t, err)
							for range 20 {
								_, err := io.WriteString(k, "line\n")
								assert.NoError(t, err)
								line, err := k.br.ReadString('\n')
								assert.NoError(t, err)
								assert.Equal(t, "line\n", line)
							}
						}
						assert.NoError(t, k.Close())
					}
				})
			}
			clients.Wait()
			assert.Eventually(t, func() bool { return gone.Load() == left.Load() }, time.Minute, time.Millisecond,
				"each handler sees its client leave")
			close(done)
			storm.Wait()
			s.await(track.Counts{})
			assert.Empty(t, s.ln.places, "every place is given back")
		})
	}
}

// TestAHandlerMayTimeItsReads sets deadlines for the body of a request while the
// connection is interrupted.
func TestAHandlerMayTimeItsReads(t *testing.T) {
	result := make(chan error, 1)
	s := serveHTTP(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if err := rc.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			result <- err
			return
		}
		_, err := io.ReadAll(r.Body)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			result <- fmt.Errorf("not the deadline: %w", err)
			return
		}
		result <- nil
	})})
	k := s.dial()
	_, err := io.WriteString(k, postB[:len(postB)-2])
	require.NoError(t, err)
	s.await(track.Counts{track.Active: 1})
	interruptions(t, s.ln.conns.All()[0])
	require.NoError(t, <-result)
}
