package controld_test

import (
	"bufio"
	"context"
	"io"
	"math"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
)

// rolloutPaths are all requests that are answered with events and a result.
var rolloutPaths = []string{"/v1/upgrade", "/v1/promote", "/v1/rollback"}

// rolling is a Backend that does the same for all of them. What was asked for
// is an UpgradeRequest, a PromoteRequest or a RollbackRequest.
func rolling(run func(ctx context.Context, req any, p controld.Peer, emit func(control.Event)) *control.Result) *backend {
	return &backend{
		upgrade: func(ctx context.Context, req control.UpgradeRequest, p controld.Peer, emit func(control.Event)) *control.Result {
			return run(ctx, req, p, emit)
		},
		promote: func(ctx context.Context, req control.PromoteRequest, p controld.Peer, emit func(control.Event)) *control.Result {
			return run(ctx, req, p, emit)
		},
		rollback: func(ctx context.Context, req control.RollbackRequest, p controld.Peer, emit func(control.Event)) *control.Result {
			return run(ctx, req, p, emit)
		},
	}
}

func TestRolloutStreams(t *testing.T) {
	for _, tt := range []struct {
		path, body string
		want       any
	}{
		{"/v1/upgrade", `{"wait":"drained","queue":true,"timeout_s":1.5,"stage_pct":5,"new_field":[1]}`, control.UpgradeRequest{
			Wait: control.WaitDrained, Via: control.ViaAPI, Queue: true, Timeout: 1.5, Stage: 5,
		}},
		{"/v1/promote", `{"share_pct":50,"timeout_s":1.5,"reason":"looks\ngood","new_field":[1]}`, control.PromoteRequest{
			Share: 50, Wait: control.WaitConfirmed, Via: control.ViaAPI, Timeout: 1.5, Reason: "looks good",
		}},
		{"/v1/rollback", `{"wait":"drained","via":"hdctl","new_field":[1]}`, control.RollbackRequest{
			Wait: control.WaitDrained, Via: control.ViaHdctl,
		}},
	} {
		t.Run(tt.path, func(t *testing.T) {
			goOn := make(chan struct{})
			var got any
			var peer controld.Peer
			_, socket := start(t, controld.Config{Backend: rolling(func(_ context.Context, req any, p controld.Peer, emit func(control.Event)) *control.Result {
				got, peer = req, p
				emit(control.Event{Seq: 1, Phase: control.PhaseStart})
				<-goOn
				emit(control.Event{Seq: 2, Phase: control.PhaseReady})
				return &control.Result{Outcome: control.OutcomeFailed, Error: control.Errorf(control.CodeStartFailed, "exit status 3")}
			})})
			resp, err := client(socket).Do(newRequest("POST", tt.path, tt.body))
			require.NoError(t, err)
			defer resp.Body.Close()
			require.Equal(t, http.StatusOK, resp.StatusCode)
			requireHeader(t, resp)
			assert.Equal(t, "application/jsonl", resp.Header.Get("Content-Type"))
			r := bufio.NewReader(resp.Body)
			first, err := r.ReadString('\n') // arrives while it still runs
			require.NoError(t, err)
			close(goOn)
			rest, err := io.ReadAll(r)
			require.NoError(t, err)

			all := lines(t, first+string(rest))
			require.Len(t, all, 3)
			assert.Equal(t, control.PhaseStart, all[0].Event.Phase)
			assert.Equal(t, control.PhaseReady, all[1].Event.Phase)
			assert.Equal(t, control.OutcomeFailed, all[2].Result.Outcome)
			assert.Equal(t, control.CodeStartFailed, all[2].Result.Error.Code)
			assert.Equal(t, tt.want, got)
			assert.Equal(t, os.Getpid(), peer.PID)
			assert.True(t, peer.Command)
		})
	}
}

func TestRolloutRefused(t *testing.T) {
	tests := []struct {
		code   string
		status int
	}{
		{control.CodeInProgress, http.StatusConflict},
		{control.CodePaused, http.StatusConflict},
		{control.CodeNotStaged, http.StatusConflict},
		{control.CodeNoPrevious, http.StatusConflict},
		{control.CodeBinary, http.StatusForbidden},
		{control.CodeNotMain, http.StatusPreconditionFailed},
		{control.CodeNotServing, http.StatusPreconditionFailed},
		{control.CodeContainer, http.StatusPreconditionFailed},
		{control.CodeCheckFailed, http.StatusPreconditionFailed},
		{control.CodeStopping, http.StatusServiceUnavailable},
		{control.CodeUnsupported, http.StatusNotImplemented},
		{control.CodeInternal, http.StatusInternalServerError},
		{control.CodeTimedOut, http.StatusGatewayTimeout},
		{"something_new", http.StatusInternalServerError},
	}
	for _, tt := range tests {
		t.Run(tt.code, func(t *testing.T) {
			_, socket := start(t, controld.Config{Backend: rolling(func(context.Context, any, controld.Peer, func(control.Event)) *control.Result {
				return &control.Result{Outcome: control.OutcomeRefused, From: 7, Error: control.Errorf(tt.code, "no").WithHint("later")}
			})})
			for _, path := range rolloutPaths {
				resp, body := ask(t, socket, "POST", path, "")
				r := requireError(t, resp, body, tt.status, tt.code)
				assert.Equal(t, "later", r.Error.Hint)
				require.NotNil(t, r.Result)
				assert.Equal(t, control.OutcomeRefused, r.Result.Outcome)
				assert.Equal(t, 7, r.Result.From)
			}
		})
	}
}

// However it ends, the client gets an end that it can read.
func TestRolloutEnds(t *testing.T) {
	refused := &control.Result{Outcome: control.OutcomeRefused, Error: control.Errorf(control.CodeStopping, "no")}
	tests := []struct {
		name    string
		event   bool
		result  *control.Result
		status  int
		outcome string // of the last line; "" if that is an error
		code    string
	}{
		{"refused after an event", true, refused, http.StatusOK, control.OutcomeRefused, control.CodeStopping},
		{"without a result", false, nil, http.StatusOK, "", control.CodeInternal},
		{"without a result after an event", true, nil, http.StatusOK, "", control.CodeInternal},
		{
			"with a result that cannot be encoded", false,
			&control.Result{Outcome: control.OutcomeConfirmed, Total: math.NaN()},
			http.StatusOK, "", control.CodeInternal,
		},
		{
			"refused with a result that cannot be encoded", false,
			&control.Result{Outcome: control.OutcomeRefused, Total: math.NaN(), Error: control.Errorf(control.CodeInProgress, "no")},
			http.StatusConflict, "", control.CodeInProgress,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, socket := start(t, controld.Config{Backend: rolling(func(_ context.Context, _ any, _ controld.Peer, emit func(control.Event)) *control.Result {
				if tt.event {
					emit(control.Event{Phase: control.PhaseQueued})
				}
				return tt.result
			})})
			for _, path := range rolloutPaths {
				resp, body := ask(t, socket, "POST", path, "")
				if tt.status != http.StatusOK {
					assert.Nil(t, requireError(t, resp, body, tt.status, tt.code).Result)
					continue
				}
				assert.Equal(t, http.StatusOK, resp.StatusCode)
				all := lines(t, body)
				if tt.event {
					require.Len(t, all, 2)
					all = all[1:]
				}
				require.Len(t, all, 1)
				if tt.outcome == "" {
					require.NotNil(t, all[0].Error, body)
					assert.Equal(t, tt.code, all[0].Error.Code)
					continue
				}
				require.NotNil(t, all[0].Result, body)
				assert.Equal(t, tt.outcome, all[0].Result.Outcome)
				assert.Equal(t, tt.code, all[0].Result.Error.Code)
			}
		})
	}
}

func TestRolloutBadRequest(t *testing.T) {
	called := make(chan any, 100)
	_, socket := start(t, controld.Config{Backend: rolling(func(_ context.Context, req any, _ controld.Peer, _ func(control.Event)) *control.Result {
		called <- req
		return nil
	})})
	for _, path := range rolloutPaths {
		t.Run(path, func(t *testing.T) {
			resp, body := ask(t, socket, "POST", path, `{"timeout_s":"soon"}`)
			r := requireError(t, resp, body, http.StatusBadRequest, control.CodeBadRequest)
			assert.Contains(t, r.Error.Message, "timeout_s")
			assert.Nil(t, r.Result)
		})
	}
	for path, body := range map[string]string{
		"/v1/upgrade": `{"stage_pct":101}`,
		"/v1/promote": `{"share_pct":101}`,
	} {
		resp, body := ask(t, socket, "POST", path, body)
		requireError(t, resp, body, http.StatusBadRequest, control.CodeBadRequest)
	}
	assert.Empty(t, called, "nothing was tried")
}

// It outlives its client: the Backend sees its context end, and can go on for as
// long as it likes.
func TestClientLeavesDuringRollout(t *testing.T) {
	for _, path := range rolloutPaths {
		t.Run(path, func(t *testing.T) {
			left, goOn, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
			srv, socket := start(t, controld.Config{Backend: rolling(func(ctx context.Context, _ any, _ controld.Peer, emit func(control.Event)) *control.Result {
				defer close(done)
				emit(control.Event{Phase: control.PhaseStart})
				<-ctx.Done()
				close(left)
				<-goOn
				emit(control.Event{Phase: control.PhaseConfirmed}) // to nobody, and harmless
				return &control.Result{Outcome: control.OutcomeConfirmed}
			})})
			c := dial(t, socket)
			_, err := io.WriteString(c, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
			require.NoError(t, err)
			_, err = bufio.NewReader(c).ReadString('{') // the first event
			require.NoError(t, err)
			require.NoError(t, c.Close())
			wait(t, left, "the context of the request ends")

			resp, _ := ask(t, socket, "GET", "/v1/status", "")
			assert.Equal(t, http.StatusOK, resp.StatusCode, "others are not disturbed")
			close(goOn)
			wait(t, done, "it goes on to its end")
			require.Eventually(t, func() bool { served, _ := srv.Connections(); return served == 0 }, patience, time.Millisecond)
		})
	}
}

// The generation ends meanwhile: an end that it knows is told, and an answer
// without an end does not look complete.
func TestCloseDuringRollout(t *testing.T) {
	for _, tt := range []struct {
		name   string
		event  bool
		result *control.Result
	}{
		{"unknown, before an event", false, nil},
		{"unknown", true, nil},
		{"known", true, &control.Result{Outcome: control.OutcomeStopped, Error: control.Errorf(control.CodeStopping, "stopped")}},
	} {
		for _, path := range rolloutPaths {
			t.Run(tt.name+path, func(t *testing.T) {
				begun := make(chan struct{})
				srv, socket := start(t, controld.Config{Backend: rolling(func(ctx context.Context, _ any, _ controld.Peer, emit func(control.Event)) *control.Result {
					if tt.event {
						emit(control.Event{Phase: control.PhaseStart})
					}
					close(begun)
					<-ctx.Done()
					return tt.result
				})})
				c := dial(t, socket)
				_, err := io.WriteString(c, "POST "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
				require.NoError(t, err)
				wait(t, begun, "it begins")
				require.NoError(t, srv.Close())
				r := bufio.NewReader(c)
				if !tt.event {
					answer, err := io.ReadAll(r)
					require.NoError(t, err)
					assert.Empty(t, answer)
					return
				}
				resp, err := http.ReadResponse(r, nil)
				require.NoError(t, err)
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				all := lines(t, string(body))
				if tt.result == nil {
					require.ErrorIs(t, err, io.ErrUnexpectedEOF)
					assert.Len(t, all, 1)
					return
				}
				require.NoError(t, err)
				require.Len(t, all, 2)
				assert.Equal(t, tt.result, all[1].Result)
			})
		}
	}
}
