package upgrade

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/internal/pulse"
	"github.com/hdctl/handoff/upgrade/internal/track"
)

// counting is a server whose requests are counted.
type counting struct {
	Server
	page *pulse.Page
}

func (c counting) Serve(ln net.Listener) error {
	ln.(*Listener).pulse = c.page
	return c.Server.Serve(ln)
}

func newPulsePage(t testing.TB) *pulse.Page {
	t.Helper()
	page, err := pulse.New()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, page.Close()) })
	return page
}

// counted is a server whose page one can read, and a client of it.
type counted struct {
	*served
	page   *pulse.Page
	client *http.Client
	url    string
}

// await waits until as many requests have been counted, and returns how many failed.
func (c counted) await(t *testing.T, requests uint64) (failed uint64) {
	t.Helper()
	require.Eventually(t, func() bool { return c.page.Sample().Requests >= requests }, time.Minute, time.Millisecond)
	s := c.page.Sample()
	assert.Equal(t, requests, s.Requests)
	return s.Errors
}

// serveCounted serves with one kind of HTTP.
func serveCounted(t *testing.T, version int, encrypted bool, handler http.Handler) counted {
	t.Helper()
	srv := &http.Server{Handler: handler, Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0)}
	transport := &http.Transport{}
	url := "http://"
	srv.Protocols.SetHTTP1(true)
	switch {
	case version == http2 && encrypted:
		srv.Protocols.SetHTTP2(true)
	case version == http2:
		srv.Protocols.SetUnencryptedHTTP2(true)
	}
	if version == http2 {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetHTTP2(encrypted)
		transport.Protocols.SetUnencryptedHTTP2(!encrypted)
	}
	if encrypted {
		url = "https://"
		ts := httptest.NewUnstartedServer(nil)
		ts.StartTLS()
		srv.TLSConfig = &tls.Config{Certificates: ts.TLS.Certificates}
		transport.TLSClientConfig = &tls.Config{RootCAs: ts.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"}
		ts.Close()
	}
	page := newPulsePage(t)
	s := listenOn(t, counting{HTTP(srv), page})
	t.Cleanup(transport.CloseIdleConnections)
	return counted{s, page, &http.Client{Transport: transport}, url + s.ln.Addr().String()}
}

// everyHTTP runs a test for each kind of HTTP.
func everyHTTP(t *testing.T, f func(t *testing.T, version int, encrypted bool)) {
	t.Run("HTTP/1", func(t *testing.T) { f(t, http1, false) })
	t.Run("HTTP/1 TLS", func(t *testing.T) { f(t, http1, true) })
	t.Run("HTTP/2", func(t *testing.T) { f(t, http2, false) })
	t.Run("HTTP/2 TLS", func(t *testing.T) { f(t, http2, true) })
}

// answers are how handlers may answer, and whether that is a failure.
func answers() map[string]struct {
	handler http.HandlerFunc
	failed  bool
} {
	status := func(n int) http.HandlerFunc { return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(n) } }
	return map[string]struct {
		handler http.HandlerFunc
		failed  bool
	}{
		"/nothing": {func(http.ResponseWriter, *http.Request) {}, false},
		"/body":    {hello, false},
		"/200":     {status(200), false},
		"/204":     {status(204), false},
		"/304":     {status(304), false},
		"/404":     {status(404), false},
		"/499":     {status(499), false},
		"/500":     {status(500), true},
		"/503":     {status(503), true},
		"/599":     {status(599), true},
		"/twice": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(200)
			w.WriteHeader(500)
		}, false},
		"/early hints": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(500)
		}, true},
		"/flushed": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "more")
		}, true},
		"/timeout": {http.TimeoutHandler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), time.Nanosecond, "").ServeHTTP, true},
		"/panic":   {func(http.ResponseWriter, *http.Request) { panic("on purpose") }, true},
		"/abort":   {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true},
		"/abort later": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hello")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, true},
	}
}

func TestRequestsAreCountedWithTheirFailures(t *testing.T) {
	assert.Empty(t, statusesUnknown())
	everyHTTP(t, func(t *testing.T, version int, encrypted bool) {
		all := answers()
		s := serveCounted(t, version, encrypted, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { all[r.URL.Path].handler(w, r) }))
		requests, failed := uint64(0), uint64(0)
		for path, want := range all {
			r, err := s.client.Post(s.url+path, "text/plain", nil) // a GET might be tried again
			if err == nil {
				assert.Equal(t, version == http2, r.ProtoMajor == 2)
				_, _ = io.Copy(io.Discard, r.Body)
				r.Body.Close()
			}
			requests++
			if want.failed {
				failed++
			}
			if !assert.Equal(t, failed, s.await(t, requests), path) {
				return
			}
		}
		assert.Positive(t, s.page.Sample().Latency)
	})
}

// TestFailuresAreCountedInADrain: there HTTP/2 has a ResponseWriter of ours.
func TestFailuresAreCountedInADrain(t *testing.T) {
	everyHTTP(t, func(t *testing.T, version int, encrypted bool) {
		s := serveCounted(t, version, encrypted, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }))
		s.server.(counting).Server.(*httpServer).draining.Store(new(struct{ _ byte }))
		r, err := s.client.Get(s.url)
		require.NoError(t, err)
		r.Body.Close()
		assert.EqualValues(t, 1, s.await(t, 1))
	})
}

// TestAPanicWithoutAClientIsNoFailure: a reverse proxy panics when its client has
// gone.
func TestAPanicWithoutAClientIsNoFailure(t *testing.T) {
	everyHTTP(t, func(t *testing.T, version int, encrypted bool) {
		running := make(chan struct{})
		s := serveCounted(t, version, encrypted, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(running)
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}))
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-running
			cancel()
		}()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, nil)
		require.NoError(t, err)
		_, err = s.client.Do(req)
		require.ErrorIs(t, err, context.Canceled)
		assert.Zero(t, s.await(t, 1))
	})
}

// wrapping is a server that serves behind a listener of the service.
type wrapping struct{ Server }

func (w wrapping) Serve(ln net.Listener) error {
	return w.Server.Serve(struct{ net.Listener }{ln})
}

func TestRequestsBehindAWrappedListenerAreCounted(t *testing.T) {
	page := newPulsePage(t)
	s := listenOn(t, counting{wrapping{HTTP(&http.Server{Handler: hello})}, page})
	s.dial().get(t)
	counted{served: s, page: page}.await(t, 1)
}

func TestAHijackedConnectionIsCountedAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		end              func()
		requests, failed uint64
	}{
		"and ends well": {func() {}, 1, 0},
		"and panics":    {func() { panic("on purpose") }, 2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			proceed, ended := make(chan struct{}), make(chan struct{})
			s := serveCounted(t, http1, false, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if !assert.NoError(t, err) {
					return
				}
				defer close(ended)
				defer conn.Close()
				<-proceed
				c.end()
			}))
			conn := s.dial()
			_, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			require.NoError(t, err)
			assert.Zero(t, s.await(t, 1), "while the handler runs")
			close(proceed)
			<-ended
			_, err = conn.br.ReadByte()
			require.ErrorIs(t, err, io.EOF)
			assert.Equal(t, c.failed, s.await(t, c.requests))
			assert.Zero(t, s.page.Sample().Latency)
		})
	}
}

// TestWhatIsEndlessHasNoLatency ends requests that began long ago.
func TestWhatIsEndlessHasNoLatency(t *testing.T) {
	for name, c := range map[string]struct {
		method, kind string
		phase        track.Phase
		age          time.Duration
		timed        bool
	}{
		"an ordinary one":          {age: time.Hour, timed: true},
		"of another type":          {kind: "text/html; charset=utf-8", age: time.Hour, timed: true},
		"server-sent events":       {kind: "text/event-stream", age: time.Hour},
		"with a charset":           {kind: "text/event-stream; charset=utf-8", age: time.Hour},
		"images of a camera":       {kind: "multipart/x-mixed-replace; boundary=x", age: time.Hour},
		"gRPC":                     {kind: "application/grpc+proto", age: time.Hour},
		"a tunnel":                 {method: http.MethodConnect, age: time.Hour},
		"said to be a stream":      {phase: track.Stream, age: time.Hour},
		"a stream, soon over":      {phase: track.Stream, kind: "text/event-stream", age: 0, timed: true},
		"hijacked, counted before": {phase: track.Hijacked, age: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			page := newPulsePage(t)
			l := newListener("http", nil, new(goodbyes), newPlaces())
			here, there := net.Pipe()
			defer there.Close()
			conn := l.admit(here).(*Conn)
			defer conn.Close()
			conn.entry.SetPhase(max(c.phase, track.Active))
			if c.phase != 0 {
				conn.entry.SetPhase(c.phase)
			}
			w := httptest.NewRecorder()
			w.Header().Set("Content-Type", c.kind)
			if c.method == "" {
				c.method = http.MethodGet
			}
			a := answering{
				server: new(httpServer), page: page, conn: conn, w: w,
				r: httptest.NewRequest(c.method, "http://x/", nil), began: time.Now().Add(-c.age), returned: true,
			}
			a.end()
			s := page.Sample()
			if c.phase == track.Hijacked {
				assert.Zero(t, s.Requests)
				return
			}
			assert.EqualValues(t, 1, s.Requests)
			assert.Equal(t, c.timed, s.Latency > 0)
		})
	}
}

func TestStatusIsNotFoundElsewhere(t *testing.T) {
	type state struct{ status int }
	type embedded struct {
		http.ResponseWriter
		state
	}
	type other struct {
		http.ResponseWriter
		status string
	}
	type direct struct {
		http.ResponseWriter
		status int
	}
	type indirect struct {
		http.ResponseWriter
		rws *state
	}
	type value struct{ http.ResponseWriter }
	for name, c := range map[string]struct {
		w    http.ResponseWriter
		want int
	}{
		"directly":                {&direct{status: 500}, 500},
		"indirectly":              {&indirect{rws: &state{500}}, 500},
		"indirectly, and over":    {&indirect{}, 0},
		"embedded":                {&embedded{state: state{500}}, 0},
		"of another type":         {&other{status: "500"}, 0},
		"there is none":           {httptest.NewRecorder(), 0},
		"not a pointer":           {value{}, 0},
		"of a nil ResponseWriter": {&value{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, findStatus(reflect.TypeOf(c.w)).read(c.w))
		})
	}
}

// TestOnlyPanicsAreCountedWhereStatusesAreUnknown, also of an unknown connection.
func TestOnlyPanicsAreCountedWhereStatusesAreUnknown(t *testing.T) {
	page := newPulsePage(t)
	s := HTTP(&http.Server{}).(*httpServer)
	s.page.Store(page)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	type writer struct {
		http.ResponseWriter
		status int
	}
	serve := func(h http.HandlerFunc) { s.serve(h, &writer{status: 500}, r) }
	serve(func(http.ResponseWriter, *http.Request) {})
	assert.EqualValues(t, 0, page.Sample().Errors)
	assert.PanicsWithValue(t, "on purpose", func() {
		serve(func(http.ResponseWriter, *http.Request) { panic("on purpose") })
	})
	assert.EqualValues(t, 1, page.Sample().Errors)
	s.statusKnown[http1].Store(true)
	serve(func(http.ResponseWriter, *http.Request) {})
	assert.EqualValues(t, 2, page.Sample().Errors)
	assert.EqualValues(t, 3, page.Sample().Requests)
}

// TestCostOfCounting: no allocation.
func TestCostOfCounting(t *testing.T) {
	if underRace() {
		t.Skip("allocations cannot be counted with the race detector")
	}
	type writer struct {
		http.ResponseWriter
		rws *struct{ status int }
	}
	s := HTTP(&http.Server{}).(*httpServer)
	s.page.Store(newPulsePage(t))
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for version, major := range []int{1, 2} {
		s.statusKnown[version].Store(true)
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.ProtoMajor = major
		w := &writer{rws: &struct{ status int }{500}}
		assert.Zero(t, testing.AllocsPerRun(1000, func() { s.serve(next, w, r) }))
	}
	assert.EqualValues(t, 2*1001, s.page.Load().Sample().Errors)

	bare := bareServer(t, &http.Server{Handler: hello})
	counted := listenOn(t, counting{HTTP(&http.Server{Handler: hello}), newPulsePage(t)}).ln.Addr().String()
	const n = 2000
	cost := func(address string) float64 {
		r := newRequester(t, address, requests()["GET"])
		for range 100 {
			require.NoError(t, r.do())
		}
		var err error
		objects, _ := allocations(func() {
			for range n {
				if err == nil {
					err = r.do()
				}
			}
		})
		require.NoError(t, err)
		return objects / n
	}
	bareObjects := cost(bare)
	objects := cost(counted)
	t.Logf("bare: %.3f allocations; counted: %.3f", bareObjects, objects)
	assert.Less(t, objects-bareObjects, 0.5, "one a request would be 1; the rest is net/http's pools")
}

// BenchmarkServe is what a request costs here, without net/http.
func BenchmarkServe(b *testing.B) {
	type writer struct {
		http.ResponseWriter
		status int
	}
	for name, page := range map[string]*pulse.Page{"uncounted": nil, "counted": newPulsePage(b)} {
		b.Run(name, func(b *testing.B) {
			s := HTTP(&http.Server{}).(*httpServer)
			s.page.Store(page)
			s.statusKnown[http1].Store(true)
			next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
			r, w := httptest.NewRequest(http.MethodGet, "/", nil), &writer{status: 200}
			b.ReportAllocs()
			for b.Loop() {
				s.serve(next, w, r)
			}
		})
	}
}

func BenchmarkVerifyStatus(b *testing.B) {
	for b.Loop() {
		if verifyStatus(http1) != nil || verifyStatus(http2) != nil {
			b.Fatal("not found")
		}
	}
}
