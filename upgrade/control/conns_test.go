package control_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

func TestConns(t *testing.T) {
	want := []control.Conn{
		{Generation: 7, PID: 42, Listener: "http", Peer: "192.0.2.1:5", State: control.ConnIdle, Doing: "GET /a", Age: 1.5, In: 10, Out: 20},
		{Generation: 7, PID: 42, Listener: "http", Peer: "b", State: control.ConnActive, Doing: "a \"quoted\" <\x01>", Age: 1e21, Quiet: 1e-9, In: -1},
		{Generation: 6, PID: 41, Listener: "echo", State: control.ConnStream, Age: 0.1, In: 1 << 60},
		{},
	}
	end := control.ConnsEnd{Total: 4, Missing: []control.MissingConns{{Generation: 5, Reason: "does not answer"}}}
	var query string
	c := &control.Client{Socket: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query = r.Method + " " + r.URL.RequestURI()
		stream(
			plain+"\n",
			"\n",
			`{"heartbeat":1}`+"\n", // of a newer version
			line(t, control.Line{Conn: &want[1]}),
			`{"conn":{"tls":{"version":"1.3"},"in_bytes":1152921504606846976,"listener":"echo","age_s":0.1,"state":"stream","pid":41,"generation":6}}`+"\n",
			line(t, control.Line{Conn: &want[3]}),
			line(t, control.Line{End: &end}),
			"and whatever follows the end\n",
		)(w, r)
	}))}
	var got []control.Conn
	gotEnd, err := c.Conns(t.Context(), control.ConnFilter{}, func(c control.Conn) { got = append(got, c) })
	require.NoError(t, err)
	assert.Equal(t, want, got)
	assert.Equal(t, &end, gotEnd)
	assert.Equal(t, "GET /v1/conns", query)

	gotEnd, err = c.Conns(t.Context(), control.ConnFilter{Generation: 6, State: control.ConnIdle, Listener: "a b&c"}, nil)
	require.NoError(t, err)
	assert.Equal(t, &end, gotEnd)
	assert.Equal(t, "GET /v1/conns?generation=6&listener=a+b%26c&state=idle", query)
}

// A nil error is the promise that the list is whole.
func TestConnsOnlyWholeIsNil(t *testing.T) {
	conn, end := plain+"\n", line(t, control.Line{End: &control.ConnsEnd{Total: 1}})
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		code    string
		conns   int
	}{
		{"refused", answer(http.StatusForbidden, control.Line{Error: control.Errorf(control.CodePermission, "no")}), control.CodePermission, 0},
		{"no such generation", answer(http.StatusNotFound, control.Line{Error: control.Errorf(control.CodeGeneration, "no")}), control.CodeGeneration, 0},
		{"of an older service", answer(http.StatusNotFound, nil), control.CodeNotFound, 0},
		{"ended by an error", stream(conn, line(t, control.Line{Error: control.Errorf(control.CodeStopping, "stopping")}), end), control.CodeStopping, 1},
		{"nothing at all", stream(), control.CodeUnknown, 0},
		{"no end", stream(conn, conn), control.CodeUnknown, 2},
		{"cut after a connection", cut(conn), control.CodeUnknown, 1},
		{"cut before the answer", cut(), control.CodeUnknown, 0},
		{"cut in a connection", cut(conn, conn[:40]), control.CodeUnknown, 1},
		{"ended in a connection", stream(conn, conn[:40]), control.CodeUnknown, 1},
		{"ended before its newline", stream(conn, conn[:len(conn)-1]), control.CodeUnknown, 1},
		{"ended in the end", stream(conn, end[:len(end)-1]), control.CodeUnknown, 1},
		{"half a connection", stream(conn, conn[:40]+"\n", conn, end), control.CodeUnknown, 1},
		{"not JSON", stream(conn, "none\n", end), control.CodeUnknown, 1},
		{"wrong types", stream(conn, strings.Replace(conn, "42", `"42"`, 1), end), control.CodeUnknown, 1},
		{"a line without end", stream(conn, strings.Replace(conn, "GET", strings.Repeat("x", 2<<20), 1), end), control.CodeUnknown, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &control.Client{Socket: serve(t, tt.handler)}
			n := 0
			got, err := c.Conns(t.Context(), control.ConnFilter{}, func(control.Conn) { n++ })
			requireCode(t, err, tt.code)
			assert.Nil(t, got)
			assert.Equal(t, tt.conns, n)
		})
	}
}

func TestConnsCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := &control.Client{Socket: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stream(plain+"\n")(w, r)
		<-r.Context().Done() // the client closed its end
	}))}
	_, err := c.Conns(ctx, control.ConnFilter{}, func(control.Conn) { cancel() })
	require.ErrorIs(t, err, context.Canceled)
}
