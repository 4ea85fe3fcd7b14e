package gate_test

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/gate"
)

// push pushes, and tries again while the gate is full. It returns false when the
// gate is shut.
func push(t *testing.T, g *gate.Listener, p *pushed) bool {
	for {
		switch err := g.Push(p); err {
		case nil:
			return true
		case gate.ErrFull:
			runtime.Gosched()
		default:
			assert.ErrorIs(t, err, net.ErrClosed)
			return false
		}
	}
}

// TestEveryConnectionArrivesOnceInAStorm has connections come from everywhere
// while the gate opens and closes.
func TestEveryConnectionArrivesOnceInAStorm(t *testing.T) {
	eachKind(t, func(t *testing.T, g *gate.Listener) {
		const acceptors, pushers, dialers, each = 3, 3, 3, 300
		all := make([]pushed, pushers*each)
		var dialed atomic.Int32
		var servers, clients sync.WaitGroup
		for range acceptors {
			servers.Go(func() {
				for {
					c, err := g.Accept()
					if err != nil {
						assert.ErrorIs(t, err, net.ErrClosed)
						return
					}
					if p, ok := c.(*pushed); ok {
						p.accepted.Add(1)
						continue
					}
					dialed.Add(1)
					_, _ = c.Write([]byte{1})
					c.Close()
				}
			})
		}
		for i := range pushers {
			clients.Go(func() {
				for j := range each {
					push(t, g, &all[i*each+j])
				}
			})
		}
		for range dialers {
			clients.Go(func() {
				for range each {
					c, err := net.Dial(g.Addr().Network(), g.Addr().String())
					if !assert.NoError(t, err) {
						return
					}
					var b [1]byte
					_, err = c.Read(b[:])
					assert.NoError(t, err)
					c.Close()
				}
			})
		}
		done := make(chan struct{})
		go func() { clients.Wait(); close(done) }()
		for turning := true; turning; {
			require.NoError(t, g.Open())
			select {
			case <-done:
				turning = false
			default:
				g.Pause()
			}
		}
		for i := range all { // the last ones may still be on their way out
			for all[i].accepted.Load() == 0 {
				runtime.Gosched()
			}
		}
		require.NoError(t, g.Close())
		servers.Wait()
		assert.EqualValues(t, dialers*each, dialed.Load())
		for i := range all {
			assert.EqualValues(t, 1, all[i].accepted.Load())
			assert.Zero(t, all[i].closed.Load())
		}
	})
}

// TestCloseInAStormOfPushes shuts the gate in the middle: each connection has
// come out of one Accept, or was closed, or was refused.
func TestCloseInAStormOfPushes(t *testing.T) {
	for kind, make := range kinds {
		t.Run(kind, func(t *testing.T) {
			leak.Check(t)
			for round := range 50 {
				g := make(t)
				if round%2 == 0 {
					require.NoError(t, g.Open())
				}
				const pushers, each = 3, 100
				var all, refused [pushers * each]pushed
				var wg sync.WaitGroup
				for range 2 {
					wg.Go(func() {
						for {
							c, err := g.Accept()
							if err != nil {
								assert.ErrorIs(t, err, net.ErrClosed)
								return
							}
							c.(*pushed).accepted.Add(1)
						}
					})
				}
				middle := sync.OnceFunc(func() { wg.Go(func() { assert.NoError(t, g.Close()) }) })
				for i := range pushers {
					wg.Go(func() {
						for j := range each {
							if j == each/2 {
								middle()
							}
							if k := i*each + j; !push(t, g, &all[k]) {
								refused[k].closed.Add(1)
							}
						}
					})
				}
				wg.Wait()
				for i := range all {
					p := &all[i]
					assert.EqualValues(t, 1, p.accepted.Load()+p.closed.Load()+refused[i].closed.Load())
				}
			}
		})
	}
}
