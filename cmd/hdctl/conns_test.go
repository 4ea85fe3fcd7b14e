package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

// manyConns is a list of n connections.
func manyConns(n int) *connList {
	l := &connList{target: target{name: "app"}, conns: make([]control.Conn, n), end: &control.ConnsEnd{Total: n}}
	for i := range l.conns {
		l.conns[i] = control.Conn{
			Generation: 7 - i%3, PID: 4000 + i%3, Listener: "http", Peer: fmt.Sprintf("192.0.2.%d:%d", i%256, 1024+i%60000), State: control.ConnIdle,
			Doing: "GET /api/v1/things", Age: float64(n - i), Quiet: float64(i % 100), In: int64(i) * 17, Out: int64(i) * 1234,
		}
	}
	return l
}

// countWrites counts what would be system calls.
type countWrites struct {
	bytes.Buffer
	writes int
}

func (w *countWrites) Write(p []byte) (int, error) {
	w.writes++
	return w.Buffer.Write(p)
}

// Many connections go out in few writes, whatever the format, and none is lost.
func TestConnsInFewWrites(t *testing.T) {
	const n = 10_000
	l := manyConns(n)
	for format, extra := range map[string]int{"table": 3, "wide": 3, "json": 2, "jsonl": 0} {
		t.Run(format, func(t *testing.T) {
			a, _, _ := testApp(t)
			out := new(countWrites)
			a.stdout, a.globals.Format = out, format
			require.NoError(t, l.show(a, 0))
			assert.Equal(t, n+extra, strings.Count(out.String(), "\n"))
			assert.Less(t, out.writes, out.Len()/(32<<10)+4)
		})
	}
}

// What cannot be written is an error: half a list is not a list.
func TestConnsWithoutStdout(t *testing.T) {
	a, _, _ := testApp(t)
	a.stdout, a.globals.Format = brokenWriter{}, "json"
	assert.Error(t, manyConns(3).show(a, 0))
}

// A screen shows the oldest, and says of how many.
func TestConnsOnScreen(t *testing.T) {
	l := manyConns(100)
	for _, tt := range []struct {
		name    string
		lines   int
		missing int
		legend  bool
		shown   int
		summary string
	}{
		{"all", 0, 0, true, 100, "100 connections: 34 of"},
		{"some", 20, 0, true, 17, "the oldest 17 of 100 connections: 34 of generation 7, 33 of generation 6, 33 of generation 5"},
		{"warnings", 20, 2, true, 15, "the oldest 15 of 100"},
		{"no legend", 20, 0, false, 20, ""},
		{"high", 103, 0, true, 100, "100 connections"},
		{"tiny", 2, 0, true, 1, "the oldest 1 of 100"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, stdout, _ := testApp(t)
			a.stderr = stdout // as on a screen
			a.globals.NoLegend = !tt.legend
			l.end.Missing = make([]control.MissingConns, tt.missing)
			require.NoError(t, l.show(a, tt.lines))
			assert.Equal(t, tt.shown, strings.Count(stdout.String(), "192.0.2."))
			assert.Contains(t, stdout.String(), tt.summary)
			if tt.lines > 4 {
				assert.LessOrEqual(t, strings.Count(stdout.String(), "\n"), tt.lines)
			}
		})
	}
}

func BenchmarkConns(b *testing.B) {
	l := manyConns(100_000)
	for _, format := range []string{"table", "wide", "json", "jsonl"} {
		b.Run(format, func(b *testing.B) {
			a := newApp(io.Discard, io.Discard, nil)
			a.globals.Format = format
			for b.Loop() {
				if err := l.show(a, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
