package upgrade

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/internal/gate"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/track"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

// generations are two generations of a service in one process: what moves, moves
// from old to next.
type generations struct {
	t         *testing.T
	old, next *served
	mover     *mover
	receiver  *transfer.Receiver
	running   sync.WaitGroup
}

// named answers with the name of its generation, the request's method and body.
func named(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client has left
		}
		fmt.Fprintf(w, "%s %s %s %s", name, r.Method, r.URL.Path, body)
	})
}

// succeed begins the drain of old, and opens the way to next.
func succeed(t *testing.T, old, next *served) *generations {
	t.Helper()
	g := &generations{t: t, old: old, next: next}
	u := &Upgrader{number: 2, listeners: []*Listener{next.ln}, log: slog.New(slog.DiscardHandler)}
	a, b, err := link.Pair()
	require.NoError(t, err)
	ours, err := link.New(a)
	require.NoError(t, err)
	theirs, err := link.New(b)
	require.NoError(t, err)
	g.receiver = transfer.Receive(theirs, adoptWorkers, u.adopt)
	buffer, err := verifyReads()
	require.NoError(t, err)
	g.mover = &mover{
		to: 2, sender: transfer.NewSender(ours), buffer: buffer, places: old.ln.places, log: u.log,
		listeners: map[string]link.Adoptable{}, again: make(chan struct{}, 1), over: make(chan struct{}),
	}
	for _, a := range u.adoptables() {
		g.mover.listeners[a.Name] = a
	}
	t.Cleanup(g.end)
	return g
}

// begin has connections move.
func (g *generations) begin() {
	g.old.ln.mover.Store(g.mover)
	g.running.Go(func() { g.mover.run([]*Listener{g.old.ln}) })
}

func (g *generations) end() {
	g.mover.end(errors.New("the test is over"))
	g.running.Wait()
	_ = g.receiver.Close()
	assert.Eventually(g.t, func() bool { return len(g.old.ln.places) == 0 }, time.Minute, time.Millisecond, "every place in transit is given back")
}

// ask sends a request, in pieces, and returns the answer.
func (c keepAlive) ask(t *testing.T, pieces ...string) string {
	t.Helper()
	for _, p := range pieces {
		_, err := io.WriteString(c, p)
		require.NoError(t, err)
	}
	return c.answer(t)
}

func (c keepAlive) answer(t *testing.T) string {
	t.Helper()
	r, err := http.ReadResponse(c.br, nil)
	require.NoError(t, err)
	body, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	assert.False(t, r.Close, "the connection stays open")
	return string(body)
}

const (
	getA  = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
	postB = "POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
)

func TestReadsOfNetHTTPAreAsKnown(t *testing.T) {
	buffer, err := verifyReads()
	require.NoError(t, err)
	assert.Equal(t, bufio.NewReader(nil).Size(), buffer)
}

func BenchmarkVerifyReads(b *testing.B) {
	for b.Loop() {
		if _, err := verifyReads(); err != nil {
			b.Fatal(err)
		}
	}
}

func TestIdleConnectionsMoveUnnoticed(t *testing.T) {
	old, next := serveHTTP(t, &http.Server{Handler: named("old")}), serveHTTP(t, &http.Server{Handler: named("next")})
	fresh, idle, posted := old.dial(), old.dial(), old.dial()
	assert.Equal(t, "old GET /a ", idle.ask(t, getA))
	assert.Equal(t, "old POST /b hello", posted.ask(t, postB))
	old.await(track.Counts{track.New: 1, track.Idle: 2})
	oldest := old.ln.conns.All()[0].entry.Accepted()

	g := succeed(t, old, next)
	ended := old.drain(t.Context(), time.Hour)
	g.begin()
	require.NoError(t, <-ended, "idle connections do not make a drain last")
	next.await(track.Counts{track.Idle: 3})
	assert.EqualValues(t, 3, old.ln.migrated.Load())
	_, since := next.ln.conns.Counts()
	assert.True(t, since.Equal(oldest), "they are as old as they are")
	for _, c := range []keepAlive{fresh, idle, posted} {
		assert.Equal(t, "next POST /b hello", c.ask(t, postB))
		assert.Equal(t, "next GET /a ", c.ask(t, getA))
	}
	next.await(track.Counts{track.Idle: 3})
	in, _ := next.ln.conns.All()[1].entry.Bytes()
	assert.Positive(t, in)

	// And on, to a third one, without a request in between for one of them.
	third := serveHTTP(t, &http.Server{Handler: named("third")})
	g = succeed(t, next, third)
	ended = next.drain(t.Context(), time.Hour)
	g.begin()
	require.NoError(t, <-ended)
	assert.Equal(t, "third GET /a ", fresh.ask(t, getA))
}

// TestARequestInTheMiddleStaysWhereItIs has connections in every state in which one
// must not move: they are answered by the old generation, without a word of the
// end, and move afterwards.
func TestARequestInTheMiddleStaysWhereItIs(t *testing.T) {
	proceed := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-proceed
		}
		named("old").ServeHTTP(w, r)
	})
	old, next := serveHTTP(t, &http.Server{Handler: handler}), serveHTTP(t, &http.Server{Handler: named("next")})
	const (
		fresh = iota
		warm  // after another request
		piped // together with another request
	)
	begun := func(how int, first string) keepAlive {
		c := old.dial()
		switch how {
		case warm:
			c.ask(t, getA)
		case piped:
			c.ask(t, getA+first)
			return c
		}
		_, err := io.WriteString(c, first)
		require.NoError(t, err)
		return c
	}
	type torn struct {
		keepAlive
		rest, answer string
	}
	var all []torn
	for _, how := range []int{fresh, warm, piped} {
		for _, whole := range []string{getA, postB} {
			answer := map[string]string{getA: "old GET /a ", postB: "old POST /b hello"}[whole]
			for cut := 1; cut < len(whole); cut++ {
				all = append(all, torn{begun(how, whole[:cut]), whole[cut:], answer})
			}
		}
	}
	running := begun(warm, strings.Replace(getA, "/a", "/wait", 1))
	several := begun(warm, strings.Replace(getA, "/a", "/wait", 1)+getA+postB[:9])
	require.Eventually(t, func() bool { // all first parts have been read
		in := int64(0)
		for _, c := range old.ln.conns.All() {
			n, _ := c.entry.Bytes()
			in += n
		}
		want := int64(0)
		for i, whole := range []string{getA, postB, getA, postB, getA, postB} {
			for cut := 1; cut < len(whole); cut++ {
				want += int64(cut)
				if i >= 2 {
					want += int64(len(getA))
				}
			}
		}
		want += 2*int64(len(getA)) + 2*int64(len(getA)+3) + int64(len(getA)+9)
		return in == want
	}, time.Minute, time.Millisecond)

	g := succeed(t, old, next)
	old.ln.expects.Store(&expectation{over: make(chan struct{})})
	ended := old.drain(t.Context(), time.Hour)
	g.begin()
	for _, c := range all {
		assert.Equal(t, c.answer, c.ask(t, c.rest))
		c.askUntilMoved(t)
	}
	close(proceed)
	assert.Equal(t, "old GET /wait ", running.answer(t))
	running.askUntilMoved(t)
	assert.Equal(t, "old GET /wait ", several.answer(t))
	assert.Equal(t, "old GET /a ", several.answer(t))
	assert.Equal(t, "old POST /b hello", several.ask(t, postB[9:]))
	several.askUntilMoved(t)
	require.NoError(t, <-ended)
}

// askUntilMoved asks until the next generation answers. It need not be at once:
// net/http looks for the end of the client while a handler runs, and the first
// byte of a request that comes so quickly upon an answer is caught by that.
func (c keepAlive) askUntilMoved(t *testing.T) {
	t.Helper()
	for range 1000 {
		answer := c.ask(t, getA)
		if answer == "next GET /a " {
			return
		}
		require.Equal(t, "old GET /a ", answer)
	}
	t.Fatal("it never moved")
}

// TestWhatIsWrittenMeanwhileTravelsAlong has clients send at every moment, while
// their connections move there and back and there.
func TestWhatIsWrittenMeanwhileTravelsAlong(t *testing.T) {
	servers := []*served{serveHTTP(t, &http.Server{Handler: named("0")})}
	var clients sync.WaitGroup
	var requests atomic.Int64
	done := make(chan struct{})
	for i := range 64 {
		c := servers[0].dial()
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(i)))
			for {
				select {
				case <-done:
					return
				default:
				}
				body := strings.Repeat("x", rng.IntN(6000))
				text := fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", i, len(body), body)
				n := 1 + rng.IntN(3)*rng.IntN(2)
				for range n { // sometimes pipelined
					for rest := text; rest != ""; {
						cut := len(rest)
						if rng.IntN(2) == 0 {
							cut = 1 + rng.IntN(len(rest))
						}
						if _, err := io.WriteString(c, rest[:cut]); !assert.NoError(t, err) {
							return
						}
						rest = rest[cut:]
					}
				}
				for range n {
					r, err := http.ReadResponse(c.br, nil)
					if !assert.NoError(t, err) {
						return
					}
					got, err := io.ReadAll(r.Body)
					if !assert.NoError(t, err) || !assert.False(t, r.Close) {
						return
					}
					_, rest, _ := strings.Cut(string(got), " ")
					if !assert.Equal(t, fmt.Sprintf("POST /%d %s", i, body), rest) {
						return
					}
					requests.Add(1)
				}
			}
		})
	}
	moved := int64(0)
	for i := range 20 {
		next := serveHTTP(t, &http.Server{Handler: named(fmt.Sprint(i + 1))})
		old := servers[i]
		before := requests.Load()
		require.Eventually(t, func() bool { return requests.Load() > before+100 }, time.Minute, time.Millisecond)
		g := succeed(t, old, next)
		old.ln.expects.Store(&expectation{over: make(chan struct{})})
		ended := old.drain(t.Context(), time.Hour)
		g.begin()
		require.NoError(t, <-ended)
		g.end()
		moved += old.ln.migrated.Load()
		servers = append(servers, next)
	}
	close(done)
	clients.Wait()
	assert.EqualValues(t, 20*64, moved)
	t.Logf("%d requests, %d connections moved", requests.Load(), moved)
}

// TestAnInheritedConnectionIsAnIdleOne gives the header timeout of the next
// generation the time to pass before the first request, which must not be timed
// from the arrival of the connection.
func TestAnInheritedConnectionIsAnIdleOne(t *testing.T) {
	const timeout = 100 * time.Millisecond
	old := serveHTTP(t, &http.Server{Handler: named("old")})
	next := serveHTTP(t, &http.Server{Handler: named("next"), ReadHeaderTimeout: timeout, ReadTimeout: timeout, IdleTimeout: time.Hour})
	slow, torn := old.dial(), old.dial()
	slow.ask(t, getA)
	torn.ask(t, getA)
	g := succeed(t, old, next)
	ended := old.drain(t.Context(), time.Hour)
	g.begin()
	require.NoError(t, <-ended)
	next.await(track.Counts{track.Idle: 2})
	fresh := next.dial() // one that was not inherited is closed after the timeout
	_, err := fresh.br.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	assert.Equal(t, "next POST /b hello", slow.ask(t, postB))

	// The first request itself has to come in time.
	_, err = io.WriteString(torn, getA[:9])
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, torn)
	require.NoError(t, err, "closed")
	assert.Equal(t, "next GET /a ", slow.ask(t, getA))
}

func TestIdleTimeoutOfAnInheritedConnection(t *testing.T) {
	old := serveHTTP(t, &http.Server{Handler: named("old")})
	next := serveHTTP(t, &http.Server{Handler: named("next"), ReadHeaderTimeout: time.Hour, IdleTimeout: 50 * time.Millisecond})
	c := old.dial()
	c.ask(t, getA)
	g := succeed(t, old, next)
	ended := old.drain(t.Context(), time.Hour)
	g.begin()
	require.NoError(t, <-ended)
	_, err := c.br.ReadByte()
	require.ErrorIs(t, err, io.EOF)
}

// TestSocketOptionsSurvive: net.FileConn sets those of a shared socket anew.
func TestSocketOptionsSurvive(t *testing.T) {
	options := []sockOption{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 0},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 77},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 33},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 5},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 12345},
	}
	get := func(c *Conn) (values []sockOption) {
		raw, err := c.SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) {
			for _, o := range options {
				v, err := unix.GetsockoptInt(int(fd), o.level, o.name)
				assert.NoError(t, err)
				values = append(values, sockOption{o.level, o.name, v})
			}
		}))
		return values
	}
	old := serveHTTP(t, &http.Server{Handler: named("old"), ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
		c, ok := ConnOf(nc)
		require.True(t, ok)
		raw, err := c.SyscallConn()
		require.NoError(t, err)
		require.NoError(t, raw.Control(func(fd uintptr) {
			for _, o := range options {
				assert.NoError(t, unix.SetsockoptInt(int(fd), o.level, o.name, o.value))
			}
		}))
		return ctx
	}})
	next := serveHTTP(t, &http.Server{Handler: named("next")})
	c := old.dial()
	c.ask(t, getA)
	require.Equal(t, options, get(old.ln.conns.All()[0]))
	g := succeed(t, old, next)
	ended := old.drain(t.Context(), time.Hour)
	g.begin()
	require.NoError(t, <-ended)
	c.ask(t, getA)
	assert.Equal(t, options, get(next.ln.conns.All()[0]))
}

// TestRefusedConnectionsAreToldWithTheirNextAnswer: a next generation that has no
// such listener.
func TestRefusedConnectionsAreToldWithTheirNextAnswer(t *testing.T) {
	old, next := serveHTTP(t, &http.Server{Handler: named("old")}), serveHTTP(t, &http.Server{Handler: named("next")})
	c := old.dial()
	c.ask(t, getA)
	g := succeed(t, old, next)
	g.receiver.Refuse(transfer.CodeListener, "not here")
	ended := old.drain(t.Context(), time.Hour)
	g.begin()
	require.Eventually(t, func() bool { return g.mover.staysForGood(old.ln.conns.All()[0]) }, time.Minute, time.Millisecond)
	_, err := io.WriteString(c, getA)
	require.NoError(t, err)
	r, err := http.ReadResponse(c.br, nil)
	require.NoError(t, err)
	body, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	assert.Equal(t, "old GET /a ", string(body))
	assert.True(t, r.Close, "announced")
	require.NoError(t, <-ended)
	assert.Zero(t, old.ln.migrated.Load())
}

// TestAReceiverThatDoesNotAcceptGetsAFew: no more than it has room for wait there
// for an Accept, and all others are answered where they are.
func TestAReceiverThatDoesNotAcceptGetsAFew(t *testing.T) {
	var answered atomic.Int64
	old := serveHTTP(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answered.Add(1)
		named("old").ServeHTTP(w, r)
	})})
	accept := make(chan struct{})
	next := listenOn(t, &lateServer{Server: HTTP(&http.Server{Handler: named("next")}), begin: accept})
	next.ln.served.Store(next.server.(*lateServer).Server.(*httpServer))
	var all []keepAlive
	for range 300 {
		c := old.dial()
		c.ask(t, getA)
		all = append(all, c)
	}
	g := succeed(t, old, next)
	old.ln.expects.Store(&expectation{over: make(chan struct{})})
	ended := old.drain(t.Context(), time.Hour)
	g.begin()
	require.Eventually(t, func() bool { return next.ln.conns.Len() == gate.MaxPushed }, time.Minute, time.Millisecond)
	for _, c := range all { // those that are not there are answered here
		_, err := io.WriteString(c, getA)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return answered.Load() == 300+300-gate.MaxPushed }, time.Minute, time.Millisecond)
	assert.Equal(t, gate.MaxPushed, next.ln.conns.Len())
	close(accept)
	for _, c := range all {
		c.answer(t)
	}
	require.NoError(t, <-ended)
}

// lateServer serves when it is told to.
type lateServer struct {
	Server
	begin chan struct{}
}

func (s *lateServer) Serve(ln net.Listener) error {
	<-s.begin
	return s.Server.Serve(ln)
}
