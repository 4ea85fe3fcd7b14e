package controld_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
)

// manyConns are connections as a busy service has them.
func manyConns(n int) []control.Conn {
	states := []string{control.ConnIdle, control.ConnActive, control.ConnIdle, control.ConnStream}
	conns := make([]control.Conn, n)
	for i := range conns {
		conns[i] = control.Conn{
			Generation: 7, PID: 4242, Listener: "http",
			Peer:  fmt.Sprintf("192.0.2.%d:%d", i%256, 1024+i%60000),
			State: states[i%len(states)],
			Doing: fmt.Sprintf("GET /v1/customers/%d/orders", i),
			Age:   math.Round(float64(n-i)*0.0317*1000) / 1000,
			Quiet: math.Round(float64(i%977)*0.0123*1000) / 1000,
			In:    int64(i) * 431, Out: int64(i) * 18013,
		}
	}
	return conns
}

// emitAll is what a Backend does: it encodes, and sends 64 KiB at a time.
func emitAll(conns []control.Conn, emit func([]byte) error) (*control.ConnsEnd, error) {
	const piece = 64 << 10
	buf := make([]byte, 0, piece+1024)
	for i := range conns {
		if buf = controld.AppendConn(buf, &conns[i]); len(buf) >= piece {
			if err := emit(buf); err != nil {
				return nil, err
			}
			buf = buf[:0]
		}
	}
	return &control.ConnsEnd{Total: len(conns)}, emit(buf)
}

// BenchmarkConns lists 100,000 connections over a control socket: encoded, sent,
// and decoded with all their fields.
func BenchmarkConns(b *testing.B) {
	conns := manyConns(100_000)
	_, socket := start(b, controld.Config{
		Backend: &backend{conns: func(_ context.Context, _ control.ConnFilter, emit func([]byte) error) (*control.ConnsEnd, error) {
			return emitAll(conns, emit)
		}},
		Logger: slog.New(slog.DiscardHandler),
	})
	c := &control.Client{Socket: socket}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		end, err := c.Conns(b.Context(), control.ConnFilter{}, func(c control.Conn) {
			if c == conns[n] {
				n++
			}
		})
		require.NoError(b, err)
		require.Equal(b, len(conns), end.Total)
		require.Equal(b, len(conns), n)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(conns)), "ns/conn")
}

// BenchmarkAppendConn is the service's part of it, without the socket.
func BenchmarkAppendConn(b *testing.B) {
	conns := manyConns(1000)
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		buf = controld.AppendConn(buf[:0], &conns[i%len(conns)])
	}
	b.SetBytes(int64(len(buf)))
}
