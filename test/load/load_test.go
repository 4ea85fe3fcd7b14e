package load_test

import (
	"context"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/load"
)

// brisk is some of each kind, in a hurry.
func brisk() load.Options {
	return load.Options{
		New:          load.Traffic{Conns: 2, Rate: 200},
		Arrivals:     100,
		KeepAlive:    load.Traffic{Conns: 8, Rate: 400},
		Pool:         load.Traffic{Conns: 20, Rate: 100},
		Spare:        4,
		Torn:         load.Traffic{Conns: 4, Rate: 100},
		ByteByByte:   load.Traffic{Conns: 2, Rate: 50},
		Pipelined:    load.Traffic{Conns: 2, Rate: 200},
		Slow:         load.Traffic{Conns: 2, Rate: 50},
		Idle:         4,
		Download:     load.Traffic{Conns: 1, Rate: 20},
		Stream:       1,
		WebSocket:    load.Traffic{Conns: 1, Rate: 50},
		SpareTime:    50 * time.Millisecond,
		SlowTime:     20 * time.Millisecond,
		DownloadSize: 100_000,
		ProbeIdle:    true,
	}
}

func TestGoodServer(t *testing.T) {
	var dials atomic.Int64
	tests := []struct {
		name    string
		network string
		adapt   func(o *load.Options)
	}{
		{name: "tcp", network: "tcp"},
		{name: "unix", network: "unix"},
		{
			name: "own dialer", network: "tcp",
			adapt: func(o *load.Options) {
				network, address := o.Network, o.Address
				o.Network, o.Address = "", ""
				o.Dial = func(ctx context.Context) (net.Conn, error) {
					dials.Add(1)
					return new(net.Dialer).DialContext(ctx, network, address)
				}
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var ln net.Listener
			if tt.network == "unix" {
				var err error
				ln, err = net.Listen("unix", filepath.Join(t.TempDir(), "s"))
				require.NoError(t, err)
			} else {
				ln = listen(t)
			}
			serve(t, ln, good())
			o := brisk()
			o.Network, o.Address = tt.network, ln.Addr().String()
			if tt.adapt != nil {
				tt.adapt(&o)
			}

			l := load.Start(t.Context(), o)
			require.NoError(t, l.Wait(t.Context(), func(r load.Report) bool {
				for k, c := range r.ByKind {
					// The one WebSocket is answered at the end.
					if k == load.WebSocket && c.Messages < 2 || k != load.WebSocket && c.Responses < 2 {
						return false
					}
				}
				return r.Total().Responses >= 200 && r.ByKind[load.Idle].Responses == 4
			}))
			require.NoError(t, l.WaitAnswered(t.Context(), 7, 10))
			r := l.Stop()

			require.NoError(t, r.Err(), "%s", r)
			for kind, c := range r.ByKind {
				assert.Equal(t, c.Requests, c.Responses, kind)
				assert.Zero(t, c.Failed, kind)
				assert.Zero(t, c.Aborted, kind)
				assert.Zero(t, c.Closed, kind)
				assert.Positive(t, c.LongestWait, kind)
			}
			assert.Len(t, r.ByKind, len(load.Kinds()))
			assert.Equal(t, r.ByKind[load.New].Requests, r.ByKind[load.New].Dials)
			assert.Equal(t, r.ByKind[load.Arrivals].Requests, r.ByKind[load.Arrivals].Dials)
			assert.Len(t, r.Arrivals, r.ByKind[load.Arrivals].Requests)
			assert.Equal(t, 8, r.ByKind[load.KeepAlive].Dials, "kept connections are kept")
			assert.LessOrEqual(t, r.ByKind[load.Pool].Dials, 20)
			assert.Zero(t, r.ClosedByServer())
			assert.Equal(t, 4, r.ByKind[load.Idle].Dials)
			assert.Equal(t, 8, r.ByKind[load.Idle].Requests, "one each, and the probe")
			assert.Positive(t, r.ByKind[load.Stream].Announced, "goodbyes")
			assert.Equal(t, []int{7}, r.Generations())
			assert.Equal(t, r.Total().Responses, r.Answered(7))
			assert.Equal(t, r, l.Stop(), "the second Stop reports the same")
			t.Logf("\n%s", r)
		})
	}
	assert.Positive(t, dials.Load())
}

func TestLimits(t *testing.T) {
	ln := listen(t)
	serve(t, ln, good())
	o := load.Options{Network: "tcp", Address: ln.Addr().String(), New: load.Traffic{Conns: 3, Rate: 1000}}

	t.Run("requests", func(t *testing.T) {
		o := o
		o.MaxRequests = 25
		l := load.Start(t.Context(), o)
		<-l.Done()
		r := l.Report()
		require.NoError(t, r.Err())
		assert.Equal(t, 25, r.Total().Responses)
	})
	t.Run("duration", func(t *testing.T) {
		o := o
		o.Duration = time.Millisecond
		l := load.Start(t.Context(), o)
		<-l.Done()
		assert.ErrorIs(t, l.Wait(t.Context(), func(load.Report) bool { return false }), load.ErrEnded)
	})
	t.Run("context", func(t *testing.T) {
		o := o
		o.New = load.Traffic{}
		o.Slow, o.SlowTime = load.Traffic{Conns: 4, Rate: 1000}, time.Hour
		o.Stream, o.WebSocket = 1, load.Traffic{Conns: 1, Rate: 50}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		l := load.Start(ctx, o)
		require.NoError(t, l.Wait(t.Context(), func(r load.Report) bool {
			return r.ByKind[load.Slow].Requests == 4 && r.ByKind[load.WebSocket].Messages > 1
		}))
		cancel()
		<-l.Done()
		r := l.Report()
		require.NoError(t, r.Err())
		assert.Equal(t, 4, r.ByKind[load.Slow].Aborted, "neither answered nor failed")
		assert.Equal(t, r.Total().Requests, r.Total().Responses+r.Total().Aborted)
	})
	t.Run("waiter gives up", func(t *testing.T) {
		l := load.Start(t.Context(), o)
		defer l.Stop()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		assert.ErrorIs(t, l.Wait(ctx, func(load.Report) bool { return false }), context.Canceled)
	})
}

func TestNothingIsNotSuccess(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := load.Start(ctx, load.Options{Network: "tcp", Address: "127.0.0.1:1", Idle: 1})
	assert.ErrorContains(t, l.Stop().Err(), "no request was made")
}

func TestDefaultIsTheMix(t *testing.T) {
	ln := listen(t)
	serve(t, ln, good())
	l := load.Start(t.Context(), load.Options{Network: "tcp", Address: ln.Addr().String(), MaxRequests: 50})
	<-l.Done()
	r := l.Stop()
	require.NoError(t, r.Err())
	for _, k := range []load.Kind{load.New, load.KeepAlive, load.Slow, load.Idle, load.Download, load.Stream, load.WebSocket} {
		assert.Contains(t, r.ByKind, k)
	}
	assert.Len(t, r.ByKind, 7)
}
