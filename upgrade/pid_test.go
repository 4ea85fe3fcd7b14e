package upgrade

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/machine"
)

// pidWriter is a generation that does nothing but write its PID files.
type pidWriter struct {
	*Upgrader
	t *testing.T
}

func newPIDWriter(t *testing.T, path string, pid int) *pidWriter {
	t.Helper()
	w := &pidWriter{&Upgrader{pid: pid, log: slog.New(slog.DiscardHandler), set: settings{pidFile: path}}, t}
	w.records.worker = newWorker()
	w.state = machine.First(machine.Limits{})
	w.state.Life = machine.Serving
	t.Cleanup(func() { w.records.close(time.Minute) })
	return w
}

// beside has an upgrade that was begun by a signal, or not, in the given phase.
func (w *pidWriter) beside(pid int, bySignal bool, phase machine.Phase) {
	w.attempt = &attempt{pid: pid, beside: bySignal}
	if phase == machine.None {
		w.attempt = nil
	}
	w.state.Candidate.Phase = phase
	w.writePIDs()
}

// requirePIDs asserts what the PID files say; 0 is no file.
func (w *pidWriter) requirePIDs(main, old int) {
	w.t.Helper()
	w.records.wait(time.Minute)
	read := func(path string) int {
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return 0
		}
		require.NoError(w.t, err)
		var pid int
		_, err = fmt.Sscanln(string(data), &pid)
		require.NoError(w.t, err)
		return pid
	}
	require.Equal(w.t, [2]int{main, old}, [2]int{read(w.set.pidFile), read(w.set.pidFile + oldPIDSuffix)})
}

func TestPIDFiles(t *testing.T) {
	leak.Check(t)
	const first, second, third = 101, 102, 103
	path := filepath.Join(t.TempDir(), "test.pid")
	w := newPIDWriter(t, path, first)
	w.requirePIDs(0, 0)
	w.writePIDs()
	w.requirePIDs(first, 0)

	for _, phase := range []machine.Phase{machine.Preflight, machine.Preparing, machine.OnStage, machine.Probation, machine.Notifying} {
		w.beside(second, false, phase)
		w.requirePIDs(first, 0) // of an upgrade with a confirm, the main one counts
	}
	for _, phase := range []machine.Phase{machine.Preflight, machine.Preparing} {
		w.beside(second, true, phase)
		w.requirePIDs(first, 0)
	}
	for _, phase := range []machine.Phase{machine.OnStage, machine.Opening, machine.Probation} {
		w.beside(second, true, phase)
		w.requirePIDs(second, first)
	}
	w.beside(second, true, machine.None) // it fell back, or was taken back
	w.requirePIDs(first, 0)

	w.beside(third, true, machine.Notifying)
	w.requirePIDs(third, first)
	w.attempt, w.state.Main, w.state.Life, w.state.Candidate = nil, false, machine.Draining, machine.Candidate{}
	w.writePIDs()
	w.requirePIDs(third, first) // until we are gone
	successor := newPIDWriter(t, path, third)
	successor.writePIDs()
	successor.requirePIDs(third, first)
	w.removePIDs()
	w.requirePIDs(third, 0)
	successor.removePIDs()
	successor.requirePIDs(0, 0)
}

// TestPIDFileOfAnother leaves alone what names somebody else, who was faster.
func TestPIDFileOfAnother(t *testing.T) {
	leak.Check(t)
	path := filepath.Join(t.TempDir(), "test.pid")
	w := newPIDWriter(t, path, 101)
	w.writePIDs()
	w.requirePIDs(101, 0)
	require.NoError(t, os.WriteFile(path, []byte("102\n"), 0o644))
	w.removePIDs()
	w.requirePIDs(102, 0)

	drains := newPIDWriter(t, filepath.Join(t.TempDir(), "none.pid"), 101)
	drains.state.Main, drains.state.Life = false, machine.Draining
	drains.writePIDs()
	drains.requirePIDs(0, 0)
	assert.Zero(t, drains.pidsWritten)
}
