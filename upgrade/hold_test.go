package upgrade

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/track"
)

// TestAnHTTPDrainIsTakenBack: while it lasts answers announce the end, and
// afterwards they do not, also when the drain had found nothing to wait for.
func TestAnHTTPDrainIsTakenBack(t *testing.T) {
	leak.Check(t)
	for _, empty := range []bool{false, true} {
		t.Run(fmt.Sprintf("empty: %v", empty), func(t *testing.T) {
			s := serveHTTP(t, &http.Server{Handler: hello})
			for range 3 {
				var told, stays keepAlive
				if !empty {
					told, stays = s.dial(), s.dial()
					told.get(t)
					stays.get(t)
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				ended := s.drain(ctx, time.Hour)
				if empty {
					require.NoError(t, <-ended)
				} else {
					require.Eventually(t, func() bool { return isDraining(s.server) }, time.Minute, time.Millisecond)
					assert.True(t, told.get(t).Close, "held")
				}
				cancel(ErrReopened)
				if !empty {
					require.ErrorIs(t, <-ended, ErrReopened)
				}
				require.Eventually(t, func() bool { return !isDraining(s.server) }, time.Minute, time.Millisecond)
				require.NoError(t, s.ln.open())
				if !empty {
					assert.False(t, stays.get(t).Close, "open again")
					require.NoError(t, stays.Close())
				}
				fresh := s.dial()
				assert.False(t, fresh.get(t).Close)
				require.NoError(t, fresh.Close())
				s.await(track.Counts{})
			}
		})
	}
}

// TestADrainUponOneThatWasTakenBack begins at the same moment as that is taken back,
// and is not taken back with it.
func TestADrainUponOneThatWasTakenBack(t *testing.T) {
	s := serveHTTP(t, &http.Server{Handler: hello})
	s.dial().get(t)
	state := &s.server.(*httpServer).draining
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := s.drain(ctx, time.Hour)
	require.Eventually(t, func() bool { return state.Load() != nil }, time.Minute, time.Millisecond)
	for range 300 {
		before := state.Load()
		nextCtx, nextCancel := context.WithCancelCause(t.Context())
		cancel(ErrReopened)
		nextEnded := s.drain(nextCtx, time.Hour)
		require.ErrorIs(t, <-ended, ErrReopened)
		require.Eventually(t, func() bool { now := state.Load(); return now != nil && now != before }, time.Minute, 10*time.Microsecond)
		ended, cancel = nextEnded, nextCancel
	}
	cancel(ErrReopened)
	require.ErrorIs(t, <-ended, ErrReopened)
	require.Eventually(t, func() bool { return state.Load() == nil }, time.Minute, time.Millisecond)
}

// TestAHoldDoesNotCancelHandlers: neither those of TCP nor those of HTTP.
func TestAHoldDoesNotCancelHandlers(t *testing.T) {
	proceed := make(chan struct{})
	web := serveHTTP(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-proceed
		fmt.Fprintf(w, "%v", context.Cause(r.Context()))
	})})
	raw := listenOn(t, TCP(func(ctx context.Context, c *Conn) {
		lines := bufio.NewScanner(c)
		for lines.Scan() {
			fmt.Fprintln(c, context.Cause(ctx))
		}
	}))
	k, r := web.dial(), raw.dial()
	_, err := k.Write([]byte(getA))
	require.NoError(t, err)
	web.await(track.Counts{track.Active: 1})
	assert.Equal(t, "<nil>", r.say(t, "x"))
	ctx, cancel := context.WithCancelCause(t.Context())
	webEnded, rawEnded := web.drain(ctx, time.Hour), raw.drain(ctx, time.Hour)
	assert.Equal(t, "<nil>", r.say(t, "x"))
	cancel(ErrReopened)
	require.ErrorIs(t, <-webEnded, ErrReopened)
	require.ErrorIs(t, <-rawEnded, ErrReopened)
	assert.Equal(t, "<nil>", r.say(t, "x"))
	close(proceed)
	assert.Equal(t, "<nil>", k.answer(t))
}

// TestDrainingIsClosedAndNew: who asks for it while the door is closed gets one that
// is closed, and a new one when it is open again.
func TestDrainingIsClosedAndNew(t *testing.T) {
	s := listenOn(t, TCP(func(_ context.Context, c *Conn) { _, _ = c.Read(make([]byte, 1)) }))
	s.dial()
	s.await(track.Counts{track.Stream: 1})
	u := listing(t, 1, s.ln)
	u.draining, u.events = make(chan struct{}), newEventLog()
	u.systemd = newSystemd("", u.log)
	defer func() {
		u.systemd.do(nil)
		<-u.systemd.done
	}()
	u.servers = []serving{{listener: s.ln, server: s.server}}
	for range 3 {
		open := u.Draining()
		require.False(t, closedNow(open))
		u.hold = &control.Hold{Since: time.Now()}
		u.holdDrain()
		assert.True(t, closedNow(open))
		assert.True(t, closedNow(u.Draining()))
		u.endHold()
		assert.False(t, closedNow(u.Draining()))
		assert.True(t, closedNow(open), "and that one stays closed")
		u.wg.Wait() // the drain has ended
		assert.Equal(t, 1, s.ln.conns.Len(), "nobody was cut")
	}
}

func closedNow(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
