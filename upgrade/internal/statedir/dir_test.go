package statedir_test

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
	"github.com/hdctl/handoff/upgrade/internal/statedir"
)

func TestOpen(t *testing.T) {
	leak.Check(t)
	mode := func(path string) fs.FileMode {
		info, err := os.Stat(path)
		require.NoError(t, err)
		return info.Mode().Perm()
	}
	defer unix.Umask(unix.Umask(0o022))
	base := t.TempDir()

	d := open(t, base+"/state/./app/")
	assert.Equal(t, base+"/state/app", d.Path())
	assert.Equal(t, fs.FileMode(0o750), mode(base+"/state/app"))
	assert.Equal(t, fs.FileMode(0o755), mode(base+"/state"))
	assert.Empty(t, names(t, d), "nothing is made before it is needed")

	require.NoError(t, os.Chmod(base+"/state/app", 0o700))
	open(t, base+"/state/app")
	assert.Equal(t, fs.FileMode(0o700), mode(base+"/state/app"), "of an existing one")

	require.NoError(t, os.Symlink("state/app", base+"/link")) // DynamicUser=
	require.NoError(t, open(t, base+"/link").Append(entry{N: 1}))
	assert.Equal(t, []int{1}, numbers(t, d, 0))
}

func TestOpenRefuses(t *testing.T) {
	leak.Check(t)
	base := t.TempDir()
	put(t, base+"/file", "")
	require.NoError(t, os.Symlink("nowhere", base+"/dangling"))
	for _, test := range []struct {
		name string
		path string
		err  error
		text string
	}{
		{"relative", "state", nil, "not absolute"},
		{"empty", "", nil, "not absolute"},
		{"NUL", base + "/a\x00", nil, "not absolute"},
		{"a file", base + "/file", unix.ENOTDIR, base + "/file"},
		{"below a file", base + "/file/sub", unix.ENOTDIR, "StateDirectory=sub"},
		{"a dangling link", base + "/dangling", fs.ErrNotExist, base + "/dangling"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := statedir.Open(test.path)
			require.ErrorContains(t, err, test.text)
			if test.err != nil {
				assert.ErrorIs(t, err, test.err)
			}
		})
	}
}

// TestOpenUnwritable: of another user, and on a read-only file system.
func TestOpenUnwritable(t *testing.T) {
	requireRoot(t)
	dir := publicDir(t)
	dir, child := elsewhere(t, dir, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}})
	if !child {
		return
	}
	leak.Check(t)
	_, err := statedir.Open(dir)
	require.ErrorIs(t, err, unix.EACCES)
	assert.ErrorContains(t, err, "cannot be written")
	_, err = statedir.Open(filepath.Join(dir, "sub"))
	require.ErrorIs(t, err, unix.EACCES)
	assert.ErrorContains(t, err, "StateDirectory=sub")
}

// TestDirectoryGone: what an administrator removed is an error, and comes back.
func TestDirectoryGone(t *testing.T) {
	leak.Check(t)
	d := open(t, filepath.Join(t.TempDir(), "app"))
	require.NoError(t, os.Remove(d.Path()))
	require.ErrorIs(t, d.Append(entry{}), fs.ErrNotExist)
	require.ErrorIs(t, d.Save("a", 1), fs.ErrNotExist)
	require.ErrorIs(t, d.Load("a", new(int)), fs.ErrNotExist)
	_, err := d.Records(0)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.Mkdir(d.Path(), 0o700))
	require.NoError(t, d.Append(entry{N: 1}))
	assert.Equal(t, []int{1}, numbers(t, d, 0))
}
