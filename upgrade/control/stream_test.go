package control_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

func TestUpgrade(t *testing.T) {
	want := control.Result{Outcome: control.OutcomeConfirmed, From: 6, To: 7, Version: "v2", Confirmed: 2.04}
	req := control.UpgradeRequest{Wait: control.WaitDrained, Queue: true, Timeout: 60, Reason: "why", Via: control.ViaAPI}
	socket := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "POST /v1/upgrade", r.Method+" "+r.URL.RequestURI())
		assertBody(t, req, r)
		stream(
			line(t, control.Line{Event: &control.Event{Seq: 1, Phase: control.PhaseStart}}),
			"\n",                   // a keep-alive
			`{"heartbeat":1}`+"\n", // of a newer version
			line(t, control.Line{Event: &control.Event{Seq: 2, Phase: control.PhaseReady}}),
			line(t, control.Line{Result: &want}),
			"and whatever follows the result\n",
		)(w, r)
	}))
	c := &control.Client{Socket: socket}
	var phases []string
	got, err := c.Upgrade(t.Context(), req, func(e control.Event) { phases = append(phases, e.Phase) })
	require.NoError(t, err)
	assert.Equal(t, &want, got)
	assert.Equal(t, []string{"start", "ready"}, phases)

	_, err = c.Upgrade(t.Context(), req, nil)
	require.NoError(t, err)
}

// A nil error is the promise that the new version serves. So no other end may
// give one.
func TestUpgradeOnlyConfirmedIsNil(t *testing.T) {
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
		{"failed without a reason", stream(line(t, control.Line{Result: &control.Result{Outcome: control.OutcomeFellBack}})), control.CodeInternal, control.OutcomeFellBack},
		{"an outcome of the future", stream(line(t, control.Line{Result: &control.Result{Outcome: "staged"}})), control.CodeInternal, "staged"},
		{"an empty result", stream(line(t, control.Line{Result: &control.Result{}})), control.CodeInternal, ""},
		{"ended by an error", stream(event, line(t, control.Line{Error: control.Errorf(control.CodeStopping, "stopping")})), control.CodeStopping, control.OutcomeUnknown},
		{"refused", answer(http.StatusConflict, control.Line{Error: control.Errorf(control.CodeInProgress, "busy")}), control.CodeInProgress, control.OutcomeRefused},
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
			result, err := c.Upgrade(t.Context(), control.UpgradeRequest{}, nil)
			e := requireCode(t, err, tt.code)
			require.NotNil(t, result)
			assert.Equal(t, tt.outcome, result.Outcome)
			assert.Same(t, e, result.Error)
		})
	}
}

// A request in the queue follows the main generation, with what is left of its
// time; one that is not in the queue does not.
func TestUpgradeFollowsTheQueue(t *testing.T) {
	notMain := control.Line{Result: &control.Result{Outcome: control.OutcomeRefused, Error: control.Errorf(control.CodeNotMain, "not main")}}
	var got []control.UpgradeRequest
	moves := 0
	c := &control.Client{Socket: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req control.UpgradeRequest
		assert.NoError(t, json.NewDecoder(r.Body).Decode(&req))
		got = append(got, req)
		if len(got) <= moves {
			stream(line(t, control.Line{Event: &control.Event{Phase: control.PhaseQueued}}), line(t, notMain))(w, r)
			return
		}
		stream(line(t, control.Line{Result: &control.Result{Outcome: control.OutcomeConfirmed}}))(w, r)
	}))}

	moves = 3
	_, err := c.Upgrade(t.Context(), control.UpgradeRequest{Queue: true, Timeout: 60}, nil)
	require.NoError(t, err)
	require.Len(t, got, 4)
	for i := range 3 {
		assert.Less(t, got[i+1].Timeout, got[i].Timeout)
	}

	got = nil
	r, err := c.Upgrade(t.Context(), control.UpgradeRequest{}, nil)
	requireCode(t, err, control.CodeNotMain)
	assert.Equal(t, control.OutcomeRefused, r.Outcome)
	assert.Len(t, got, 1)

	got = nil
	r, err = c.Upgrade(t.Context(), control.UpgradeRequest{Queue: true, Timeout: 1e-9}, nil)
	requireCode(t, err, control.CodeTimedOut)
	assert.Equal(t, control.OutcomeTimedOut, r.Outcome)
	assert.Len(t, got, 1)

	got, moves = nil, 1000
	r, err = c.Upgrade(t.Context(), control.UpgradeRequest{Queue: true}, nil)
	requireCode(t, err, control.CodeNotMain)
	assert.Equal(t, control.OutcomeRefused, r.Outcome)
	assert.Len(t, got, 20)
}

// cut writes lines and then drops the connection.
func cut(lines ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if len(lines) == 0 {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		stream(lines...)(w, r)
		panic(http.ErrAbortHandler)
	}
}

func TestEvents(t *testing.T) {
	lines := []string{
		line(t, control.Line{Event: &control.Event{Seq: 1, Phase: control.PhaseServing}}),
		line(t, control.Line{Event: &control.Event{Seq: 2, Phase: control.PhaseDraining}}),
	}
	var query string
	c := &control.Client{Socket: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query = r.URL.RequestURI()
		stream(lines...)(w, r)
	}))}
	var got []uint64
	collect := func(e control.Event) error {
		got = append(got, e.Seq)
		return nil
	}

	require.NoError(t, c.Events(t.Context(), false, collect))
	assert.Equal(t, "/v1/events", query)
	assert.Equal(t, []uint64{1, 2}, got)

	// A followed stream has no end of its own.
	requireCode(t, c.Events(t.Context(), true, collect), control.CodeUnknown)
	assert.Equal(t, "/v1/events?follow=1", query)
	assert.Equal(t, []uint64{1, 2, 1, 2}, got)

	stop := errors.New("stop")
	require.ErrorIs(t, c.Events(t.Context(), true, func(control.Event) error { return stop }), stop)

	lines = append(lines, line(t, control.Line{Error: control.Errorf(control.CodeBusy, "too slow")}))
	requireCode(t, c.Events(t.Context(), false, collect), control.CodeBusy)
}
