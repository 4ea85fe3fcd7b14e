package upgrade

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/internal/track"
)

// served is a server behind an open Listener, as Run has it.
type served struct {
	t      *testing.T
	ln     *Listener
	server Server
	stop   chan struct{}
}

func serveHTTP(t *testing.T, srv *http.Server) *served {
	t.Helper()
	return listenOn(t, HTTP(srv))
}

// drain starts a drain, and returns its end. It has begun: the next answer tells.
func (s *served) drain(ctx context.Context, grace time.Duration) <-chan error {
	s.ln.pause()
	s.ln.settle()
	ctx = context.WithValue(ctx, drainInfoKey{}, drainInfo{listener: s.ln, stop: s.stop, grace: grace})
	ended := make(chan error, 1)
	h, isHTTP := s.server.(*httpServer)
	var before *struct{ _ byte }
	if isHTTP {
		before = h.draining.Load()
	}
	go func() { ended <- s.server.Drain(ctx) }()
	for isHTTP && ctx.Err() == nil {
		if now := h.draining.Load(); now != nil && now != before {
			break
		}
		runtime.Gosched()
	}
	return ended
}

type keepAlive struct {
	net.Conn
	br *bufio.Reader
}

func (s *served) dial() keepAlive {
	s.t.Helper()
	c, err := net.Dial("tcp", s.ln.Addr().String())
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	return keepAlive{c, bufio.NewReader(c)}
}

func (c keepAlive) get(t *testing.T) *http.Response {
	t.Helper()
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	r, err := http.ReadResponse(c.br, nil)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, r.Body)
	require.NoError(t, err)
	return r
}

// await waits until the listener's connections are in the given phases.
func (s *served) await(want track.Counts) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		c, _ := s.ln.conns.Counts()
		return c == want
	}, time.Minute, time.Millisecond, "%v", want)
}

var hello = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })

func TestLameDuckAnnouncesTheEndWithTheNextAnswer(t *testing.T) {
	s := serveHTTP(t, &http.Server{Handler: hello})
	fresh, idle := s.dial(), s.dial()
	assert.False(t, idle.get(t).Close)
	s.await(track.Counts{track.New: 1, track.Idle: 1})

	ended := s.drain(t.Context(), time.Hour)
	for _, c := range []keepAlive{fresh, idle} {
		assert.True(t, c.get(t).Close, "Connection: close")
		_, err := c.br.ReadByte()
		assert.ErrorIs(t, err, io.EOF)
	}
	require.NoError(t, <-ended, "it ends early when nothing is left")
}

func TestStopClosesWhatStaysIdle(t *testing.T) {
	proceed := make(chan struct{})
	s := serveHTTP(t, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-proceed })})
	busy, fresh := s.dial(), s.dial()
	_, err := io.WriteString(busy, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	s.await(track.Counts{track.New: 1, track.Active: 1})

	ended := s.drain(t.Context(), 50*time.Millisecond)
	close(s.stop)
	_, err = fresh.br.ReadByte()
	require.ErrorIs(t, err, io.EOF, "closed after the grace")
	s.await(track.Counts{track.Active: 1})
	close(proceed)
	r, err := http.ReadResponse(busy.br, nil)
	require.NoError(t, err, "a request that runs is answered")
	r.Body.Close()
	// It had begun before the drain, so that its answer did not announce the end.
	_, err = busy.br.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, <-ended)
	assert.EqualValues(t, 2, s.ln.evicted.Load())
}

func TestDrainEndsAtItsDeadline(t *testing.T) {
	s := serveHTTP(t, &http.Server{Handler: hello})
	s.dial()
	s.await(track.Counts{track.New: 1})
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := s.drain(ctx, time.Hour)
	cancel(ErrDrainDeadline)
	require.ErrorIs(t, <-ended, ErrDrainDeadline)
	assert.Equal(t, 1, s.ln.conns.Len(), "the Upgrader cuts what is left")
}

func TestHijackedConnectionsAreCounted(t *testing.T) {
	s := serveHTTP(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if assert.NoError(t, err) {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	})})
	c := s.dial()
	_, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	s.await(track.Counts{track.Hijacked: 1})
	ended := s.drain(t.Context(), time.Hour)
	require.NoError(t, c.Close())
	require.NoError(t, <-ended, "and waited for")
}

// TestServesTLSAndHTTP2 drains an HTTP/2 connection: it is told by GOAWAY, and
// the request in the middle is answered.
func TestServesTLSAndHTTP2(t *testing.T) {
	ts := httptest.NewUnstartedServer(nil)
	ts.StartTLS()
	config := ts.TLS.Clone()
	client := ts.Client()
	ts.Close()
	config.NextProtos = []string{"h2", "http/1.1"}

	proceed := make(chan struct{})
	s := serveHTTP(t, &http.Server{TLSConfig: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-proceed
		}
		_, _ = io.WriteString(w, r.Proto)
	})})
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: client.Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"},
	}
	defer transport.CloseIdleConnections()
	h2 := http.Client{Transport: transport}
	get := func(path string) string {
		r, err := h2.Get("https://" + s.ln.Addr().String() + path)
		if !assert.NoError(t, err) {
			return ""
		}
		defer r.Body.Close()
		body, _ := io.ReadAll(r.Body)
		return string(body)
	}
	assert.Equal(t, "HTTP/2.0", get("/"))
	answer := make(chan string, 1)
	go func() { answer <- get("/wait") }()
	s.await(track.Counts{track.Active: 1})
	ended := s.drain(t.Context(), time.Hour)
	close(proceed)
	assert.Equal(t, "HTTP/2.0", <-answer)
	assert.Equal(t, "HTTP/2.0", get("/"), "on the old connection, which is told to go")
	require.NoError(t, <-ended)
}
