package upgrade

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/track"
)

// listing is an Upgrader that does nothing but list.
func listing(t *testing.T, number int, listeners ...*Listener) *Upgrader {
	t.Helper()
	u := &Upgrader{
		number: number, pid: os.Getpid(), listeners: listeners, peers: make(map[int]*peer), box: newMailbox(),
		log: slog.New(slog.DiscardHandler), ctx: context.Background(), ending: make(chan struct{}),
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		u.box.close()
		<-done
		u.wg.Wait()
	})
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	go func() { // the driver
		defer close(done)
		for {
			select {
			case <-u.box.wake:
				for _, f := range u.box.take() {
					f()
				}
			case <-over:
				return
			}
		}
	}()
	return u
}

// drainer makes a generation that drains known to u; answer gets what it is asked.
func (u *Upgrader) drainer(t *testing.T, number int, answer func(m link.List, pipe *os.File)) {
	t.Helper()
	a, b, err := link.Pair()
	require.NoError(t, err)
	ours, err := link.New(a)
	require.NoError(t, err)
	theirs, err := link.New(b)
	require.NoError(t, err)
	u.peers[number] = &peer{number: number, conn: ours}
	u.state.Drainers = append(u.state.Drainers, number)
	done := make(chan struct{})
	t.Cleanup(func() {
		assert.NoError(t, ours.Close())
		<-done
		_ = theirs.Close()
	})
	go func() {
		defer close(done)
		for {
			m, files, err := theirs.Receive()
			if err != nil {
				return
			}
			if l, ok := m.(link.List); ok && assert.Len(t, files, 1) {
				answer(l, files[0])
			}
		}
	}()
}

// list asks for all connections that f selects.
func (u *Upgrader) list(t *testing.T, f control.ConnFilter) ([]control.Conn, *control.ConnsEnd) {
	t.Helper()
	var conns []control.Conn
	end, err := backend{u}.Conns(t.Context(), f, func(lines []byte) error {
		for line := range bytes.Lines(lines) {
			var l struct{ Conn *control.Conn }
			if err := json.Unmarshal(line, &l); err != nil || l.Conn == nil {
				return fmt.Errorf("line %q: %w", line, err)
			}
			conns = append(conns, *l.Conn)
		}
		return nil
	})
	require.NoError(t, err)
	return conns, end
}

// TestTheListIsWhatClientsDid compares the list with what each client knows of its
// connection.
func TestTheListIsWhatClientsDid(t *testing.T) {
	began, proceed := make(chan struct{}), make(chan struct{})
	defer close(proceed)
	s := serveHTTP(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := ConnFrom(r.Context())
		switch r.URL.Path {
		case "/stream":
			c.OnDrain(func() {})
		case "/hijack":
			nc, _, err := http.NewResponseController(w).Hijack()
			if !assert.NoError(t, err) {
				return
			}
			defer nc.Close()
			c.SetLabel("game 7")
		case "/wait":
		default:
			fmt.Fprint(w, "hello")
			return
		}
		began <- struct{}{}
		<-proceed
	})})
	raw := listenOn(t, TCP(func(_ context.Context, c *Conn) { _, _ = io.Copy(writerOnly{c}, struct{ io.Reader }{c}) }))
	raw.ln.name = "raw"
	u := listing(t, 3, s.ln, raw.ln)

	type known struct {
		state, doing, listener string
		in, out                int64
	}
	want := make(map[string]known)
	ask := func(v *served, text string, k known) keepAlive {
		c := v.dial()
		_, err := io.WriteString(c, text)
		require.NoError(t, err)
		k.in = int64(len(text))
		want[c.LocalAddr().String()] = k
		return c
	}
	request := func(line string) string { return line + " HTTP/1.1\r\nHost: x\r\n\r\n" }
	ask(s, "", known{state: "new", listener: "test"})
	idle := ask(s, request("GET /idle?password=secret"), known{state: "idle", doing: "GET /idle", listener: "test"})
	idle.answer(t)
	k := want[idle.LocalAddr().String()]
	k.out = -1 // the whole answer, counted below
	want[idle.LocalAddr().String()] = k
	for _, r := range []struct{ line, state, doing string }{
		{"POST /wait?q", "active", "POST /wait"},
		{"PROPFIND /wait", "active", "PROPFIND /wait"},
		{"GET /stream?token=secret", "stream", "GET /stream"},
		{"GET /hijack", "hijacked", "game 7"},
	} {
		ask(s, request(r.line), known{state: r.state, doing: r.doing, listener: "test"})
		<-began
	}
	echo := ask(raw, "hello\n", known{state: "stream", listener: "raw", out: 6})
	_, err := echo.br.ReadString('\n')
	require.NoError(t, err)
	s.await(track.Counts{track.New: 1, track.Idle: 1, track.Active: 2, track.Stream: 1, track.Hijacked: 1})

	conns, end := u.list(t, control.ConnFilter{})
	assert.Equal(t, len(want), end.Total)
	assert.Empty(t, end.Missing)
	for i, c := range conns {
		w, ok := want[c.Peer]
		require.True(t, ok, c.Peer)
		got := known{c.State, c.Doing, c.Listener, c.In, c.Out}
		if w.out < 0 {
			assert.Greater(t, c.Out, int64(len("HTTP/1.1 200 OK\r\n")))
			w.out = c.Out
		}
		assert.Equal(t, w, got)
		assert.Equal(t, 3, c.Generation)
		assert.Equal(t, os.Getpid(), c.PID)
		assert.GreaterOrEqual(t, c.Quiet, 0.0)
		assert.GreaterOrEqual(t, c.Age, 0.0)
		if i > 0 && c.Listener == conns[i-1].Listener {
			assert.LessOrEqual(t, c.Age, conns[i-1].Age, "oldest first")
		}
	}
	for f, n := range map[control.ConnFilter]int{
		{State: "active"}:                  2,
		{Listener: "raw"}:                  1,
		{Listener: "raw", State: "active"}: 0,
		{Listener: "none"}:                 0,
		{Generation: 3, State: "hijacked"}: 1,
	} {
		conns, end := u.list(t, f)
		assert.Len(t, conns, n, "%+v", f)
		assert.Equal(t, n, end.Total)
	}
	_, err = backend{u}.Conns(t.Context(), control.ConnFilter{Generation: 2}, func([]byte) error { return nil })
	refusal, ok := errors.AsType[*control.Error](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, control.CodeGeneration, refusal.Code)
}

const oneConn = `{"conn":{"generation":2,"pid":1,"listener":"a","peer":"b","state":"idle","age_s":1,"quiet_s":1,"in_bytes":1,"out_bytes":1}}` + "\n"

// TestListsOfOtherGenerations: good ones are passed on, and of the others is said
// why they are not complete.
func TestListsOfOtherGenerations(t *testing.T) {
	write := func(text string) func(link.List, *os.File) {
		return func(_ link.List, pipe *os.File) {
			go func() {
				_, _ = io.WriteString(pipe, text)
				_ = pipe.Close()
			}()
		}
	}
	silent := make(chan *os.File, 1)
	for _, tt := range []struct {
		name    string
		answer  func(link.List, *os.File)
		total   int
		missing string
	}{
		{"none", write(endOfList), 0, ""},
		{"some", write(oneConn + oneConn + endOfList), 2, ""},
		{"many", write(strings.Repeat(oneConn, 20000) + endOfList), 20000, ""},
		{"cut off", write(oneConn), 1, "cut off"},
		{"cut off in a line", write(oneConn + oneConn[:20]), 1, "cut off"},
		{"cut off in the first line", write(oneConn[:20]), 0, "cut off"},
		{"an older version", func(_ link.List, pipe *os.File) { _ = pipe.Close() }, 0, "older version"},
		{"a line without end", write(strings.Repeat("x", 1<<20)), 0, "not understood"},
		{"silent", func(_ link.List, pipe *os.File) { silent <- pipe }, 0, "does not answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := listing(t, 3)
			u.drainer(t, 1, tt.answer)
			u.drainer(t, 2, write(oneConn+endOfList))
			conns, end := u.list(t, control.ConnFilter{})
			assert.Len(t, conns, tt.total+1, "and those of the others")
			assert.Equal(t, tt.total+1, end.Total)
			if tt.missing == "" {
				assert.Empty(t, end.Missing)
				return
			}
			require.Len(t, end.Missing, 1)
			assert.Equal(t, 1, end.Missing[0].Generation)
			assert.Contains(t, end.Missing[0].Reason, tt.missing)
		})
	}
	_ = (<-silent).Close()
}

// TestALongListOutlastsASilentGeneration: a generation that says nothing, and is
// older, does not make the list of another one incomplete, which is longer than a
// pipe has room for.
func TestALongListOutlastsASilentGeneration(t *testing.T) {
	const n = 2000
	l := fakeConns(t, n)
	other := listing(t, 2, l)
	u := listing(t, 3)
	silent := make(chan *os.File, 1)
	u.drainer(t, 1, func(_ link.List, pipe *os.File) { silent <- pipe })
	u.drainer(t, 2, func(m link.List, pipe *os.File) { other.listConns(m, pipe) })
	conns, end := u.list(t, control.ConnFilter{})
	assert.Len(t, conns, n)
	require.Len(t, end.Missing, 1)
	assert.Equal(t, 1, end.Missing[0].Generation)
	require.NoError(t, (<-silent).Close())
}

// TestAClientThatLeavesEndsTheList returns its error.
func TestAClientThatLeavesEndsTheList(t *testing.T) {
	u := listing(t, 2, fakeConns(t, 1000))
	gone := errors.New("gone")
	_, err := backend{u}.Conns(t.Context(), control.ConnFilter{}, func([]byte) error { return gone })
	require.ErrorIs(t, err, gone)
	u.drainer(t, 1, func(_ link.List, pipe *os.File) {
		_, _ = io.WriteString(pipe, oneConn+endOfList)
		_ = pipe.Close()
	})
	_, err = backend{u}.Conns(t.Context(), control.ConnFilter{}, func([]byte) error { return gone })
	require.ErrorIs(t, err, gone)
}

// fakeConn is a connection without a socket.
type fakeConn struct {
	net.Conn
	remote net.TCPAddr
}

func (c *fakeConn) RemoteAddr() net.Addr { return &c.remote }
func (*fakeConn) Close() error           { return nil }

// fakeConns makes a listener with n of them, all of which have made a request.
func fakeConns(t testing.TB, n int) *Listener {
	t.Helper()
	l := newListener("http", nil, new(goodbyes), newPlaces())
	for i := range n {
		c := l.newConn(&fakeConn{remote: net.TCPAddr{IP: net.IPv4(10, 0, byte(i>>8), byte(i)), Port: 1024 + i%60000}}, time.Now())
		c.entry.SetRequest("GET", "/some/path/of/a/page?query=secret")
		c.entry.SetPhase(track.Idle)
		l.conns.Add(c)
	}
	t.Cleanup(func() { l.cut() })
	return l
}

// BenchmarkList100000 lists 100,000 connections of this generation.
func BenchmarkList100000(b *testing.B) {
	u := &Upgrader{number: 1, pid: 1, listeners: []*Listener{fakeConns(b, 100_000)}}
	b.ReportAllocs()
	for b.Loop() {
		n, err := u.writeConns(control.ConnFilter{}, func([]byte) error { return nil })
		if err != nil || n != 100_000 {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkAcceptWhileListing accepts and closes connections while a list of 100,000
// is made all the time, which is to be compared with none.
func BenchmarkAcceptWhileListing(b *testing.B) {
	for _, lists := range []bool{false, true} {
		b.Run(fmt.Sprintf("lists=%v", lists), func(b *testing.B) {
			l := fakeConns(b, 100_000)
			u := &Upgrader{number: 1, pid: 1, listeners: []*Listener{l}}
			over, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for lists && !isClosed(over) {
					_, _ = u.writeConns(control.ConnFilter{}, func([]byte) error { return nil })
				}
			}()
			longest := time.Duration(0)
			for b.Loop() {
				began := time.Now()
				_ = l.admit(&fakeConn{}).Close()
				longest = max(longest, time.Since(began))
			}
			b.ReportMetric(float64(longest.Microseconds()), "µs-longest")
			close(over)
			<-done
		})
	}
}
