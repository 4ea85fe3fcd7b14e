package control_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

func TestDrainAndEnd(t *testing.T) {
	drain := control.DrainRequest{Undo: true, Reason: "why", Via: control.ViaHdctl}
	end := control.EndRequest{Generation: 6, Grace: -1, Kill: true, Via: control.ViaHdctl}
	status := &control.Status{Service: "app", Held: &control.Hold{Trigger: control.Trigger{Via: control.ViaHdctl}}}
	result := &control.EndResult{Generations: []int{6}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/drain", func(w http.ResponseWriter, r *http.Request) {
		assertBody(t, drain, r)
		answer(http.StatusOK, status)(w, r)
	})
	mux.HandleFunc("POST /v1/end", func(w http.ResponseWriter, r *http.Request) {
		assertBody(t, end, r)
		answer(http.StatusOK, result)(w, r)
	})
	c := &control.Client{Socket: serve(t, mux)}
	gotStatus, err := c.Drain(t.Context(), drain)
	require.NoError(t, err)
	assert.Equal(t, status, gotStatus)
	gotResult, err := c.End(t.Context(), end)
	require.NoError(t, err)
	assert.Equal(t, result, gotResult)
}

func TestPauseAndReconfigure(t *testing.T) {
	pause := control.PauseRequest{Undo: true, Reason: "why", Via: control.ViaHdctl}
	reconfigure := control.ReconfigureRequest{Reason: "why", Via: control.ViaHdctl}
	status := &control.Status{Service: "app", Paused: &control.Pause{User: "deploy"}}
	result := &control.ReconfigureResult{Took: 0.25}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/pause", func(w http.ResponseWriter, r *http.Request) {
		assertBody(t, pause, r)
		answer(http.StatusOK, status)(w, r)
	})
	mux.HandleFunc("POST /v1/reconfigure", func(w http.ResponseWriter, r *http.Request) {
		assertBody(t, reconfigure, r)
		answer(http.StatusOK, result)(w, r)
	})
	c := &control.Client{Socket: serve(t, mux)}
	gotStatus, err := c.Pause(t.Context(), pause)
	require.NoError(t, err)
	assert.Equal(t, status, gotStatus)
	gotResult, err := c.Reconfigure(t.Context(), reconfigure)
	require.NoError(t, err)
	assert.Equal(t, result, gotResult)
}

func TestCommandsFail(t *testing.T) {
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		code    string
	}{
		{"held", answer(http.StatusConflict, control.Line{Error: control.Errorf(control.CodeHeld, "held")}), control.CodeHeld},
		{"no such generation", answer(http.StatusNotFound, control.Line{Error: control.Errorf(control.CodeGeneration, "no")}), control.CodeGeneration},
		{"of an older service", answer(http.StatusNotFound, nil), control.CodeNotFound},
		{"not offered", answer(http.StatusNotImplemented, control.Line{Error: control.Errorf(control.CodeUnsupported, "no")}), control.CodeUnsupported},
		{"cut before the answer", cut(), control.CodeUnknown},
		{"cut in the answer", cut(`{"serv`), control.CodeUnknown},
		{"not JSON", stream("done\n"), control.CodeInternal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &control.Client{Socket: serve(t, tt.handler)}
			status, err := c.Drain(t.Context(), control.DrainRequest{})
			requireCode(t, err, tt.code)
			assert.Nil(t, status)
			result, err := c.End(t.Context(), control.EndRequest{})
			requireCode(t, err, tt.code)
			assert.Nil(t, result)
			status, err = c.Pause(t.Context(), control.PauseRequest{})
			requireCode(t, err, tt.code)
			assert.Nil(t, status)
			took, err := c.Reconfigure(t.Context(), control.ReconfigureRequest{})
			requireCode(t, err, tt.code)
			assert.Nil(t, took)
		})
	}
}
