package upgrade

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/track"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

// counter is a protocol with a session: each line is answered by the name of the
// generation and the number of lines so far. Lines are read byte by byte, so that
// nothing is ever buffered.
type counter struct {
	name     string
	draining atomic.Int32 // how often Await said ErrDraining
	errs     chan error   // of Handoff, nil included
}

func newCounter(name string) *counter { return &counter{name: name, errs: make(chan error, 1000)} }

func (s *counter) serve(ctx context.Context, c *Conn) {
	n, _ := c.Session().(int)
	for {
		err := c.Await(ctx)
		if errors.Is(err, ErrDraining) {
			s.draining.Add(1)
			err = c.Handoff(ctx, Session{Version: 1, Data: []byte(strconv.Itoa(n))})
			s.errs <- err
			if err == nil {
				return
			}
			continue
		}
		if err != nil {
			return
		}
		line, err := readLine(c)
		if err != nil {
			return
		}
		n++
		fmt.Fprintf(c, "%s %d %s\n", s.name, n, line)
	}
}

func readLine(r io.Reader) (string, error) {
	var line strings.Builder
	for {
		var b [1]byte
		if _, err := r.Read(b[:]); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return line.String(), nil
		}
		line.WriteByte(b[0])
	}
}

// decodeCount is the decoder of a counter's session.
func decodeCount(s Session) (any, error) {
	if s.Version != 1 {
		return nil, fmt.Errorf("version %d", s.Version)
	}
	return strconv.Atoi(string(s.Data))
}

func serveCounter(t *testing.T, s *counter) *served {
	t.Helper()
	v := listenOn(t, TCP(s.serve))
	v.ln.Adopt(decodeCount)
	return v
}

// say sends a line and returns the answer.
func (c keepAlive) say(t *testing.T, line string) string {
	t.Helper()
	_, err := fmt.Fprintln(c, line)
	require.NoError(t, err)
	return c.hear(t)
}

func (c keepAlive) hear(t *testing.T) string {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	answer, err := c.br.ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSuffix(answer, "\n")
}

func TestAwait(t *testing.T) {
	leak.Check(t)
	why := errors.New("why")
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, c *Conn, k keepAlive, cancel context.CancelCauseFunc)
		want error
	}{
		{"data", func(t *testing.T, _ *Conn, k keepAlive, _ context.CancelCauseFunc) {
			_, err := io.WriteString(k, "x")
			require.NoError(t, err)
		}, nil},
		{"end of the stream", func(t *testing.T, _ *Conn, k keepAlive, _ context.CancelCauseFunc) {
			require.NoError(t, k.Conn.(*net.TCPConn).CloseWrite())
		}, nil},
		{"context", func(_ *testing.T, _ *Conn, _ keepAlive, cancel context.CancelCauseFunc) { cancel(why) }, why},
		{"deadline", func(t *testing.T, c *Conn, _ keepAlive, _ context.CancelCauseFunc) {
			require.NoError(t, c.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		}, os.ErrDeadlineExceeded},
		{"deadline in the past", func(t *testing.T, c *Conn, _ keepAlive, _ context.CancelCauseFunc) {
			require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
		}, os.ErrDeadlineExceeded},
		{"closed", func(t *testing.T, c *Conn, _ keepAlive, _ context.CancelCauseFunc) { require.NoError(t, c.Close()) }, net.ErrClosed},
	} {
		for _, order := range []string{"before", "while it waits", "while it is interrupted"} {
			t.Run(tt.name+" "+order, func(t *testing.T) {
				_, c, k := accepted(t)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				got := make(chan error, 1)
				if order == "before" {
					tt.do(t, c, k, cancel)
				}
				go func() { got <- c.Await(ctx) }()
				if order != "before" {
					require.Eventually(t, func() bool { return c.entry.State()&awaiting != 0 }, time.Minute, time.Millisecond)
					if order != "while it waits" {
						interruptions(t, c)
					}
					tt.do(t, c, k, cancel)
				}
				require.ErrorIs(t, <-got, tt.want)
				assert.Zero(t, c.entry.State()&awaiting)
				if tt.want == why { // nothing of it is left
					_, err := io.WriteString(k, "y")
					require.NoError(t, err)
					require.NoError(t, c.Await(t.Context()))
				}
				if tt.name == "data" {
					var b [2]byte
					n, err := c.Read(b[:])
					require.NoError(t, err)
					assert.Equal(t, "x", string(b[:n]), "it was not consumed")
				}
			})
		}
	}
}

// TestAwaitDoesNotHideAReset: the end of the stream that a client has sent, and one
// that it has not, are different things.
func TestAwaitDoesNotHideAReset(t *testing.T) {
	_, c, k := accepted(t)
	require.NoError(t, k.Conn.(*net.TCPConn).SetLinger(0))
	require.NoError(t, k.Close())
	err := c.Await(t.Context())
	if err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	require.Error(t, err)
	assert.NotErrorIs(t, err, io.EOF)
}

// TestACopyAfterAwait: the cause for which an Await might have ended, and did not,
// is nothing that a copy sees.
func TestACopyAfterAwait(t *testing.T) {
	for range 50 {
		_, c, k := accepted(t)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := io.WriteString(k, "0123456789")
		require.NoError(t, err)
		require.NoError(t, k.Conn.(*net.TCPConn).CloseWrite())
		go cancel()
		if err := c.Await(ctx); err != nil {
			require.ErrorIs(t, err, context.Canceled)
		}
		var all bytes.Buffer
		_, err = io.Copy(&all, c)
		require.NoError(t, err)
		assert.Equal(t, "0123456789", all.String())
	}
}

// TestASessionMovesOn: idle ones at once, and one that has just sent something with
// what it has sent.
func TestASessionMovesOn(t *testing.T) {
	leak.Check(t)
	old, next := newCounter("old"), newCounter("next")
	a, b := serveCounter(t, old), serveCounter(t, next)
	idle, fresh := a.dial(), a.dial()
	assert.Equal(t, "old 1 x", idle.say(t, "x"))
	a.await(track.Counts{track.Stream: 2})
	a.ln.conns.All()[0].SetLabel("the first")
	g := succeed(t, a, b)
	g.begin()
	require.NoError(t, <-old.errs)
	require.NoError(t, <-old.errs)
	a.await(track.Counts{})
	b.await(track.Counts{track.Stream: 2})
	assert.EqualValues(t, 2, a.ln.migrated.Load())
	assert.EqualValues(t, 2, b.ln.adopted.Load())
	labels, in := "", int64(0)
	for _, c := range b.ln.conns.All() {
		labels += c.entry.Label()
		n, _ := c.entry.Bytes()
		in += n
	}
	assert.Equal(t, "the first", labels)
	assert.EqualValues(t, 2, in)
	assert.Equal(t, "next 2 y", idle.say(t, "y"))
	assert.Equal(t, "next 1 y", fresh.say(t, "y"))
}

// TestWhatWasSentTravelsWithTheSession: the handler hands over without reading what
// has come.
func TestWhatWasSentTravelsWithTheSession(t *testing.T) {
	old := make(chan *Conn)
	handed := make(chan error, 1)
	a := listenOn(t, TCP(func(ctx context.Context, c *Conn) {
		old <- c
		handed <- c.Handoff(ctx, Session{Version: 1, Data: []byte("41")})
	}))
	b := serveCounter(t, newCounter("next"))
	k := a.dial()
	_, err := io.WriteString(k, "one\ntw")
	require.NoError(t, err)
	g := succeed(t, a, b)
	a.ln.mover.Store(g.mover)
	<-old
	require.NoError(t, <-handed)
	assert.Equal(t, "next 42 one", k.hear(t))
	assert.Equal(t, "next 43 two", k.say(t, "o"))
}

// TestFiveHundredHandoffsOfOneSession hands one session to and fro.
func TestFiveHundredHandoffsOfOneSession(t *testing.T) {
	sides := []*counter{newCounter("a"), newCounter("b")}
	servers := []*served{serveCounter(t, sides[0]), serveCounter(t, sides[1])}
	k := servers[0].dial()
	for i := range 500 {
		from, to := i%2, (i+1)%2
		line := strconv.Itoa(i)
		assert.Equal(t, fmt.Sprintf("%s %d %s", sides[from].name, i+1, line), k.say(t, line))
		g := succeed(t, servers[from], servers[to])
		g.begin()
		require.NoError(t, <-sides[from].errs, "handoff %d", i)
		g.end()
	}
	assert.Equal(t, "a 501 end", k.say(t, "end"))
	servers[0].await(track.Counts{track.Stream: 1})
	servers[1].await(track.Counts{})
}

func TestSizesOfSessions(t *testing.T) {
	leak.Check(t)
	for _, size := range []int{0, 1, inlineSession, inlineSession + 1, 1 << 20, maxSession} {
		t.Run(strconv.Itoa(size), func(t *testing.T) {
			data := bytes.Repeat([]byte("0123456789abcde"), size/15+1)[:size]
			handed := make(chan error, 1)
			a := listenOn(t, TCP(func(ctx context.Context, c *Conn) {
				if c.Await(ctx) == ErrDraining {
					handed <- c.Handoff(ctx, Session{Version: 7, Data: data})
				}
			}))
			arrived := make(chan Session, 1)
			b := listenOn(t, TCP(func(_ context.Context, c *Conn) {
				arrived <- c.Session().(Session)
				_, _ = c.Read(make([]byte, 1))
			}))
			b.ln.Adopt(func(s Session) (any, error) { return s, nil })
			a.dial()
			a.await(track.Counts{track.Stream: 1})
			succeed(t, a, b).begin()
			require.NoError(t, <-handed)
			s := <-arrived
			assert.Equal(t, 7, s.Version)
			assert.True(t, bytes.Equal(data, s.Data))
		})
	}
}

// TestARefusedSessionIsServedOn: whatever the reason for which the session does not
// move, it goes on where it is, and Await does not say for ever that it should move.
func TestARefusedSessionIsServedOn(t *testing.T) {
	leak.Check(t)
	for _, tt := range []struct {
		name    string
		decode  func(Session) (any, error)
		session Session
		want    string
		refused bool
	}{
		{"error", func(Session) (any, error) { return nil, errors.New("cannot read this") }, Session{}, "cannot read this", true},
		{"panic", func(Session) (any, error) { panic("no such field") }, Session{}, "no such field", true},
		{"no session", func(Session) (any, error) { return nil, nil }, Session{}, "no session", true},
		{"too large", decodeCount, Session{Data: make([]byte, maxSession+1)}, "at most", false},
		{"negative version", decodeCount, Session{Version: -1}, "not negative", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			errs := make(chan error, 1000)
			a := listenOn(t, TCP(func(ctx context.Context, c *Conn) {
				for {
					err := c.Await(ctx)
					if errors.Is(err, ErrDraining) {
						select {
						case errs <- c.Handoff(ctx, tt.session):
						default:
							return // it spins
						}
						continue
					}
					line, err := readLine(c)
					if err != nil {
						return
					}
					fmt.Fprintln(c, "old", line)
				}
			}))
			b := listenOn(t, TCP(func(context.Context, *Conn) { t.Error("it has moved") }))
			b.ln.Adopt(tt.decode)
			k := a.dial()
			a.await(track.Counts{track.Stream: 1})
			g := succeed(t, a, b)
			g.begin()
			err := <-errs
			require.ErrorContains(t, err, tt.want)
			assert.Equal(t, tt.refused, errors.Is(err, ErrRefused))
			for range 20 {
				assert.Equal(t, "old x", k.say(t, "x"))
				g.mover.wake()
			}
			assert.Zero(t, len(errs), "once is enough")
			assert.Empty(t, a.ln.places)

			// A yet newer generation is asked again.
			g.end()
			arrived := make(chan struct{})
			third := listenOn(t, TCP(func(_ context.Context, c *Conn) {
				close(arrived)
				_, _ = c.Read(make([]byte, 1))
			}))
			third.ln.Adopt(func(s Session) (any, error) { return s, nil })
			if !tt.refused {
				return
			}
			succeed(t, a, third).begin()
			require.NoError(t, <-errs)
			<-arrived
		})
	}
}

// TestSessionsWaitForRoom: a next generation that does not accept for a while has
// room for some, and takes the others later.
func TestSessionsWaitForRoom(t *testing.T) {
	old, next := newCounter("old"), newCounter("next")
	a := serveCounter(t, old)
	accept := make(chan struct{})
	b := listenOn(t, &lateServer{Server: TCP(next.serve), begin: accept})
	b.ln.Adopt(decodeCount)
	var all []keepAlive
	for range 200 {
		c := a.dial()
		assert.Equal(t, "old 1 x", c.say(t, "x"))
		all = append(all, c)
	}
	succeed(t, a, b).begin()
	for { // until one is refused for want of room
		if err := <-old.errs; err != nil {
			require.ErrorIs(t, err, ErrRefused)
			refused, ok := errors.AsType[*transfer.Refused](err)
			require.True(t, ok)
			require.Equal(t, transfer.CodeBusy, refused.Code)
			break
		}
	}
	close(accept)
	a.await(track.Counts{})
	b.await(track.Counts{track.Stream: 200})
	for _, c := range all {
		assert.Equal(t, "next 2 x", c.say(t, "x"))
	}
}

// TestHandoffWhileTheWayOpens: a handler that learns of the drain in another way may
// be early.
func TestHandoffWhileTheWayOpens(t *testing.T) {
	handoff := make(chan context.Context)
	handed := make(chan error)
	a := listenOn(t, TCP(func(_ context.Context, c *Conn) {
		for ctx := range handoff {
			err := c.Handoff(ctx, Session{Version: 1, Data: []byte("6")})
			handed <- err
			if err == nil {
				return
			}
		}
	}))
	b := serveCounter(t, newCounter("next"))
	k := a.dial()
	handoff <- t.Context()
	require.ErrorIs(t, <-handed, ErrNotDraining, "nobody drains")

	e := &expectation{over: make(chan struct{})}
	a.ln.expects.Store(e)
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	handoff <- ctx
	cancel(why)
	require.ErrorIs(t, <-handed, why)

	handoff <- t.Context()
	g := succeed(t, a, b)
	a.ln.mover.Store(g.mover)
	require.True(t, e.end())
	require.NoError(t, <-handed)
	assert.Equal(t, "next 7 x", k.say(t, "x"))
	close(handoff)
}

// TestHandoffWhereTheWayDoesNotOpen: the successor is an old one, or takes no
// sessions, or is gone.
func TestHandoffWhereTheWayDoesNotOpen(t *testing.T) {
	_, c, _ := accepted(t)
	l := c.listener()
	e := &expectation{over: make(chan struct{})}
	l.expects.Store(e)
	e.end()
	require.ErrorIs(t, c.Handoff(t.Context(), Session{}), ErrNotDraining)
	m := &mover{places: l.places, again: make(chan struct{}, 1), over: make(chan struct{})}
	l.mover.Store(m)
	require.ErrorIs(t, c.Handoff(t.Context(), Session{}), ErrNotDraining, "takes no sessions")
	m = &mover{
		listeners: map[string]link.Adoptable{"test": {Name: "test", Sessions: true}},
		places:    l.places, again: make(chan struct{}, 1), over: make(chan struct{}),
	}
	close(m.over)
	l.mover.Store(m)
	require.ErrorIs(t, c.Handoff(t.Context(), Session{}), ErrNotDraining, "over")
	assert.Empty(t, l.places)
}

// TestAHijackedConnectionMovesOn hands a connection that was upgraded to another
// protocol to the handler for sessions of the next generation's HTTP server.
func TestAHijackedConnectionMovesOn(t *testing.T) {
	leak.Check(t)
	serve := func(s *counter) *served {
		v := listenOn(t, HTTP(&http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, rw, err := http.NewResponseController(w).Hijack()
			if !assert.NoError(t, err) {
				return
			}
			defer c.Close()
			assert.Zero(t, rw.Reader.Buffered())
			conn, ok := ConnOf(c)
			if !assert.True(t, ok) {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: counter\r\n\r\n")
			s.serve(context.Background(), conn)
		})}, Sessions(s.serve)))
		v.ln.Adopt(decodeCount)
		return v
	}
	old, next := newCounter("old"), newCounter("next")
	a, b := serve(old), serve(next)
	k := a.dial()
	_, err := io.WriteString(k, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: counter\r\n\r\n")
	require.NoError(t, err)
	r, err := http.ReadResponse(k.br, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, r.StatusCode)
	assert.Equal(t, "old 1 x", k.say(t, "x"))
	a.await(track.Counts{track.Hijacked: 1})
	g := succeed(t, a, b)
	ended := a.drain(t.Context(), time.Hour)
	g.begin()
	require.NoError(t, <-old.errs)
	require.NoError(t, <-ended)
	assert.Equal(t, "next 2 x", k.say(t, "x"))
	b.await(track.Counts{track.Stream: 1})
	assert.Equal(t, "next 3 x", k.say(t, "x"))

	third := serve(newCounter("third"))
	g = succeed(t, b, third)
	ended = b.drain(t.Context(), time.Hour)
	g.begin()
	require.NoError(t, <-ended)
	assert.Equal(t, "third 4 x", k.say(t, "x"))
}

// TestAnAwaitThatIsAnsweredGivesItsPlaceBack: of those that are told to move, some
// have just been sent something. While they work on it others move.
func TestAnAwaitThatIsAnsweredGivesItsPlaceBack(t *testing.T) {
	_, c, k := accepted(t)
	l := c.listener()
	m := &mover{
		listeners: map[string]link.Adoptable{"test": {Name: "test", Sessions: true}},
		places:    l.places, again: make(chan struct{}, 1), over: make(chan struct{}),
	}
	close(m.over) // so that Await stays
	l.mover.Store(m)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(10 * time.Microsecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if m.places.TryAcquire() && !c.poke() {
				m.places.Release()
			}
		}
	}()
	for range 3000 {
		_, err := io.WriteString(k, "x")
		require.NoError(t, err)
		require.NoError(t, c.Await(t.Context()))
		if !assert.Zero(t, c.entry.State()&(awaiting|poked), "neither waits nor moves") {
			break
		}
		_, err = c.Read(make([]byte, 1))
		require.NoError(t, err)
	}
	close(done)
	<-ended
}
