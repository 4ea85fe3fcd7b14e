package gate_test

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/internal/gate"
)

// BenchmarkAccept is the way of an ordinary connection, from connect(2) on.
func BenchmarkAccept(b *testing.B) {
	ln, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	require.NoError(b, err)
	defer ln.Close()
	f, err := ln.(*net.UnixListener).File()
	require.NoError(b, err)
	defer f.Close()
	raw, err := f.SyscallConn()
	require.NoError(b, err)
	var g *gate.Listener
	require.NoError(b, raw.Control(func(fd uintptr) { g = gate.NewListener(int(fd), ln.Addr(), nil, nil) }))
	defer g.Close()
	require.NoError(b, g.Open())
	for name, l := range map[string]net.Listener{"bare": ln, "gate": g} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				c, err := net.Dial("unix", ln.Addr().String())
				require.NoError(b, err)
				s, err := l.Accept()
				require.NoError(b, err)
				s.Close()
				c.Close()
			}
		})
	}
}
