package controld_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
)

// Whatever is no request gets an answer of the same form as any other, and
// disturbs nobody.
func TestGarbage(t *testing.T) {
	upgraded := make(chan struct{}, 100)
	_, socket := start(t, controld.Config{Backend: &backend{
		upgrade: func(context.Context, control.UpgradeRequest, controld.Peer, func(control.Event)) *control.Result {
			upgraded <- struct{}{}
			return nil
		},
	}})
	tests := []struct {
		name, request string
		status        int
		code          string
	}{
		{"no HTTP", "upgrade\n\n", 400, control.CodeBadRequest},
		{"NULs", strings.Repeat("\x00", 100) + "\r\n\r\n", 400, control.CodeBadRequest},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, control.CodeBadRequest},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404, control.CodeNotFound},
		{"HTTP/3", "GET /v1/status HTTP/3.0\r\nHost: x\r\n\r\n", 505, control.CodeBadRequest},
		{"no host", "POST /v1/upgrade HTTP/1.1\r\n\r\n", 400, control.CodeBadRequest},
		{"bad header", "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nA B: 1\r\n\r\n", 400, control.CodeBadRequest},
		{"bad length", "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, control.CodeBadRequest},
		{"two lengths", "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", 400, control.CodeBadRequest},
		{"unknown coding", "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n{}", 501, control.CodeBadRequest},
		{"bad chunk", "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}", 400, control.CodeBadRequest},
		{"expectation", "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nExpect: miracle\r\n\r\n", 417, control.CodeBadRequest},
		{"star", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404, control.CodeNotFound},
		{"connect", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 404, control.CodeNotFound},
		{"large header", "GET /v1/status HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", 431, control.CodeTooLarge},
		{"long path", "GET /" + strings.Repeat("a", 64<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n", 431, control.CodeTooLarge},
		{"large body", fmt.Sprintf("POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", 64<<10+1, strings.Repeat(" ", 64<<10+1)), 413, control.CodeTooLarge},
		{"huge body, announced", "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", 413, control.CodeTooLarge},
		{"large body, in chunks", "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n" + strings.Repeat(" ", 0x20000) + "\r\n0\r\n\r\n", 413, control.CodeTooLarge},
		{"huge body of a drain", "POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", 413, control.CodeTooLarge},
		{"large body of an end, in chunks", "POST /v1/end HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n20000\r\n" + strings.Repeat(" ", 0x20000) + "\r\n0\r\n\r\n", 413, control.CodeTooLarge},
		{"large body of a GET", fmt.Sprintf("GET /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", 64<<10+1, strings.Repeat(" ", 64<<10+1)), 413, control.CodeTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			method, _, _ := strings.Cut(tt.request, " ")
			if method == "CONNECT" {
				method = "GET" // the answer has a body, as that to any other
			}
			resp, body := parse(t, method, exchange(t, socket, tt.request))
			requireError(t, resp, body, tt.status, tt.code)
		})
	}
	assert.Empty(t, upgraded)
	resp, _ := ask(t, socket, "GET", "/v1/status", "")
	assert.Equal(t, http.StatusOK, resp.StatusCode)
}

func TestLargestBody(t *testing.T) {
	_, socket := start(t, controld.Config{})
	body := `{"new":"` + strings.Repeat("x", 64<<10-10) + `"}`
	require.Len(t, body, 64<<10)
	resp, text := ask(t, socket, "POST", "/v1/upgrade", body)
	assert.Equal(t, http.StatusOK, resp.StatusCode, text)
}

// A connect is not a request: nothing happens, and the connection is closed.
func TestConnectOnly(t *testing.T) {
	for _, sent := range []string{"", "POST", "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\n"} {
		t.Run(sent, func(t *testing.T) {
			upgraded := make(chan struct{}, 1)
			_, socket := start(t, controld.Config{
				Backend: &backend{upgrade: func(context.Context, control.UpgradeRequest, controld.Peer, func(control.Event)) *control.Result {
					upgraded <- struct{}{}
					return nil
				}},
				Limits: controld.Limits{Header: 20 * time.Millisecond, Body: time.Hour},
			})
			// Closed; to the beginning of a request net/http may say that it is bad.
			assert.NotContains(t, exchange(t, socket, sent), "200 OK")

			c := dial(t, socket) // and one that goes away by itself
			_, err := io.WriteString(c, sent)
			require.NoError(t, err)
			require.NoError(t, c.Close())
			ask(t, socket, "GET", "/v1/status", "")
			assert.Empty(t, upgraded)
		})
	}
}

// A client that keeps its header or its body coming, byte by byte, does not get
// more time for that.
func TestDrip(t *testing.T) {
	tests := []struct{ name, begin, drip, want string }{
		{"header", "GET /v1/status HTTP/1.1\r\nHost: x\r\nA: ", "a", ""},
		{"body", "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{", " ", control.CodeBadRequest},
		{"chunks", "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n", control.CodeBadRequest},
		// net/http reads the rest of a body that nobody wanted: not for ever.
		{"body of a refused request", "POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{", " ", control.CodeNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv, socket := start(t, controld.Config{Limits: controld.Limits{Header: 100 * time.Millisecond, Body: 50 * time.Millisecond}})
			c := dial(t, socket)
			_, err := io.WriteString(c, tt.begin)
			require.NoError(t, err)
			var dripping sync.WaitGroup
			dripping.Go(func() {
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for range tick.C {
					if _, err := io.WriteString(c, tt.drip); err != nil {
						return // the server has hung up
					}
				}
			})
			dripping.Wait()
			answer, _ := io.ReadAll(c)
			if tt.want == "" {
				assert.Empty(t, answer)
			} else {
				resp, body := parse(t, "POST", string(answer))
				requireError(t, resp, body, controld.StatusOf(tt.want), tt.want)
			}
			require.Eventually(t, func() bool { served, _ := srv.Connections(); return served == 0 }, patience, time.Millisecond)
		})
	}
}

// A body that does not come at all, for a request that is refused without it.
func TestRefusedWithoutBody(t *testing.T) {
	srv, socket := start(t, controld.Config{Limits: controld.Limits{Header: 100 * time.Millisecond, Body: 50 * time.Millisecond}})
	answer := exchange(t, socket, "POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
	resp, body := parse(t, "POST", answer)
	requireError(t, resp, body, http.StatusNotFound, control.CodeNotFound)
	require.Eventually(t, func() bool { served, _ := srv.Connections(); return served == 0 }, patience, time.Millisecond)
}

// The time limits of a request are not those of its answer.
func TestStreamOutlivesLimits(t *testing.T) {
	goOn := make(chan struct{})
	var ctxErr error
	_, socket := start(t, controld.Config{
		Backend: &backend{
			upgrade: func(ctx context.Context, _ control.UpgradeRequest, _ controld.Peer, emit func(control.Event)) *control.Result {
				emit(control.Event{Phase: control.PhaseStart})
				<-goOn
				ctxErr = ctx.Err()
				return &control.Result{Outcome: control.OutcomeConfirmed}
			},
			events: func(context.Context, bool, func(control.Event) error) error {
				<-goOn
				return nil // without a line: only the end is sent
			},
		},
		Limits: controld.Limits{Header: 100 * time.Millisecond, Body: 50 * time.Millisecond, Write: 100 * time.Millisecond},
	})
	resp, err := client(socket).Do(newRequest("POST", "/v1/upgrade", "{}"))
	require.NoError(t, err)
	defer resp.Body.Close()
	silent, err := client(socket).Do(newRequest("GET", "/v1/events", ""))
	require.NoError(t, err)
	defer silent.Body.Close()
	// A request that began later has used up its time: so has this one.
	exchange(t, socket, "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
	close(goOn)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Len(t, lines(t, string(body)), 2)
	assert.NoError(t, ctxErr)
	_, err = io.ReadAll(silent.Body)
	require.NoError(t, err)
}

// A client that does not read is dropped: its context ends, its emit fails, and
// its place is free.
func TestSlowReader(t *testing.T) {
	const (
		events  = "GET /v1/events?follow=1 HTTP/1.1\r\nHost: x\r\n\r\n"
		upgrade = "POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
		promote = "POST /v1/promote HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
		status  = "GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
		conns   = "GET /v1/conns HTTP/1.1\r\nHost: x\r\n\r\n"
		history = "GET /v1/history HTTP/1.1\r\nHost: x\r\n\r\n"
	)
	tests := []struct {
		name, request string
		size          int // of a line: net/http deals with long ones in another way
	}{
		{"events", events, 100},
		{"events, long", events, 64 << 10},
		{"upgrade", upgrade, 100},
		{"upgrade, long", upgrade, 64 << 10},
		{"promote", promote, 100},
		{"status", status, 4 << 20},
		{"conns", conns, 100},
		{"conns, long", conns, 64 << 10},
		{"history", history, 100},
		{"history, long", history, 64 << 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			event := control.Event{Message: strings.Repeat("x", tt.size)}
			dropped, goOn := make(chan error, 1), make(chan struct{})
			run := func(ctx context.Context, emit func(control.Event)) *control.Result {
				for ctx.Err() == nil {
					emit(event)
				}
				emit(event) // harmless
				dropped <- ctx.Err()
				<-goOn
				return &control.Result{Outcome: control.OutcomeConfirmed}
			}
			srv, socket := start(t, controld.Config{
				Backend: &backend{
					events: func(_ context.Context, _ bool, emit func(control.Event) error) error {
						for {
							if err := emit(event); err != nil {
								dropped <- err
								<-goOn
								return err
							}
						}
					},
					upgrade: func(ctx context.Context, _ control.UpgradeRequest, _ controld.Peer, emit func(control.Event)) *control.Result {
						return run(ctx, emit)
					},
					promote: func(ctx context.Context, _ control.PromoteRequest, _ controld.Peer, emit func(control.Event)) *control.Result {
						return run(ctx, emit)
					},
					history: func(_ context.Context, _ int, emit func(control.Entry) error) error {
						for {
							if err := emit(control.Entry{Service: event.Message}); err != nil {
								dropped <- err
								<-goOn
								return nil // as if it were complete
							}
						}
					},
					conns: func(_ context.Context, _ control.ConnFilter, emit func([]byte) error) (*control.ConnsEnd, error) {
						line := oneConn(event.Message)
						for {
							if err := emit(line); err != nil {
								dropped <- err
								<-goOn
								return new(control.ConnsEnd), nil // as if it were complete
							}
						}
					},
					status: func() *control.Status {
						dropped <- io.EOF
						return &control.Status{Service: strings.Repeat("x", tt.size)}
					},
				},
				Limits: controld.Limits{Write: 50 * time.Millisecond},
			})
			c := dial(t, socket)
			_, err := io.WriteString(c, tt.request)
			require.NoError(t, err)
			require.Error(t, wait(t, dropped, "the client is dropped"))
			gone := func() bool { served, _ := srv.Connections(); return served == 0 }
			if tt.request == status { // has no way to notice that it is not wanted
				require.Eventually(t, gone, patience, time.Millisecond)
			}
			answer, err := io.ReadAll(c) // ends, whatever the Backend is doing
			require.NoError(t, err)
			close(goOn)
			require.Eventually(t, gone, patience, time.Millisecond)
			resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
			require.NoError(t, err)
			defer resp.Body.Close()
			_, err = io.ReadAll(resp.Body)
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, "the answer does not look complete")
			resp, _ = ask(t, socket, "GET", "/v1/version", "")
			assert.Equal(t, http.StatusOK, resp.StatusCode)
		})
	}
}

// A hundred clients at once: each gets a clear answer, and the next one is
// served as if nothing had been.
func TestTooManyConnections(t *testing.T) {
	const clients, limit = 100, 64
	srv, socket := start(t, controld.Config{ServiceUID: os.Getuid()})
	var mu sync.Mutex
	var followers []io.Closer
	refused := 0
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			resp, err := client(socket).Do(newRequest("GET", "/v1/events?follow=1", ""))
			if !assert.NoError(t, err) {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if resp.StatusCode == http.StatusOK {
				followers = append(followers, resp.Body)
				return
			}
			defer resp.Body.Close()
			refused++
			body, err := io.ReadAll(resp.Body)
			assert.NoError(t, err)
			requireError(t, resp, string(body), http.StatusServiceUnavailable, control.CodeBusy)
		})
	}
	all.Wait()
	t.Logf("%d clients: %d served, %d refused", clients, len(followers), refused)
	assert.Len(t, followers, limit)
	assert.Equal(t, clients-limit, refused)

	resp, body := ask(t, socket, "POST", "/v1/upgrade", "{}")
	requireError(t, resp, body, http.StatusServiceUnavailable, control.CodeBusy)
	for _, f := range followers {
		f.Close()
	}
	require.Eventually(t, func() bool { served, surplus := srv.Connections(); return served+surplus == 0 }, patience, time.Millisecond)
	for range clients {
		resp, _ := ask(t, socket, "GET", "/v1/status", "")
		require.Equal(t, http.StatusOK, resp.StatusCode)
	}
}

// With all places taken, and those for an apology, too, a connection is still
// told why, and closed.
func TestFarTooManyConnections(t *testing.T) {
	srv, socket := start(t, controld.Config{ServiceUID: os.Getuid(), Limits: controld.Limits{Conns: 2}})
	var idle []io.Closer
	for range 4 {
		idle = append(idle, dial(t, socket))
	}
	require.Eventually(t, func() bool { served, surplus := srv.Connections(); return served+surplus == 4 }, patience, time.Millisecond)
	resp, body := parse(t, "GET", exchange(t, socket, ""))
	requireError(t, resp, body, http.StatusServiceUnavailable, control.CodeBusy)
	for _, c := range idle {
		require.NoError(t, c.Close())
	}
	require.Eventually(t, func() bool { served, surplus := srv.Connections(); return served+surplus == 0 }, patience, time.Millisecond)
	r, _ := ask(t, socket, "GET", "/v1/status", "")
	assert.Equal(t, http.StatusOK, r.StatusCode)
}
