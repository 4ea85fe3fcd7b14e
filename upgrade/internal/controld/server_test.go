package controld_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
)

func TestStatusAndVersion(t *testing.T) {
	_, socket := start(t, controld.Config{})
	for _, tt := range []struct{ path, want string }{
		{"/v1/status", `"service":"app"`},
		{"/v1/version", `"generation":7`},
		{"/v1/status?pretty=1", `"main":7`}, // unknown parameters are ignored
	} {
		t.Run(tt.path, func(t *testing.T) {
			resp, body := ask(t, socket, http.MethodGet, tt.path, "")
			assert.Equal(t, http.StatusOK, resp.StatusCode)
			requireHeader(t, resp)
			assert.Equal(t, "v1.2.3", resp.Header.Get(control.HeaderVersion))
			assert.Contains(t, body, tt.want)
			assert.True(t, strings.HasSuffix(body, "}\n"), "one line: %q", body)
		})
	}
}

func TestClient(t *testing.T) {
	_, socket := start(t, controld.Config{})
	c := control.Client{Socket: socket}
	status, err := c.Status(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 7, status.Main)

	var events []control.Event
	result, err := c.Upgrade(t.Context(), control.UpgradeRequest{}, func(e control.Event) { events = append(events, e) })
	require.NoError(t, err)
	assert.Equal(t, control.OutcomeConfirmed, result.Outcome)
	assert.Len(t, events, 1)

	err = c.Events(t.Context(), false, func(e control.Event) error { events = append(events, e); return nil })
	require.NoError(t, err)
	assert.Len(t, events, 2)

	result, err = c.Promote(t.Context(), control.PromoteRequest{Share: 50}, func(e control.Event) { events = append(events, e) })
	require.NoError(t, err)
	assert.Equal(t, control.OutcomeStaged, result.Outcome)
	result, err = c.Rollback(t.Context(), control.RollbackRequest{}, func(e control.Event) { events = append(events, e) })
	require.NoError(t, err)
	assert.Equal(t, control.OutcomeRolledBack, result.Outcome)
	assert.Len(t, events, 4)

	var history []control.Entry
	err = c.History(t.Context(), 1, func(e control.Entry) { history = append(history, e) })
	require.NoError(t, err)
	require.Len(t, history, 1)
	assert.Equal(t, control.OutcomeConfirmed, history[0].Outcome)
}

func TestWrongPathAndMethod(t *testing.T) {
	srv, socket := start(t, controld.Config{})
	tests := []struct{ name, method, path, code, allow string }{
		{"unknown", "GET", "/v1/nothing", control.CodeNotFound, ""},
		{"root", "GET", "/", control.CodeNotFound, ""},
		{"slash at the end", "GET", "/v1/status/", control.CodeNotFound, ""},
		{"dots", "GET", "/v1/../v1/status", control.CodeNotFound, ""},
		{"control characters", "GET", "/v1/%1b%5b2J", control.CodeNotFound, ""},
		{"upgrade by GET", "GET", "/v1/upgrade", control.CodeMethod, "POST"},
		{"drain by GET", "GET", "/v1/drain", control.CodeMethod, "POST"},
		{"end by DELETE", "DELETE", "/v1/end", control.CodeMethod, "POST"},
		{"promote by GET", "GET", "/v1/promote", control.CodeMethod, "POST"},
		{"rollback by GET", "GET", "/v1/rollback", control.CodeMethod, "POST"},
		{"pause by PUT", "PUT", "/v1/pause", control.CodeMethod, "POST"},
		{"reconfigure by GET", "GET", "/v1/reconfigure", control.CodeMethod, "POST"},
		{"history by POST", "POST", "/v1/history", control.CodeMethod, "GET"},
		{"conns by POST", "POST", "/v1/conns", control.CodeMethod, "GET"},
		{"status by POST", "POST", "/v1/status", control.CodeMethod, "GET"},
		{"status by DELETE", "DELETE", "/v1/status", control.CodeMethod, "GET"},
		{"options", "OPTIONS", "/v1/upgrade", control.CodeMethod, "POST"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := ask(t, socket, tt.method, tt.path, "")
			r := requireError(t, resp, body, controld.StatusOf(tt.code), tt.code)
			assert.Equal(t, tt.allow, resp.Header.Get("Allow"))
			assert.NotContains(t, body, "\x1b")
			if tt.code == control.CodeNotFound {
				for _, route := range srv.Routes() {
					assert.Contains(t, r.Error.Hint, route)
				}
			}
		})
	}
}

func TestEvents(t *testing.T) {
	events := make(chan control.Event)
	_, socket := start(t, controld.Config{Backend: &backend{
		events: func(ctx context.Context, follow bool, emit func(control.Event) error) error {
			if !follow {
				return emit(control.Event{Seq: 1})
			}
			for {
				select {
				case e := <-events:
					if err := emit(e); err != nil {
						return err
					}
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		},
	}})
	t.Run("remembered", func(t *testing.T) {
		resp, body := ask(t, socket, "GET", "/v1/events", "")
		assert.Equal(t, "application/jsonl", resp.Header.Get("Content-Type"))
		assert.Len(t, lines(t, body), 1)
	})
	t.Run("follow", func(t *testing.T) {
		resp, err := client(socket).Do(newRequest("GET", "/v1/events?follow=1", ""))
		require.NoError(t, err) // the headers come before any event
		defer resp.Body.Close()
		r := bufio.NewReader(resp.Body)
		for seq := range uint64(3) {
			events <- control.Event{Seq: seq + 1}
			line, err := r.ReadString('\n')
			require.NoError(t, err)
			assert.Equal(t, seq+1, lines(t, line)[0].Event.Seq)
		}
	})
	t.Run("bad parameter", func(t *testing.T) {
		resp, body := ask(t, socket, "GET", "/v1/events?follow=perhaps", "")
		r := requireError(t, resp, body, http.StatusBadRequest, control.CodeBadRequest)
		assert.Contains(t, r.Error.Message, "follow")
	})
	t.Run("error", func(t *testing.T) {
		_, socket := start(t, controld.Config{Backend: &backend{
			events: func(context.Context, bool, func(control.Event) error) error { return errors.New("no memory of it") },
		}})
		_, body := ask(t, socket, "GET", "/v1/events", "")
		all := lines(t, body)
		require.Len(t, all, 1)
		assert.Equal(t, control.CodeInternal, all[0].Error.Code)
	})
}

func TestPanic(t *testing.T) {
	broken := commanding(func(context.Context) error { panic("command") })
	broken.status = func() *control.Status { panic("status") }
	broken.events = func(_ context.Context, _ bool, emit func(control.Event) error) error {
		_ = emit(control.Event{Seq: 1})
		panic([]string{"events"})
	}
	rollouts := rolling(func(context.Context, any, controld.Peer, func(control.Event)) *control.Result {
		var r *control.Result
		return &control.Result{Outcome: r.Outcome}
	})
	broken.upgrade, broken.promote, broken.rollback = rollouts.upgrade, rollouts.promote, rollouts.rollback
	broken.conns = func(_ context.Context, f control.ConnFilter, emit func([]byte) error) (*control.ConnsEnd, error) {
		if f.Generation == 0 {
			_ = emit(oneConn("x"))
		}
		panic("conns")
	}
	broken.history = func(_ context.Context, limit int, emit func(control.Entry) error) error {
		if limit == 0 {
			_ = emit(control.Entry{Service: "app"})
		}
		panic("history")
	}
	_, socket := start(t, controld.Config{Backend: broken})
	for range 3 { // and again: nothing is held by the first
		resp, body := ask(t, socket, "GET", "/v1/status", "")
		requireError(t, resp, body, http.StatusInternalServerError, control.CodeInternal)

		for _, path := range []string{"/v1/events", "/v1/conns", "/v1/history"} { // after the first line
			_, body = ask(t, socket, "GET", path, "")
			all := lines(t, body)
			require.Len(t, all, 2)
			assert.Equal(t, control.CodeInternal, all[1].Error.Code)
		}
		for _, path := range []string{"/v1/conns?generation=7", "/v1/history?limit=1"} { // before it
			resp, body = ask(t, socket, "GET", path, "")
			requireError(t, resp, body, http.StatusInternalServerError, control.CodeInternal)
		}
		for _, path := range slices.Concat(rolloutPaths, commandPaths) {
			resp, body = ask(t, socket, "POST", path, "")
			requireError(t, resp, body, http.StatusInternalServerError, control.CodeInternal)
		}
	}
	resp, _ := ask(t, socket, "GET", "/v1/version", "")
	assert.Equal(t, http.StatusOK, resp.StatusCode)
}

// Version is called for every header, also outside of handlers.
func TestPanicInVersion(t *testing.T) {
	broken := &backend{version: func() control.Version { panic("version") }}
	_, socket := start(t, controld.Config{Backend: broken})
	resp, body := ask(t, socket, "GET", "/v1/status", "")
	assert.Equal(t, http.StatusOK, resp.StatusCode, body)
	assert.Equal(t, "1", resp.Header.Get(control.HeaderAPI))
	assert.Contains(t, exchange(t, socket, "garbage\r\n\r\n"), "400 Bad Request")
	resp, body = ask(t, socket, "GET", "/v1/version", "")
	requireError(t, resp, body, http.StatusInternalServerError, control.CodeInternal)

	srv, socket := start(t, controld.Config{Backend: broken, Limits: controld.Limits{Conns: 1}})
	dial(t, socket)
	dial(t, socket)
	require.Eventually(t, func() bool { served, surplus := srv.Connections(); return served+surplus == 2 }, patience, time.Millisecond)
	assert.Contains(t, exchange(t, socket, ""), control.CodeBusy, "the loop that accepts lives")
}

func TestStatusThatCannotBeEncoded(t *testing.T) {
	b := new(backend)
	_, socket := start(t, controld.Config{Backend: b})
	for _, s := range []*control.Status{nil, {Options: control.Settings{Probation: math.Inf(1)}}} {
		b.status = func() *control.Status { return s }
		resp, body := ask(t, socket, "GET", "/v1/status", "")
		requireError(t, resp, body, http.StatusInternalServerError, control.CodeInternal)
	}
}

// Main moves away and back: what is open goes on, and nothing that a client
// keeps lets it command a generation that was main.
func TestMainMoves(t *testing.T) {
	goOn := make(chan struct{})
	srv := controld.New(controld.Config{Backend: &backend{
		upgrade: func(_ context.Context, _ control.UpgradeRequest, _ controld.Peer, emit func(control.Event)) *control.Result {
			emit(control.Event{Phase: control.PhaseStart})
			<-goOn
			emit(control.Event{Phase: control.PhaseConfirmed})
			return &control.Result{Outcome: control.OutcomeConfirmed}
		},
	}})
	socket := socketPath(t)
	ln, _, err := controld.Listen(socket, "")
	require.NoError(t, err)
	file, err := ln.File() // what the next generation gets
	require.NoError(t, err)
	defer file.Close()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()

	resp, err := client(socket).Do(newRequest("POST", "/v1/upgrade", ""))
	require.NoError(t, err)
	defer resp.Body.Close()

	require.NoError(t, ln.Close())
	require.NoError(t, wait(t, served, "Serve returns"))
	close(goOn)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	all := lines(t, string(body))
	require.Len(t, all, 3)
	assert.Equal(t, control.OutcomeConfirmed, all[2].Result.Outcome)

	waiting := dial(t, socket) // in the backlog: nobody serves at the moment
	_, err = io.WriteString(waiting, "GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)

	back, err := net.FileListener(file)
	require.NoError(t, err)
	go func() { served <- srv.Serve(back) }()
	answer, err := io.ReadAll(waiting)
	require.NoError(t, err)
	again, _ := parse(t, "GET", string(answer))
	assert.Equal(t, http.StatusOK, again.StatusCode)

	require.NoError(t, srv.Close())
	require.NoError(t, wait(t, served, "Serve returns"))
	require.NoError(t, srv.Serve(back), "after Close there is nothing to serve")
}

// A second request on a connection is not answered: a client that kept it could
// command a generation that was main.
func TestOneRequestAConnection(t *testing.T) {
	_, socket := start(t, controld.Config{})
	const request = "GET /v1/version HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
	answer := exchange(t, socket, request+request)
	assert.Equal(t, 1, strings.Count(answer, "HTTP/1.1 200 OK"), answer)
	parse(t, "GET", answer)
}

func TestClose(t *testing.T) {
	started := make(chan struct{}, 3)
	srv, socket := start(t, controld.Config{Backend: &backend{
		upgrade: func(ctx context.Context, req control.UpgradeRequest, _ controld.Peer, emit func(control.Event)) *control.Result {
			emit(control.Event{Phase: control.PhaseStart})
			started <- struct{}{}
			<-ctx.Done()
			if req.Queue {
				return nil
			}
			return &control.Result{Outcome: control.OutcomeStopped, Error: control.Errorf(control.CodeStopping, "stopped")}
		},
		events: func(ctx context.Context, _ bool, _ func(control.Event) error) error {
			started <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		},
	}})
	type end struct {
		body string
		err  error
	}
	open := func(method, path, body string) <-chan end {
		ch := make(chan end, 1)
		resp, err := client(socket).Do(newRequest(method, path, body))
		require.NoError(t, err)
		go func() {
			defer resp.Body.Close()
			data, err := io.ReadAll(resp.Body)
			ch <- end{string(data), err}
		}()
		return ch
	}
	idle := dial(t, socket)
	answered := open("POST", "/v1/upgrade", "")
	unknown := open("POST", "/v1/upgrade", `{"queue":true}`)
	follower := open("GET", "/v1/events?follow=1", "")
	for range 3 {
		wait(t, started, "a request starts")
	}
	require.NoError(t, srv.Close())
	served, surplus := srv.Connections()
	assert.Zero(t, served+surplus, "Close has waited for all")

	e := wait(t, answered, "the upgrade ends")
	require.NoError(t, e.err)
	all := lines(t, e.body)
	require.Len(t, all, 2, "the last words have arrived")
	assert.Equal(t, control.OutcomeStopped, all[1].Result.Outcome)

	e = wait(t, unknown, "the other upgrade ends")
	require.ErrorIs(t, e.err, io.ErrUnexpectedEOF, "an answer without a result does not look complete")
	assert.Len(t, lines(t, e.body), 1)

	e = wait(t, follower, "the stream ends")
	require.NoError(t, e.err)
	assert.Empty(t, e.body)

	_, err := idle.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, srv.Close(), "again")
}

// While the last words are said, whoever comes is told so.
func TestRequestDuringClose(t *testing.T) {
	started, goOn := make(chan struct{}), make(chan struct{})
	srv, socket := start(t, controld.Config{
		Backend: &backend{upgrade: func(context.Context, control.UpgradeRequest, controld.Peer, func(control.Event)) *control.Result {
			close(started)
			<-goOn
			return &control.Result{Outcome: control.OutcomeStopped}
		}},
		Limits: controld.Limits{Close: patience},
	})
	c := dial(t, socket)
	_, err := io.WriteString(c, "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	wait(t, started, "the upgrade starts")
	closed := make(chan error, 1)
	go func() { closed <- srv.Close() }()
	for {
		resp, body := ask(t, socket, "GET", "/v1/status", "")
		if resp.StatusCode != http.StatusOK { // Close has begun
			requireError(t, resp, body, http.StatusServiceUnavailable, control.CodeStopping)
			break
		}
	}
	close(goOn)
	require.NoError(t, wait(t, closed, "Close returns"))
	answer, err := io.ReadAll(c)
	require.NoError(t, err)
	_, body := parse(t, "POST", string(answer))
	assert.Len(t, lines(t, body), 1)
}

// A Backend that does not let go costs an error, not a hang.
func TestCloseGivesUp(t *testing.T) {
	release, started := make(chan struct{}), make(chan struct{})
	srv := controld.New(controld.Config{
		Backend: &backend{status: func() *control.Status {
			close(started)
			<-release
			return new(control.Status)
		}},
		Limits: controld.Limits{Close: 10 * time.Millisecond},
	})
	socket := socketPath(t)
	ln, _, err := controld.Listen(socket, "")
	require.NoError(t, err)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	c := dial(t, socket)
	_, err = io.WriteString(c, "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	wait(t, started, "the request starts")

	require.ErrorContains(t, srv.Close(), "1 requests do not end")
	require.NoError(t, wait(t, served, "Serve returns"))
	close(release)
	require.Eventually(t, func() bool { return srv.Close() == nil }, patience, time.Millisecond)
}
