package control_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

// call makes one of the requests that are answered with events and a result.
type call func(t *testing.T, c *control.Client, on func(control.Event)) (*control.Result, error)

func upgrade(req control.UpgradeRequest) call {
	return func(t *testing.T, c *control.Client, on func(control.Event)) (*control.Result, error) {
		return c.Upgrade(t.Context(), req, on)
	}
}

func promote(req control.PromoteRequest) call {
	return func(t *testing.T, c *control.Client, on func(control.Event)) (*control.Result, error) {
		return c.Promote(t.Context(), req, on)
	}
}

func rollback(req control.RollbackRequest) call {
	return func(t *testing.T, c *control.Client, on func(control.Event)) (*control.Result, error) {
		return c.Rollback(t.Context(), req, on)
	}
}

func TestRollout(t *testing.T) {
	upgradeRequest := control.UpgradeRequest{
		Wait: control.WaitDrained, Queue: true, Timeout: 60, Reason: "why", Via: control.ViaAPI, IfChanged: true, StageTimeout: 600, Binary: "/opt/app",
		Auto: &control.Auto{Steps: []control.Step{{Share: 5, Time: 30}}, MinRequests: 10, MaxErrors: 1, MaxSlowdown: 2},
	}
	promoteRequest := control.PromoteRequest{Wait: control.WaitDrained, Timeout: 60, Reason: "why", Via: control.ViaAPI}
	rollbackRequest := control.RollbackRequest{Wait: control.WaitDrained, Timeout: 60, Reason: "why", Via: control.ViaAPI}
	for _, tt := range []struct {
		path string
		call call
		body func(t *testing.T, r *http.Request)
	}{
		{"/v1/upgrade", upgrade(upgradeRequest), func(t *testing.T, r *http.Request) { assertBody(t, upgradeRequest, r) }},
		{"/v1/promote", promote(promoteRequest), func(t *testing.T, r *http.Request) { assertBody(t, promoteRequest, r) }},
		{"/v1/rollback", rollback(rollbackRequest), func(t *testing.T, r *http.Request) { assertBody(t, rollbackRequest, r) }},
	} {
		t.Run(tt.path, func(t *testing.T) {
			want := control.Result{Outcome: control.OutcomeConfirmed, From: 6, To: 7, Version: "v2", Confirmed: 2.04, Rollback: true}
			c := &control.Client{Socket: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				assert.Equal(t, "POST "+tt.path, r.Method+" "+r.URL.RequestURI())
				tt.body(t, r)
				stream(
					line(t, control.Line{Event: &control.Event{Seq: 1, Phase: control.PhaseStart}}),
					"\n",                   // a keep-alive
					`{"heartbeat":1}`+"\n", // of a newer version
					line(t, control.Line{Event: &control.Event{Seq: 2, Phase: control.PhaseReady}}),
					line(t, control.Line{Result: &want}),
					"and whatever follows the result\n",
				)(w, r)
			}))}
			var phases []string
			got, err := tt.call(t, c, func(e control.Event) { phases = append(phases, e.Phase) })
			require.NoError(t, err)
			assert.Equal(t, &want, got)
			assert.Equal(t, []string{"start", "ready"}, phases)

			_, err = tt.call(t, c, nil)
			require.NoError(t, err)
		})
	}
}

// A nil error is the promise that what was asked for is so. So no other end may
// give one.
func TestRolloutOutcomes(t *testing.T) {
	all := []string{
		control.OutcomeConfirmed, control.OutcomeFailed, control.OutcomeFellBack, control.OutcomeTimedOut, control.OutcomeStopped,
		control.OutcomeRefused, control.OutcomeStaged, control.OutcomeRolledBack, control.OutcomeInconclusive, control.OutcomeChecked,
		control.OutcomeUnchanged, control.OutcomeUnknown, "of the future", "",
	}
	for _, tt := range []struct {
		name     string
		call     call
		good     []string
		rollback bool // the result is of a rollback
	}{
		{"upgrade", upgrade(control.UpgradeRequest{}), []string{control.OutcomeConfirmed}, false},
		{"automatic upgrade", upgrade(control.UpgradeRequest{Auto: new(control.Auto)}), []string{control.OutcomeConfirmed}, false},
		{"staged upgrade", upgrade(control.UpgradeRequest{Stage: 5}), []string{control.OutcomeStaged}, false},
		// An older service ignores what it does not know, and upgrades.
		{"dry run", upgrade(control.UpgradeRequest{DryRun: true}), []string{control.OutcomeChecked}, false},
		{"dry run of a staged upgrade", upgrade(control.UpgradeRequest{DryRun: true, Stage: 5}), []string{control.OutcomeChecked}, false},
		{"upgrade if changed", upgrade(control.UpgradeRequest{IfChanged: true}), []string{control.OutcomeConfirmed, control.OutcomeUnchanged}, false},
		{"staged upgrade if changed", upgrade(control.UpgradeRequest{IfChanged: true, Stage: 5}), []string{control.OutcomeStaged, control.OutcomeUnchanged}, false},
		{"dry run if changed", upgrade(control.UpgradeRequest{IfChanged: true, DryRun: true}), []string{control.OutcomeChecked, control.OutcomeUnchanged}, false},
		{"promote", promote(control.PromoteRequest{}), []string{control.OutcomeConfirmed}, false},
		{"promote to a share", promote(control.PromoteRequest{Share: 50}), []string{control.OutcomeStaged}, false},
		{"rollback", rollback(control.RollbackRequest{}), []string{control.OutcomeConfirmed, control.OutcomeRolledBack}, true},
		{"rollback of an upgrade in progress", rollback(control.RollbackRequest{}), []string{control.OutcomeRolledBack}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var result control.Result
			c := &control.Client{Socket: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				stream(line(t, control.Line{Result: &result}))(w, r)
			}))}
			var good []string
			for _, outcome := range all {
				result = control.Result{Outcome: outcome, Rollback: tt.rollback, Error: control.Errorf(control.CodeRolledBack, "why")}
				got, err := tt.call(t, c, nil)
				require.NotNil(t, got)
				assert.Equal(t, outcome, got.Outcome)
				if err == nil {
					good = append(good, outcome)
					continue
				}
				requireCode(t, err, control.CodeRolledBack)

				result.Error = nil
				got, err = tt.call(t, c, nil)
				e := requireCode(t, err, control.CodeInternal)
				switch outcome {
				case control.OutcomeConfirmed, control.OutcomeStaged, control.OutcomeChecked, control.OutcomeUnchanged:
					assert.Equal(t, &result, got, "it is as true as ever")
				default:
					assert.Same(t, e, got.Error, "a reason in any case")
				}
			}
			assert.ElementsMatch(t, tt.good, good)
		})
	}
}

// Nor may an answer that is none, or half of one.
func TestRolloutBreaks(t *testing.T) {
	failed := control.Errorf(control.CodeStartFailed, "exit status 3")
	event := line(t, control.Line{Event: &control.Event{Seq: 1}})
	full := line(t, control.Line{Result: &control.Result{Outcome: control.OutcomeConfirmed, To: 7}})
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		code    string
		outcome string
	}{
		{"failed", stream(event, line(t, control.Line{Result: &control.Result{Outcome: control.OutcomeFailed, Error: failed}})), control.CodeStartFailed, control.OutcomeFailed},
		{"an empty result", stream(line(t, control.Line{Result: &control.Result{}})), control.CodeInternal, ""},
		{"ended by an error", stream(event, line(t, control.Line{Error: control.Errorf(control.CodeStopping, "stopping")})), control.CodeStopping, control.OutcomeUnknown},
		{"refused", answer(http.StatusConflict, control.Line{Error: control.Errorf(control.CodeInProgress, "busy")}), control.CodeInProgress, control.OutcomeRefused},
		{"not staged", answer(http.StatusConflict, control.Line{Error: control.Errorf(control.CodeNotStaged, "no")}), control.CodeNotStaged, control.OutcomeRefused},
		{"of an older service", answer(http.StatusNotFound, nil), control.CodeNotFound, control.OutcomeRefused},
		{"broken down", answer(http.StatusInternalServerError, control.Line{Error: control.Errorf(control.CodeInternal, "panic")}), control.CodeInternal, control.OutcomeUnknown},
		{"no result", stream(event), control.CodeUnknown, control.OutcomeUnknown},
		{"nothing at all", stream(), control.CodeUnknown, control.OutcomeUnknown},
		{"cut after the event", cut(event), control.CodeUnknown, control.OutcomeUnknown},
		{"cut before the answer", cut(), control.CodeUnknown, control.OutcomeUnknown},
		{"cut in the result", cut(event, full[:len(full)-10]), control.CodeUnknown, control.OutcomeUnknown},
		{"ended in the result", stream(event, full[:len(full)-10]), control.CodeUnknown, control.OutcomeUnknown},
		{"ended before the newline", stream(event, full[:len(full)-1]), control.CodeUnknown, control.OutcomeUnknown},
		{"not JSON", stream(event, "confirmed\n"), control.CodeUnknown, control.OutcomeUnknown},
		{"a line without end", stream(event, strings.Repeat("x", 2<<20)), control.CodeUnknown, control.OutcomeUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &control.Client{Socket: serve(t, tt.handler)}
			for _, call := range []call{upgrade(control.UpgradeRequest{}), promote(control.PromoteRequest{}), rollback(control.RollbackRequest{})} {
				result, err := call(t, c, nil)
				e := requireCode(t, err, tt.code)
				require.NotNil(t, result)
				assert.Equal(t, tt.outcome, result.Outcome)
				assert.Same(t, e, result.Error)
			}
		})
	}
}

// A context that ends stops the waiting: then there is no result.
func TestRolloutCancelled(t *testing.T) {
	c := &control.Client{Socket: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then net/http notices
		stream(line(t, control.Line{Event: &control.Event{Seq: 1}}))(w, r)
		<-r.Context().Done() // that the client closed its end
	}))}
	for name, call := range map[string]func(context.Context, func(control.Event)) (*control.Result, error){
		"promote": func(ctx context.Context, on func(control.Event)) (*control.Result, error) {
			return c.Promote(ctx, control.PromoteRequest{}, on)
		},
		"rollback": func(ctx context.Context, on func(control.Event)) (*control.Result, error) {
			return c.Rollback(ctx, control.RollbackRequest{}, on)
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			result, err := call(ctx, func(control.Event) { cancel() })
			require.ErrorIs(t, err, context.Canceled)
			assert.Nil(t, result)
		})
	}
}

// A request in the queue, a promotion and a rollback follow the main generation,
// with what is left of their time; an upgrade that is not in the queue does not.
func TestRolloutFollowsMain(t *testing.T) {
	notMain := control.Errorf(control.CodeNotMain, "not main")
	for _, tt := range []struct {
		name    string
		call    func(timeout float64) call
		follows bool
		unasked bool // refused at once, without an event
	}{
		{"upgrade", func(timeout float64) call { return upgrade(control.UpgradeRequest{Timeout: timeout}) }, false, false},
		{"upgrade in the queue", func(timeout float64) call { return upgrade(control.UpgradeRequest{Queue: true, Timeout: timeout}) }, true, false},
		{"promote", func(timeout float64) call { return promote(control.PromoteRequest{Timeout: timeout}) }, true, true},
		{"rollback", func(timeout float64) call { return rollback(control.RollbackRequest{Timeout: timeout}) }, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []float64 // timeouts
			moves, refusal := 0, control.OutcomeRefused
			c := &control.Client{Socket: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var req control.UpgradeRequest // they all have a timeout
				assert.NoError(t, json.NewDecoder(r.Body).Decode(&req))
				got = append(got, req.Timeout)
				result := &control.Result{Outcome: refusal, Error: notMain}
				switch {
				case len(got) > moves:
					stream(line(t, control.Line{Result: &control.Result{Outcome: control.OutcomeConfirmed, Rollback: true}}))(w, r)
				case tt.unasked:
					answer(http.StatusPreconditionFailed, control.Line{Error: notMain, Result: result})(w, r)
				default:
					stream(line(t, control.Line{Event: &control.Event{Phase: control.PhaseQueued}}), line(t, control.Line{Result: result}))(w, r)
				}
			}))}

			moves = 3
			r, err := tt.call(60)(t, c, nil)
			if !tt.follows {
				requireCode(t, err, control.CodeNotMain)
				assert.Equal(t, control.OutcomeRefused, r.Outcome)
				assert.Len(t, got, 1)
				return
			}
			require.NoError(t, err)
			require.Len(t, got, 4)
			for i := range 3 {
				assert.Less(t, got[i+1], got[i])
			}

			got = nil
			_, err = tt.call(0)(t, c, nil)
			require.NoError(t, err)
			assert.Equal(t, []float64{0, 0, 0, 0}, got, "none is none")

			got = nil
			r, err = tt.call(1e-9)(t, c, nil)
			requireCode(t, err, control.CodeTimedOut)
			assert.Equal(t, control.OutcomeTimedOut, r.Outcome)
			assert.Len(t, got, 1)

			got, moves = nil, 1000
			r, err = tt.call(0)(t, c, nil)
			requireCode(t, err, control.CodeNotMain)
			assert.Equal(t, control.OutcomeRefused, r.Outcome)
			assert.Len(t, got, 20)

			if !tt.unasked { // something was tried: to ask again would be to do it twice
				got, refusal = nil, control.OutcomeFailed
				_, err = tt.call(0)(t, c, nil)
				requireCode(t, err, control.CodeNotMain)
				assert.Len(t, got, 1)
			}
		})
	}
}
