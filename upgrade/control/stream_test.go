package control_test

import (
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

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

func TestHistory(t *testing.T) {
	entry := func(to int) control.Entry {
		return control.Entry{Service: "app", User: "deploy", Record: control.Record{Result: control.Result{Outcome: control.OutcomeConfirmed, To: to}}}
	}
	entries := []control.Entry{entry(7), entry(6)}
	lines := []string{
		line(t, control.Line{Entry: &entries[0]}),
		"\n",
		`{"heartbeat":1}` + "\n", // of a newer version
		line(t, control.Line{Entry: &entries[1]}),
	}
	var query string
	c := &control.Client{Socket: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query = r.Method + " " + r.URL.RequestURI()
		stream(lines...)(w, r)
	}))}
	var got []control.Entry
	collect := func(e control.Entry) { got = append(got, e) }

	require.NoError(t, c.History(t.Context(), 0, collect))
	assert.Equal(t, "GET /v1/history", query)
	assert.Equal(t, entries, got)
	require.NoError(t, c.History(t.Context(), 20, nil))
	assert.Equal(t, "GET /v1/history?limit=20", query)

	lines = nil
	require.NoError(t, c.History(t.Context(), 0, nil), "there may be none")
}

// A nil error is the promise that the list is whole.
func TestHistoryOnlyWholeIsNil(t *testing.T) {
	entry := line(t, control.Line{Entry: &control.Entry{Service: "app"}})
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		code    string
		entries int
	}{
		{"not offered", answer(http.StatusNotImplemented, control.Line{Error: control.Errorf(control.CodeUnsupported, "no")}), control.CodeUnsupported, 0},
		{"of an older service", answer(http.StatusNotFound, nil), control.CodeNotFound, 0},
		{"ended by an error", stream(entry, line(t, control.Line{Error: control.Errorf(control.CodeStopping, "stopping")}), entry), control.CodeStopping, 1},
		{"cut after an entry", cut(entry), control.CodeUnknown, 1},
		{"cut before the answer", cut(), control.CodeUnknown, 0},
		{"cut in an entry", cut(entry, entry[:20]), control.CodeUnknown, 1},
		{"not JSON", stream(entry, "none\n"), control.CodeUnknown, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &control.Client{Socket: serve(t, tt.handler)}
			n := 0
			requireCode(t, c.History(t.Context(), 0, func(control.Entry) { n++ }), tt.code)
			assert.Equal(t, tt.entries, n)
		})
	}
}
