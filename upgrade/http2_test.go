package upgrade

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/internal/track"
)

// serveHTTP2 serves HTTP/1 and HTTP/2, with TLS or without, and returns a client
// that speaks HTTP/2 over one connection, and how to dial.
func serveHTTP2(t *testing.T, encrypted bool, handler http.Handler) (*served, *http.Client, func(*served) net.Conn) {
	t.Helper()
	srv := &http.Server{Handler: handler, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	transport := &http.Transport{Protocols: new(http.Protocols)}
	if !encrypted {
		srv.Protocols.SetUnencryptedHTTP2(true)
		transport.Protocols.SetUnencryptedHTTP2(true)
		s := serveHTTP(t, srv)
		t.Cleanup(transport.CloseIdleConnections)
		return s, &http.Client{Transport: transport}, func(s *served) net.Conn { return s.dial().Conn }
	}
	ts := httptest.NewUnstartedServer(nil)
	ts.StartTLS()
	srv.TLSConfig = ts.TLS.Clone()
	pool := ts.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	ts.Close()
	srv.TLSConfig.NextProtos = nil
	srv.Protocols.SetHTTP2(true)
	transport.Protocols.SetHTTP2(true)
	transport.TLSClientConfig = &tls.Config{RootCAs: pool, ServerName: "example.com"}
	s := serveHTTP(t, srv)
	t.Cleanup(transport.CloseIdleConnections)
	return s, &http.Client{Transport: transport}, func(s *served) net.Conn {
		c := tls.Client(s.dial(), &tls.Config{RootCAs: pool, ServerName: "example.com", NextProtos: []string{"h2"}})
		require.NoError(t, c.HandshakeContext(t.Context()))
		return c
	}
}

func (s *served) url(encrypted bool, path string) string {
	scheme := "http://"
	if encrypted {
		scheme = "https://"
	}
	return scheme + s.ln.Addr().String() + path
}

// bothKinds runs a test for HTTP/2 with TLS and without.
func bothKinds(t *testing.T, f func(t *testing.T, encrypted bool)) {
	t.Run("TLS", func(t *testing.T) { f(t, true) })
	t.Run("unencrypted", func(t *testing.T) { f(t, false) })
}

// protocol answers with the protocol; on /wait when it may.
func protocol(proceed <-chan struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			w.Header().Set("Wait", "yes")
			<-proceed
		}
		_, _ = io.WriteString(w, r.Proto)
	})
}

func fetch(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	r, err := client.Get(url)
	if !assert.NoError(t, err) {
		return ""
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	assert.NoError(t, err)
	return string(body)
}

// The beginning of an HTTP/2 connection: the preface, and empty SETTINGS.
const (
	preface       = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	emptySettings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	ping          = "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"
)

// TestHTTP2NeverMoves opens the way while connections are in every state of HTTP/2:
// after their preface they stay, and without a byte of it they may go.
func TestHTTP2NeverMoves(t *testing.T) {
	bothKinds(t, func(t *testing.T, encrypted bool) {
		proceed := make(chan struct{})
		s, client, dial := serveHTTP2(t, encrypted, protocol(proceed))
		next, _, _ := serveHTTP2(t, encrypted, protocol(proceed))
		// So that also TLS would be taken if it were offered.
		next.ln.served.Store(HTTP(&http.Server{}).(*httpServer))
		assert.Equal(t, "HTTP/2.0", fetch(t, client, s.url(encrypted, "/")), "idle after a stream")
		busy := make(chan string, 1)
		other := client.Transport.(*http.Transport).Clone()
		other.Protocols = client.Transport.(*http.Transport).Protocols
		defer other.CloseIdleConnections()
		go func() { busy <- fetch(t, &http.Client{Transport: other}, s.url(encrypted, "/wait")) }()
		states := []string{preface[:1], preface[:20], preface, preface + emptySettings[:5], preface + emptySettings, preface + emptySettings + ping}
		var clients []net.Conn
		for _, text := range states {
			c := dial(s)
			_, err := io.WriteString(c, text)
			require.NoError(t, err)
			clients = append(clients, c)
		}
		silent := dial(s)
		require.Eventually(t, func() bool {
			all := s.ln.conns.All()
			read, active := 0, 0
			for _, c := range all {
				if in, _ := c.entry.Bytes(); in > 0 {
					read++
				}
				if c.entry.State()&streamMask != 0 {
					active++
				}
			}
			return len(all) == len(states)+3 && read >= len(states)+2 && active == 1
		}, time.Minute, time.Millisecond)

		g := succeed(t, s, next)
		s.ln.expects.Store(&expectation{over: make(chan struct{})})
		ended := s.drain(t.Context(), time.Hour)
		g.begin()
		moves := 0
		if !encrypted {
			moves = 1 // the silent one
		}
		require.Eventually(t, func() bool { return s.ln.migrated.Load() == int64(moves) }, time.Minute, time.Millisecond)
		for range 20 {
			g.mover.wake()
			require.Eventually(t, func() bool { return len(g.mover.again) == 0 && len(s.ln.places) == 0 }, time.Minute, time.Millisecond)
		}
		// They are alive, and the same.
		answer := make([]byte, 9)
		_, err := io.ReadFull(clients[4], answer)
		require.NoError(t, err, "SETTINGS of the server")
		_, err = io.WriteString(clients[2], emptySettings+ping)
		require.NoError(t, err)
		_, err = io.ReadFull(clients[2], answer)
		require.NoError(t, err, "SETTINGS of the server")
		close(proceed)
		assert.Equal(t, "HTTP/2.0", <-busy)
		assert.EqualValues(t, moves, s.ln.migrated.Load())
		for _, c := range append(clients, silent) {
			require.NoError(t, c.Close())
		}
		client.CloseIdleConnections()
		other.CloseIdleConnections()
		require.NoError(t, <-ended)
	})
}

// TestOnlyTheLastStreamAnnouncesTheEnd drains a connection with several streams:
// they are answered, the last one with a GOAWAY, after which the connection ends.
func TestOnlyTheLastStreamAnnouncesTheEnd(t *testing.T) {
	bothKinds(t, func(t *testing.T, encrypted bool) {
		began, proceed := make(chan struct{}), make(chan struct{})
		announced := make(chan bool, 10)
		s, client, _ := serveHTTP2(t, encrypted, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				began <- struct{}{}
				<-proceed
			}
			_, _ = io.WriteString(w, r.Proto)
			announced <- w.Header().Get("Connection") == "close"
		}))
		fetch(t, client, s.url(encrypted, "/")) // one connection from now on
		assert.False(t, <-announced)
		answers := make(chan string, 10)
		wait := func() {
			go func() { answers <- fetch(t, client, s.url(encrypted, "/wait")) }()
			<-began
		}
		wait() // one from before the drain
		ended := s.drain(t.Context(), time.Hour)
		for range 3 {
			wait()
		}
		assert.Equal(t, 1, s.ln.conns.Len())
		assert.Equal(t, "HTTP/2.0", fetch(t, client, s.url(encrypted, "/")), "short ones in between")
		assert.False(t, <-announced)
		for range 3 {
			proceed <- struct{}{}
			assert.Equal(t, "HTTP/2.0", <-answers)
			<-announced // any of them but the last may be the one from before
		}
		// Three of four have ended; how they were announced is checked by the
		// connection: it takes a further stream.
		assert.Equal(t, 1, s.ln.conns.Len())
		close(proceed)
		assert.Equal(t, "HTTP/2.0", <-answers)
		<-announced
		require.NoError(t, <-ended)
	})
}

// TestNoStreamButTheLastIsToldToClose counts announcements, where every stream began
// in the drain.
func TestNoStreamButTheLastIsToldToClose(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"Write":              func(w http.ResponseWriter) { _, _ = io.WriteString(w, "hello") },
		"WriteHeader":        func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) },
		"nothing":            func(http.ResponseWriter) {},
		"Flush":              func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
		"ResponseController": func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
		"early hints": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, "hello")
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothKinds(t, func(t *testing.T, encrypted bool) {
				const n = 5
				began, proceed := make(chan struct{}), make(chan struct{})
				announced := make(chan bool, n)
				s, client, _ := serveHTTP2(t, encrypted, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path != "/wait" {
						return
					}
					began <- struct{}{}
					<-proceed
					answer(w)
					if a, ok := w.(*lastAnswer); ok { // for who answers nothing
						a.decide()
					}
					announced <- w.Header().Get("Connection") == "close"
				}))
				fetch(t, client, s.url(encrypted, "/"))
				s.await(track.Counts{track.Idle: 1})
				ended := s.drain(t.Context(), time.Hour)
				require.Eventually(t, func() bool { return isDraining(s.server) }, time.Minute, time.Millisecond)
				done := make(chan struct{}, n)
				for range n {
					go func() {
						fetch(t, client, s.url(encrypted, "/wait"))
						done <- struct{}{}
					}()
					<-began
				}
				for i := range n {
					proceed <- struct{}{}
					assert.Equal(t, i == n-1, <-announced, "stream %d of %d", i+1, n)
					<-done
				}
				require.NoError(t, <-ended)
			})
		})
	}
}

func isDraining(s Server) bool { return s.(*httpServer).draining.Load() != nil }

// TestIdleHTTP2EndsWhenNothingElseIsLeft: with Shutdown, which would lose requests
// of an HTTP/1 connection, and does not come before that has ended.
func TestIdleHTTP2EndsWhenNothingElseIsLeft(t *testing.T) {
	bothKinds(t, func(t *testing.T, encrypted bool) {
		s, client, dial := serveHTTP2(t, encrypted, protocol(nil))
		fetch(t, client, s.url(encrypted, "/"))
		raw := dial(s) // has never made a request
		_, err := io.WriteString(raw, preface+emptySettings)
		require.NoError(t, err)
		s.await(track.Counts{track.Idle: 2})
		first := s.dial() // TLS that has not begun, or HTTP/1
		if encrypted {
			s.await(track.Counts{track.Idle: 2, track.New: 1})
		} else {
			first.get(t)
			s.await(track.Counts{track.Idle: 3})
		}
		ended := s.drain(t.Context(), time.Hour)
		require.Eventually(t, func() bool { return isDraining(s.server) }, time.Minute, time.Millisecond)
		tick := time.NewTicker(idlePoll)
		for range 3 { // as often as it looks
			<-tick.C
		}
		tick.Stop()
		assert.Equal(t, 3, s.ln.conns.Len())
		if !encrypted {
			assert.True(t, first.get(t).Close)
		}
		require.NoError(t, first.Close())
		select {
		case err := <-ended:
			require.NoError(t, err)
		case <-time.After(20 * time.Second):
			for _, c := range s.ln.conns.All() {
				t.Errorf("%s %x is left", c.entry.Phase(), c.entry.State())
			}
		}
	})
}

// TestEarlyHintsAreNotTheAnswer: when they are sent no other stream is open, and one
// is when the answer is.
func TestEarlyHintsAreNotTheAnswer(t *testing.T) {
	bothKinds(t, func(t *testing.T, encrypted bool) {
		began, proceed, announced := make(chan struct{}), make(chan struct{}), make(chan bool)
		s, client, _ := serveHTTP2(t, encrypted, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				return
			}
			w.WriteHeader(http.StatusEarlyHints)
			began <- struct{}{}
			<-proceed
			_, _ = io.WriteString(w, r.Proto)
			announced <- w.Header().Get("Connection") == "close"
		}))
		fetch(t, client, s.url(encrypted, "/"))
		ended := s.drain(t.Context(), time.Hour)
		require.Eventually(t, func() bool { return isDraining(s.server) }, time.Minute, time.Millisecond)
		answers := make(chan string, 2)
		for range 2 {
			go func() { answers <- fetch(t, client, s.url(encrypted, "/wait")) }()
			<-began
		}
		for _, last := range []bool{false, true} {
			proceed <- struct{}{}
			assert.Equal(t, last, <-announced)
			assert.Equal(t, "HTTP/2.0", <-answers)
		}
		require.NoError(t, <-ended)
	})
}

// TestLastAnswerIsTransparent: what handlers look for in a ResponseWriter.
func TestLastAnswerIsTransparent(t *testing.T) {
	bothKinds(t, func(t *testing.T, encrypted bool) {
		s, client, _ := serveHTTP2(t, encrypted, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				return
			}
			rc := http.NewResponseController(w)
			assert.NoError(t, rc.SetReadDeadline(time.Now().Add(time.Hour)))
			assert.NoError(t, rc.SetWriteDeadline(time.Now().Add(time.Hour)))
			assert.ErrorIs(t, w.(http.Pusher).Push("/style.css", nil), http.ErrNotSupported, "clients of Go do not want it")
			w.Header().Set("X", "y")
			w.WriteHeader(http.StatusTeapot)
			assert.NoError(t, rc.Flush())
			_, err := io.WriteString(w, "tea")
			assert.NoError(t, err)
		}))
		fetch(t, client, s.url(encrypted, "/"))
		ended := s.drain(t.Context(), time.Hour)
		require.Eventually(t, func() bool { return isDraining(s.server) }, time.Minute, time.Millisecond)
		r, err := client.Get(s.url(encrypted, "/tea"))
		require.NoError(t, err)
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.NoError(t, r.Body.Close())
		assert.Equal(t, http.StatusTeapot, r.StatusCode)
		assert.Equal(t, "y", r.Header.Get("X"))
		assert.Equal(t, "tea", string(body))
		require.NoError(t, <-ended)
	})
}
