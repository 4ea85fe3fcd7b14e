package pidfile_test

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/pidfile"
)

func TestRemove(t *testing.T) {
	tests := []struct {
		name   string
		before string // "-" is no file
		after  string
	}{
		{"ours", "4711\n", "-"},
		{"ours, by hand", " 4711", "-"},
		{"not there", "-", "-"},
		{"the successor's", "4712\n", "4712\n"},
		{"longer", "47111\n", "47111\n"},
		{"shorter", "471\n", "471\n"},
		{"with a sign", "+4711\n", "+4711\n"},
		{"two", "4711\n4711\n", "4711\n4711\n"},
		{"empty", "", ""},
		{"something else", strings.Repeat("4711\n", 100), strings.Repeat("4711\n", 100)},
		{"a page of space", "4711" + strings.Repeat(" ", 4096), "4711" + strings.Repeat(" ", 4096)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			leak.Check(t)
			dir := t.TempDir()
			path := filepath.Join(dir, "app.pid")
			if test.before != "-" {
				put(t, path, test.before)
			}
			require.NoError(t, pidfile.Remove(path, 4711))
			assert.Equal(t, test.after, content(t, path))
			assert.LessOrEqual(t, len(names(t, dir)), 1)
		})
	}
}

func TestRemoveRefuses(t *testing.T) {
	leak.Check(t)
	dir := t.TempDir()
	require.NoError(t, pidfile.Remove(filepath.Join(dir, "none", "app.pid"), 1), "nor is its directory there")
	require.ErrorContains(t, pidfile.Remove("app.pid", 1), "remove the PID file: ")
	require.ErrorIs(t, pidfile.Remove(filepath.Join(dir, "/"), 1), unix.EINVAL, "a directory")
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	require.ErrorIs(t, pidfile.Remove(filepath.Join(dir, "fifo"), 1), unix.EINVAL)
	assert.Equal(t, []string{"fifo"}, names(t, dir))
}

// TestRemoveAfterSuccessor is the moment between the look at the file and its
// removal, in which the successor has written it.
func TestRemoveAfterSuccessor(t *testing.T) {
	leak.Check(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "app.pid")
	require.NoError(t, pidfile.Write(path, 4712))
	require.NoError(t, pidfile.Take(path, 4711))
	assert.Equal(t, "4712\n", content(t, path))
	assert.Equal(t, []string{"app.pid"}, names(t, dir))
	require.NoError(t, pidfile.Take(path, 4712))
	require.NoError(t, pidfile.Take(path, 4712), "gone already")
	assert.Empty(t, names(t, dir))
}

// TestRemoveRace has an old generation remove the file while its successor
// writes it.
func TestRemoveRace(t *testing.T) {
	race(t, filepath.Join(t.TempDir(), "app.pid"))
}

func race(t *testing.T, path string) {
	leak.Check(t)
	for i := range 1500 {
		require.NoError(t, pidfile.Write(path, 1234567))
		var both sync.WaitGroup
		begin := make(chan struct{})
		both.Go(func() {
			<-begin
			assert.NoError(t, pidfile.Remove(path, 1234567))
		})
		both.Go(func() {
			<-begin
			assert.NoError(t, pidfile.Write(path, 98))
			assert.NoError(t, pidfile.Write(path, 99))
		})
		close(begin)
		both.Wait()
		require.Equal(t, "99\n", content(t, path), "round %d", i)
	}
	assert.Equal(t, []string{"app.pid"}, names(t, filepath.Dir(path)))
}
