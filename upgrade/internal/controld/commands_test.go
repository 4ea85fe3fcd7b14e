package controld_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
)

func TestDrain(t *testing.T) {
	held := false
	var got control.DrainRequest
	var peer controld.Peer
	_, socket := start(t, controld.Config{Backend: &backend{
		drain: func(_ context.Context, req control.DrainRequest, p controld.Peer) error {
			held, got, peer = !req.Undo, req, p
			return nil
		},
		status: func() *control.Status {
			s := &control.Status{Service: "app"}
			if held {
				s.Held = new(control.Hold)
			}
			return s
		},
	}})
	resp, body := ask(t, socket, "POST", "/v1/drain", `{"reason":"disk\nfull","later":1}`)
	assert.Equal(t, http.StatusOK, resp.StatusCode, body)
	requireHeader(t, resp)
	assert.Equal(t, "application/json", resp.Header.Get("Content-Type"))
	assert.Contains(t, body, `"held":{`, "the status is that after it")
	assert.Equal(t, control.DrainRequest{Reason: "disk full", Via: control.ViaAPI}, got)
	assert.Equal(t, os.Getpid(), peer.PID)
	assert.True(t, peer.Command)

	c := control.Client{Socket: socket}
	s, err := c.Drain(t.Context(), control.DrainRequest{Undo: true, Via: control.ViaHdctl})
	require.NoError(t, err)
	assert.Nil(t, s.Held)
	assert.Equal(t, control.DrainRequest{Undo: true, Via: control.ViaHdctl}, got)
}

func TestEnd(t *testing.T) {
	var got control.EndRequest
	var peer controld.Peer
	result := &control.EndResult{Generations: []int{6, 5}}
	_, socket := start(t, controld.Config{Backend: &backend{
		end: func(_ context.Context, req control.EndRequest, p controld.Peer) (*control.EndResult, error) {
			got, peer = req, p
			return result, nil
		},
	}})
	resp, body := ask(t, socket, "POST", "/v1/end", "")
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	requireHeader(t, resp)
	assert.Equal(t, `{"generations":[6,5]}`+"\n", body)
	assert.Equal(t, control.EndRequest{Via: control.ViaAPI}, got)
	assert.Equal(t, os.Getpid(), peer.PID)
	assert.True(t, peer.Command)

	c := control.Client{Socket: socket}
	req := control.EndRequest{Generation: 6, Grace: 2.5, Kill: true, Via: control.ViaHdctl}
	r, err := c.End(t.Context(), req)
	require.NoError(t, err)
	assert.Equal(t, result, r)
	assert.Equal(t, req, got)

	result = new(control.EndResult)
	_, body = ask(t, socket, "POST", "/v1/end", "{}")
	assert.Equal(t, `{"generations":[]}`+"\n", body, "a list, even if it is empty")
	result = nil
	resp, body = ask(t, socket, "POST", "/v1/end", "{}")
	requireError(t, resp, body, http.StatusInternalServerError, control.CodeInternal)
}

func TestPause(t *testing.T) {
	paused := false
	var got control.PauseRequest
	var peer controld.Peer
	_, socket := start(t, controld.Config{Backend: &backend{
		pause: func(_ context.Context, req control.PauseRequest, p controld.Peer) error {
			paused, got, peer = !req.Undo, req, p
			return nil
		},
		status: func() *control.Status {
			s := &control.Status{Service: "app"}
			if paused {
				s.Paused = new(control.Pause)
			}
			return s
		},
	}})
	resp, body := ask(t, socket, "POST", "/v1/pause", `{"reason":"black\nfriday","later":1}`)
	assert.Equal(t, http.StatusOK, resp.StatusCode, body)
	requireHeader(t, resp)
	assert.Equal(t, "application/json", resp.Header.Get("Content-Type"))
	assert.Contains(t, body, `"paused":{`, "the status is that after it")
	assert.Equal(t, control.PauseRequest{Reason: "black friday", Via: control.ViaAPI}, got)
	assert.Equal(t, os.Getpid(), peer.PID)
	assert.True(t, peer.Command)

	c := control.Client{Socket: socket}
	s, err := c.Pause(t.Context(), control.PauseRequest{Undo: true, Via: control.ViaHdctl})
	require.NoError(t, err)
	assert.Nil(t, s.Paused)
	assert.Equal(t, control.PauseRequest{Undo: true, Via: control.ViaHdctl}, got)
}

func TestReconfigure(t *testing.T) {
	var got control.ReconfigureRequest
	var peer controld.Peer
	result := &control.ReconfigureResult{Took: 0.25}
	_, socket := start(t, controld.Config{Backend: &backend{
		reconfigure: func(_ context.Context, req control.ReconfigureRequest, p controld.Peer) (*control.ReconfigureResult, error) {
			got, peer = req, p
			return result, nil
		},
	}})
	resp, body := ask(t, socket, "POST", "/v1/reconfigure", "")
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	requireHeader(t, resp)
	assert.Equal(t, `{"took_s":0.25}`+"\n", body)
	assert.Equal(t, control.ReconfigureRequest{Via: control.ViaAPI}, got)
	assert.Equal(t, os.Getpid(), peer.PID)
	assert.True(t, peer.Command)

	c := control.Client{Socket: socket}
	req := control.ReconfigureRequest{Reason: "new limits", Via: control.ViaHdctl}
	r, err := c.Reconfigure(t.Context(), req)
	require.NoError(t, err)
	assert.Equal(t, result, r)
	assert.Equal(t, req, got)

	result = nil
	resp, body = ask(t, socket, "POST", "/v1/reconfigure", "{}")
	requireError(t, resp, body, http.StatusInternalServerError, control.CodeInternal)
}

// commandPaths are all requests that are done when they are answered.
var commandPaths = []string{"/v1/drain", "/v1/end", "/v1/pause", "/v1/reconfigure"}

// commanding is a Backend that does the same for all of them.
func commanding(do func(ctx context.Context) error) *backend {
	return &backend{
		drain: func(ctx context.Context, _ control.DrainRequest, _ controld.Peer) error { return do(ctx) },
		end: func(ctx context.Context, _ control.EndRequest, _ controld.Peer) (*control.EndResult, error) {
			return nil, do(ctx)
		},
		pause: func(ctx context.Context, _ control.PauseRequest, _ controld.Peer) error { return do(ctx) },
		reconfigure: func(ctx context.Context, _ control.ReconfigureRequest, _ controld.Peer) (*control.ReconfigureResult, error) {
			return nil, do(ctx)
		},
	}
}

func TestCommandsRefused(t *testing.T) {
	tests := []struct {
		code   string
		status int
	}{
		{control.CodeInProgress, http.StatusConflict},
		{control.CodeCrowded, http.StatusConflict},
		{control.CodeHeld, http.StatusConflict},
		{control.CodePaused, http.StatusConflict},
		{control.CodeGeneration, http.StatusNotFound},
		{control.CodeReconfigure, http.StatusPreconditionFailed},
		{control.CodeUnsupported, http.StatusNotImplemented},
		{control.CodeNotServing, http.StatusPreconditionFailed},
		{control.CodeStopping, http.StatusServiceUnavailable},
		{"something_new", http.StatusInternalServerError},
	}
	for _, tt := range tests {
		t.Run(tt.code, func(t *testing.T) {
			refusal := control.Errorf(tt.code, "no").WithHint("later")
			_, socket := start(t, controld.Config{Backend: commanding(func(context.Context) error {
				return fmt.Errorf("wrapped: %w", refusal)
			})})
			for _, path := range commandPaths {
				resp, body := ask(t, socket, "POST", path, "")
				r := requireError(t, resp, body, tt.status, tt.code)
				assert.Equal(t, refusal, r.Error, "as it is")
				assert.Nil(t, r.Result)
			}
		})
	}
	t.Run("by any other error", func(t *testing.T) {
		_, socket := start(t, controld.Config{Backend: commanding(func(context.Context) error { return errors.New("no memory") })})
		for _, path := range commandPaths {
			resp, body := ask(t, socket, "POST", path, "")
			r := requireError(t, resp, body, http.StatusInternalServerError, control.CodeInternal)
			assert.Equal(t, "no memory", r.Error.Message)
		}
	})
}

func TestCommandsBadRequest(t *testing.T) {
	called := make(chan struct{}, 100)
	_, socket := start(t, controld.Config{Backend: commanding(func(context.Context) error {
		called <- struct{}{}
		return nil
	})})
	large := strings.Repeat(" ", 64<<10) + "{}"
	for _, tt := range []struct{ name, path, body, code string }{
		{"drain: not JSON", "/v1/drain", "undo", control.CodeBadRequest},
		{"drain: type", "/v1/drain", `{"undo":"yes"}`, control.CodeBadRequest},
		{"drain: via", "/v1/drain", `{"via":"signal"}`, control.CodeBadRequest},
		{"drain: large", "/v1/drain", large, control.CodeTooLarge},
		{"end: not JSON", "/v1/end", "6", control.CodeBadRequest},
		{"end: generation", "/v1/end", `{"generation":-1}`, control.CodeBadRequest},
		{"end: grace", "/v1/end", `{"grace_s":1e9}`, control.CodeBadRequest},
		{"end: large", "/v1/end", large, control.CodeTooLarge},
		{"pause: not JSON", "/v1/pause", "undo", control.CodeBadRequest},
		{"pause: type", "/v1/pause", `{"undo":"yes"}`, control.CodeBadRequest},
		{"pause: via", "/v1/pause", `{"via":"signal"}`, control.CodeBadRequest},
		{"pause: large", "/v1/pause", large, control.CodeTooLarge},
		{"reconfigure: not JSON", "/v1/reconfigure", "now", control.CodeBadRequest},
		{"reconfigure: type", "/v1/reconfigure", `{"reason":1}`, control.CodeBadRequest},
		{"reconfigure: via", "/v1/reconfigure", `{"via":"signal"}`, control.CodeBadRequest},
		{"reconfigure: large", "/v1/reconfigure", large, control.CodeTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := ask(t, socket, "POST", tt.path, tt.body)
			requireError(t, resp, body, controld.StatusOf(tt.code), tt.code)
		})
	}
	assert.Empty(t, called)
}

// The generation ends while it does what it was told: what became of it is not
// known, and no answer says that it is. What the Backend knows is told.
func TestCloseDuringCommand(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error // nil: that of the context
		code string
	}{
		{"unknown", nil, ""},
		{"refused", control.Errorf(control.CodeStopping, "stopped"), control.CodeStopping},
	} {
		for _, path := range commandPaths {
			t.Run(tt.name+path, func(t *testing.T) {
				begun := make(chan struct{})
				srv, socket := start(t, controld.Config{Backend: commanding(func(ctx context.Context) error {
					close(begun)
					<-ctx.Done()
					if tt.err != nil {
						return tt.err
					}
					return ctx.Err()
				})})
				c := dial(t, socket)
				_, err := io.WriteString(c, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
				require.NoError(t, err)
				wait(t, begun, "the command begins")
				require.NoError(t, srv.Close())
				answer, err := io.ReadAll(c)
				require.NoError(t, err)
				if tt.code == "" {
					assert.Empty(t, answer)
					return
				}
				resp, body := parse(t, "POST", string(answer))
				requireError(t, resp, body, controld.StatusOf(tt.code), tt.code)
			})
		}
	}
}
