package pidfile_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/pidfile"
)

// TestLinkOfAdministrator is about links in a directory of the service's own:
// they are followed, and stay.
func TestLinkOfAdministrator(t *testing.T) {
	for _, test := range []struct {
		name   string
		target string // of DIR/app.pid; DIR/elsewhere/app.pid is where it ends
	}{
		{"relative", "elsewhere/app.pid"},
		{"by way of another", "other/../elsewhere/app.pid"},
		{"two links", "second"},
	} {
		t.Run(test.name, func(t *testing.T) {
			leak.Check(t)
			dir := t.TempDir()
			path, end := filepath.Join(dir, "app.pid"), filepath.Join(dir, "elsewhere", "app.pid")
			require.NoError(t, os.Mkdir(filepath.Dir(end), 0o755))
			require.NoError(t, os.Symlink("elsewhere", filepath.Join(dir, "other")))
			require.NoError(t, os.Symlink(end, filepath.Join(dir, "second")))
			require.NoError(t, os.Symlink(test.target, path))
			require.NoError(t, pidfile.Write(path, 1), "where nothing is yet")
			require.NoError(t, pidfile.Write(path, 2))
			assert.Equal(t, "2\n", content(t, end))
			require.NoError(t, pidfile.Remove(path, 2))
			assert.Equal(t, "-", content(t, end))
			assert.Empty(t, names(t, filepath.Dir(end)))
			target, err := os.Readlink(path)
			require.NoError(t, err)
			assert.Equal(t, test.target, target)
		})
	}
}

// TestLinkOfStranger is about links in a directory in which others can write:
// what they point to is not touched.
func TestLinkOfStranger(t *testing.T) {
	for _, mode := range []fs.FileMode{0o777, 0o777 | fs.ModeSticky, 0o775, 0o757} {
		t.Run(mode.String(), func(t *testing.T) {
			leak.Check(t)
			dir := t.TempDir()
			path, victim := filepath.Join(dir, "app.pid"), filepath.Join(t.TempDir(), "victim")
			put(t, victim, "1\n")
			require.NoError(t, os.Chmod(dir, mode))
			require.NoError(t, os.Symlink(victim, path))

			require.ErrorIs(t, pidfile.Remove(path, 1), unix.ELOOP)
			assert.Equal(t, "1\n", content(t, path), "the link and the file are there")

			require.NoError(t, pidfile.Write(path, 2))
			info, err := os.Lstat(path)
			require.NoError(t, err)
			assert.True(t, info.Mode().IsRegular())
			assert.Equal(t, "2\n", content(t, path))
			assert.Equal(t, "1\n", content(t, victim))
			require.NoError(t, pidfile.Remove(path, 2))
			assert.Empty(t, names(t, dir))
		})
	}
}

// TestLinkInPlace has somebody else own the directory: neither a symbolic nor a
// hard link there is a way to have the service write to a file of its own.
func TestLinkInPlace(t *testing.T) {
	requireRoot(t)
	dir := publicDir(t)
	if dir != "" {
		const stranger = 4711
		victim := filepath.Join(dir, "victim")
		put(t, victim, "1\n")
		require.NoError(t, os.Symlink(victim, filepath.Join(dir, "symbolic")))
		require.NoError(t, os.Link(victim, filepath.Join(dir, "hard")))
		require.NoError(t, os.Chown(victim, nobody, nobody))
		require.NoError(t, os.Chown(dir, stranger, stranger))
	}
	dir, child := elsewhere(t, dir, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}})
	if !child {
		return
	}
	leak.Check(t)
	for name, errno := range map[string]error{"symbolic": unix.ELOOP, "hard": unix.EMLINK} {
		path := filepath.Join(dir, name)
		err := pidfile.Write(path, 2)
		require.ErrorIs(t, err, unix.EACCES, name)
		require.ErrorIs(t, err, errno, name)
		require.ErrorIs(t, pidfile.Remove(path, 1), errno, name)
	}
	assert.Equal(t, "1\n", content(t, filepath.Join(dir, "victim")))
}
