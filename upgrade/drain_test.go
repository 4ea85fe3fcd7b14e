package upgrade

import (
	"bufio"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/internal/track"
)

// TestWhatMovesInTheLastMomentIsNotCut has two streams open when the deadline comes:
// one says goodbye, upon which its connection goes on in the next generation, and
// one hears nothing.
func TestWhatMovesInTheLastMomentIsNotCut(t *testing.T) {
	old := serveHTTP(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := ConnFrom(r.Context())
		if !assert.True(t, ok) {
			return
		}
		leaving := make(chan struct{})
		c.OnDrain(func() {
			if r.URL.Path == "/polite" {
				close(leaving)
			}
		})
		_, _ = io.WriteString(w, "hello\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-leaving:
			_, _ = io.WriteString(w, "goodbye\n")
		case <-r.Context().Done():
		}
	})})
	next := serveHTTP(t, &http.Server{Handler: named("next")})
	open := func(path string) (keepAlive, *bufio.Reader) {
		c := old.dial()
		_, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
		r, err := http.ReadResponse(c.br, nil)
		require.NoError(t, err)
		body := bufio.NewReader(r.Body)
		line, err := body.ReadString('\n')
		require.NoError(t, err)
		require.Equal(t, "hello\n", line)
		return c, body
	}
	polite, said := open("/polite")
	_, unsaid := open("/deaf")
	old.await(track.Counts{track.Stream: 2})
	g := succeed(t, old, next)
	g.begin()

	u := &Upgrader{log: slog.New(slog.DiscardHandler)}
	d := &drainage{stop: make(chan struct{}), cancel: func(error) {}}
	done := make(chan struct{})
	close(done)
	assert.Equal(t, track.Counts{track.Stream: 1}, u.cutLeftOvers([]*Listener{old.ln}, d, done))
	text, err := io.ReadAll(said)
	require.NoError(t, err)
	assert.Equal(t, "goodbye\n", string(text))
	assert.Equal(t, "next GET /a ", polite.ask(t, getA))
	_, err = io.ReadAll(unsaid)
	require.Error(t, err, "cut off")
}
