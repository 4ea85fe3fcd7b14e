package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// newService is generation 7 of a service, and what makes it drain.
func newService(t *testing.T) (url string, drain func()) {
	t.Helper()
	draining := make(chan struct{})
	s := &service{
		name: "demo", version: "v7", generation: 7, pid: 4242, started: time.Now(),
		draining: func() <-chan struct{} { return draining }, log: slog.New(slog.DiscardHandler),
	}
	server := httptest.NewServer(s.handler())
	t.Cleanup(server.Close)
	return server.URL, func() { close(draining) }
}

func do(t *testing.T, method, url string, body io.Reader) (*http.Response, []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, body)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, text
}

func TestAnswers(t *testing.T) {
	url, _ := newService(t)
	tests := []struct {
		name   string
		method string // default GET
		path   string
		body   string
		status int // default 200
		want   string
	}{
		{name: "length and SHA-256", method: "POST", path: "/", body: "abc", want: `{"length":3,"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}` + "\n"},
		{name: "of nothing", method: "POST", path: "/", want: `{"length":0,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}` + "\n"},
		{name: "sleep", path: "/sleep?ms=1", want: "slept 1ms\n"},
		{name: "sleep for no number", path: "/sleep?ms=x", status: 400, want: "ms=\"x\" is not a number from 0 to 3600000\n"},
		{name: "sleep for too long", path: "/sleep?ms=3600001", status: 400, want: "ms=\"3600001\" is not a number from 0 to 3600000\n"},
		{name: "sleep backwards", path: "/sleep?ms=-1", status: 400, want: "ms=\"-1\" is not a number from 0 to 3600000\n"},
		{name: "no bytes", path: "/bytes?n=0", want: ""},
		{name: "three bytes", path: "/bytes?n=3", want: "\x00\x01\x02"},
		{name: "bytes without a number", path: "/bytes?n=many", status: 400, want: "n=\"many\" is not a number from 0 to 9223372036854775807\n"},
		{name: "stream at no pace", path: "/stream?ms=x", status: 400, want: "ms=\"x\" is not a number from 0 to 3600000\n"},
		{name: "health", path: "/healthz", want: "ok\n"},
		{name: "unknown", path: "/nothing", status: 404, want: "404 page not found\n"},
		{name: "wrong method", method: "POST", path: "/sleep", status: 405, want: "Method Not Allowed\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.method == "" {
				tt.method = "GET"
			}
			if tt.status == 0 {
				tt.status = 200
			}
			resp, got := do(t, tt.method, url+tt.path, strings.NewReader(tt.body))
			assert.Equal(t, tt.status, resp.StatusCode)
			assert.Equal(t, tt.want, string(got))
			assert.EqualValues(t, len(tt.want), resp.ContentLength)
			assert.Equal(t, "7", resp.Header.Get("X-Handoff-Generation"))
			assert.Equal(t, "4242", resp.Header.Get("X-Handoff-Pid"))
			assert.Equal(t, "v7", resp.Header.Get("X-Handoff-Version"))
		})
	}
}

func TestHello(t *testing.T) {
	url, _ := newService(t)
	_, text := do(t, "GET", url+"/", nil)
	var got map[string]any
	require.NoError(t, json.Unmarshal(text, &got))
	assert.IsType(t, 0.0, got["uptime_s"])
	delete(got, "uptime_s")
	assert.Equal(t, map[string]any{"service": "demo", "version": "v7", "generation": 7.0, "pid": 4242.0}, got)
}

func TestBytes(t *testing.T) {
	url, _ := newService(t)
	for _, n := range []int{128*251 - 1, 128 * 251, 128*251 + 1, 1_000_003} {
		_, got := do(t, "GET", fmt.Sprintf("%s/bytes?n=%d", url, n), nil)
		want := make([]byte, n)
		for i := range want {
			want[i] = byte(i % 251)
		}
		assert.True(t, bytes.Equal(want, got), "%d bytes", n)
	}
}

func TestBodyLimit(t *testing.T) {
	url, _ := newService(t)
	resp, text := do(t, "POST", url, io.LimitReader(zeros{}, maxBody))
	assert.Equal(t, 200, resp.StatusCode, "%s", text)
	s := &service{log: slog.New(slog.DiscardHandler)}
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/", io.LimitReader(zeros{}, maxBody+1)))
	assert.Equal(t, 413, w.Code)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestStreamSaysGoodbye(t *testing.T) {
	url, drain := newService(t)
	resp, err := http.Get(url + "/stream?ms=1")
	require.NoError(t, err)
	defer resp.Body.Close()
	assert.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	lines := bufio.NewScanner(resp.Body)
	for i := 1; i <= 3; i++ {
		require.True(t, lines.Scan())
		assert.Equal(t, fmt.Sprintf("data: %d", i), lines.Text())
		require.True(t, lines.Scan())
		assert.Empty(t, lines.Text())
	}
	drain()
	var last []string
	for lines.Scan() {
		if lines.Text() != "" {
			last = append(last, lines.Text())
		}
	}
	require.NoError(t, lines.Err(), "it ends as a stream should")
	require.GreaterOrEqual(t, len(last), 2)
	assert.Equal(t, []string{"event: goodbye", "data: generation 7 is leaving"}, last[len(last)-2:])
}

func TestStreamEndsWithItsClient(t *testing.T) {
	s := &service{draining: func() <-chan struct{} { return nil }, log: slog.New(slog.DiscardHandler)}
	returned := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(returned)
		s.handler().ServeHTTP(w, r)
	}))
	defer server.Close()
	resp, err := http.Get(server.URL + "/stream?ms=3600000")
	require.NoError(t, err)
	resp.Body.Close()
	<-returned
}

func TestWebSocketSaysGoodbye(t *testing.T) {
	url, drain := newService(t)
	c, resp, err := websocket.Dial(t.Context(), url+"/ws", nil)
	require.NoError(t, err)
	defer c.CloseNow()
	assert.Equal(t, "7", resp.Header.Get("X-Handoff-Generation"))
	echo := func(text string) {
		t.Helper()
		require.NoError(t, c.Write(t.Context(), websocket.MessageText, []byte(text)))
		_, got, err := c.Read(t.Context())
		require.NoError(t, err)
		assert.Equal(t, text, string(got))
	}
	echo("one")
	echo("two")
	drain()
	_, _, err = c.Read(t.Context()) // silent
	assert.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err))
}

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	log := newLogger(&out, true)
	log.Info("one")
	log.Warn("two")
	log.Error("three")
	assert.Equal(t, "level=INFO msg=one\n<4>level=WARN msg=two\n<3>level=ERROR msg=three\n", out.String())

	out.Reset()
	newLogger(&out, false).Warn("two")
	assert.Regexp(t, `^time=\S+ level=WARN msg=two\n$`, out.String())
}
