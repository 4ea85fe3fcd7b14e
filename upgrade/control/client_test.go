package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

// serve answers on a control socket with h until the test ends, and returns the
// path of the socket.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	socket := filepath.Join(shortDir(t), "control.sock")
	ln, err := net.Listen("unix", socket)
	require.NoError(t, err)
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(ln)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return socket
}

// shortDir is t.TempDir with a path that a socket's 107 bytes have room for.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// answer writes v as JSON.
func answer(status int, v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(v)
	}
}

// stream writes lines as they are, and flushes each.
func stream(lines ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, l := range lines {
			_, _ = io.WriteString(w, l)
			w.(http.Flusher).Flush()
		}
	}
}

// assertBody checks what a request carries.
func assertBody[T any](t *testing.T, want T, r *http.Request) {
	t.Helper()
	assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
	var got T
	assert.NoError(t, json.NewDecoder(r.Body).Decode(&got))
	assert.Equal(t, want, got)
}

func line(t *testing.T, l control.Line) string {
	t.Helper()
	data, err := json.Marshal(l)
	require.NoError(t, err)
	return string(data) + "\n"
}

func requireCode(t *testing.T, err error, code string) *control.Error {
	t.Helper()
	require.Error(t, err)
	e, ok := errors.AsType[*control.Error](err)
	require.True(t, ok, "%T is not a *control.Error: %v", err, err)
	require.Equal(t, code, e.Code, e.Message)
	return e
}

func TestStatus(t *testing.T) {
	want := &control.Status{
		APIVersion: 1, Service: "app", Main: 7, State: control.StateServing,
		Time:        time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Generations: []control.Generation{{Number: 7, PID: 42, Conns: control.Counts{Total: 3}}},
		Sockets:     []control.Socket{{Name: "http", Network: "tcp", Address: "[::]:80"}},
	}
	socket := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "GET /v1/status", r.Method+" "+r.URL.RequestURI())
		answer(http.StatusOK, want)(w, r)
	}))
	c := &control.Client{Socket: socket}
	for range 3 {
		got, err := c.Status(t.Context())
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
}

func TestVersion(t *testing.T) {
	want := &control.Version{APIVersion: 1, Service: "app", Generation: 7, Version: "v2"}
	c := &control.Client{Socket: serve(t, answer(http.StatusOK, want))}
	got, err := c.Version(t.Context())
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

// A newer service may send what this client has never heard of.
func TestUnknownFieldsAreIgnored(t *testing.T) {
	c := &control.Client{Socket: serve(t, stream(`{"service":"app","new_field":{"a":[1]}}`))}
	s, err := c.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "app", s.Service)
}

func TestNewerService(t *testing.T) {
	for _, tt := range []struct {
		header string
		want   string
	}{
		{"2", "2 v9"},
		{"1", ""},
		{"0", ""},
		{"", ""},
		{"two", ""},
	} {
		t.Run(tt.header, func(t *testing.T) {
			var got string
			c := &control.Client{
				Socket: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set(control.HeaderAPI, tt.header)
					w.Header().Set(control.HeaderVersion, "v9")
					answer(http.StatusOK, control.Version{})(w, r)
				})),
				Newer: func(api int, library string) { got = fmt.Sprint(api, " ", library) },
			}
			_, err := c.Version(t.Context())
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestRefusals(t *testing.T) {
	type body struct {
		Error *control.Error `json:"error"`
	}
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		code    string
		hint    string
	}{
		{"typed", answer(http.StatusConflict, body{control.Errorf(control.CodeInProgress, "busy").WithHint("wait")}), control.CodeInProgress, "wait"},
		{"plain 403", answer(http.StatusForbidden, "no"), control.CodePermission, ""},
		{"plain 404", answer(http.StatusNotFound, nil), control.CodeNotFound, ""},
		{"plain 405", answer(http.StatusMethodNotAllowed, nil), control.CodeMethod, ""},
		{"plain 500", stream("not json"), control.CodeInternal, ""},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			endless(w)
		}, control.CodeInternal, ""},
		{"not JSON", stream("<html>"), control.CodeInternal, ""},
		{"endless answer", func(w http.ResponseWriter, _ *http.Request) { endless(w) }, control.CodeTooLarge, ""},
		{"redirect is not followed", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		}, control.CodeInternal, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &control.Client{Socket: serve(t, tt.handler)}
			_, err := c.Status(t.Context())
			e := requireCode(t, err, tt.code)
			assert.Equal(t, tt.hint, e.Hint)
		})
	}
}

// endless writes until the client has had enough.
func endless(w io.Writer) {
	chunk := []byte(strings.Repeat("x", 64<<10))
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func TestDialErrors(t *testing.T) {
	dir := shortDir(t)
	stale := filepath.Join(dir, "stale.sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	require.NoError(t, err)
	ln.SetUnlinkOnClose(false)
	ln.Close()
	failing := func(err error) func(context.Context) (net.Conn, error) {
		return func(context.Context) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", err)}
		}
	}
	for _, tt := range []struct {
		name   string
		client control.Client
		code   string
		hint   bool
	}{
		{"nothing there", control.Client{Socket: filepath.Join(dir, "none.sock")}, control.CodeNotRunning, false},
		{"nobody listens", control.Client{Socket: stale}, control.CodeNotRunning, false},
		{"forbidden", control.Client{Dial: failing(syscall.EACCES)}, control.CodePermission, true},
		{"backlog full", control.Client{Dial: failing(syscall.EAGAIN)}, control.CodeUnknown, false},
		{"path too long", control.Client{Socket: "/" + strings.Repeat("x", 200)}, control.CodeUnknown, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.client.Status(t.Context())
			e := requireCode(t, err, tt.code)
			assert.Equal(t, tt.hint, e.Hint != "")

			// Nothing was asked, so there is no result, not even an unknown one.
			result, err := tt.client.Upgrade(t.Context(), control.UpgradeRequest{}, nil)
			requireCode(t, err, tt.code)
			assert.Nil(t, result)
		})
	}
}

// A service that accepts and says nothing: the context is the only limit.
func TestContextEnds(t *testing.T) {
	release := make(chan struct{})
	socket := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			stream(line(t, control.Line{Event: &control.Event{Seq: 1}}))(w, r)
		}
		select {
		case <-release:
		case <-r.Context().Done(): // the client closed its end
		}
	}))
	defer close(release)
	c := &control.Client{Socket: socket}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := c.Status(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	result, err := c.Upgrade(ctx, control.UpgradeRequest{}, func(control.Event) { cancel() })
	require.ErrorIs(t, err, context.Canceled)
	assert.Nil(t, result)
}

// Each call uses a connection of its own and leaves none behind: a client must
// not keep a draining generation alive.
func TestNoConnectionIsKept(t *testing.T) {
	conns := make(chan net.Conn, 16)
	socket := filepath.Join(shortDir(t), "control.sock")
	ln, err := net.Listen("unix", socket)
	require.NoError(t, err)
	closed := make(chan net.Conn, 16)
	srv := &http.Server{
		Handler: answer(http.StatusOK, control.Version{}),
		ConnState: func(c net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				conns <- c
			case http.StateClosed:
				closed <- c
			}
		},
	}
	go func() { _ = srv.Serve(ln) }()
	defer srv.Close()
	c := &control.Client{Socket: socket}
	for range 3 {
		_, err := c.Version(t.Context())
		require.NoError(t, err)
		assert.Equal(t, <-conns, <-closed)
	}
}
