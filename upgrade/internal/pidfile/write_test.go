package pidfile_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/pidfile"
)

func TestWrite(t *testing.T) {
	tests := []struct {
		name   string
		before func(t *testing.T, path string)
	}{
		{"nothing there", func(*testing.T, string) {}},
		{"another PID", func(t *testing.T, path string) { put(t, path, "123456789\n") }},
		{"garbage", func(t *testing.T, path string) { put(t, path, strings.Repeat("x", 100_000)) }},
		{"a FIFO", func(t *testing.T, path string) { require.NoError(t, unix.Mkfifo(path, 0o600)) }},
		{"no permissions", func(t *testing.T, path string) {
			put(t, path, "1\n")
			require.NoError(t, os.Chmod(path, 0))
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			leak.Check(t)
			dir := t.TempDir()
			path := filepath.Join(dir, "app.pid")
			test.before(t, path)
			defer unix.Umask(unix.Umask(0o077))
			require.NoError(t, pidfile.Write(path, 4711))
			assert.Equal(t, "4711\n", content(t, path))
			info, err := os.Lstat(path)
			require.NoError(t, err)
			assert.Equal(t, fs.FileMode(0o644), info.Mode(), "whatever the umask")
			assert.Equal(t, []string{"app.pid"}, names(t, dir))
		})
	}
}

func TestWriteRefuses(t *testing.T) {
	leak.Check(t)
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	require.NoError(t, os.Symlink("loop", filepath.Join(dir, "loop")))
	tests := []struct {
		name string
		path string
		pid  int
		err  error
		text string
	}{
		{"no PID", dir + "/a", 0, nil, "0 is not a PID"},
		{"a process group", dir + "/a", -1, nil, "-1 is not a PID"},
		{"relative", "app.pid", 1, nil, "not absolute"},
		{"NUL", dir + "/a\x00", 1, nil, "not absolute"},
		{"no directory", dir + "/none/a", 1, fs.ErrNotExist, dir + "/none"},
		{"a directory in its place", dir + "/sub", 1, unix.EISDIR, "sub"},
		{"nothing but a directory", dir + "/", 1, unix.EISDIR, ""},
		{"parent", dir + "/sub/..", 1, unix.EISDIR, ""},
		{"a loop of links", dir + "/loop", 1, unix.ELOOP, "loop"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := pidfile.Write(test.path, test.pid)
			require.ErrorContains(t, err, "write the PID file: ")
			assert.ErrorContains(t, err, test.text)
			if test.err != nil {
				assert.ErrorIs(t, err, test.err)
			}
		})
	}
	assert.ElementsMatch(t, []string{"loop", "sub"}, names(t, dir))
}

// TestWriteAtomically has many readers see PIDs of different lengths, each whole.
func TestWriteAtomically(t *testing.T) {
	leak.Check(t)
	path := filepath.Join(t.TempDir(), "app.pid")
	require.NoError(t, pidfile.Write(path, 7))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				b, err := os.ReadFile(path)
				if !assert.NoError(t, err) || !assert.Contains(t, []string{"7\n", "1234567\n"}, string(b)) {
					return
				}
			}
		})
	}
	for i := range 1000 {
		require.NoError(t, pidfile.Write(path, []int{1234567, 7}[i%2]))
	}
	close(stop)
	readers.Wait()
}

// TestInPlace is the layout of a service that may write to its file, but not to
// the directory, which is root's.
func TestInPlace(t *testing.T) {
	requireRoot(t)
	dir := publicDir(t)
	path := filepath.Join(dir, "app.pid")
	if dir != "" {
		put(t, path, "1234567\n")
		require.NoError(t, os.Chown(path, nobody, nobody))
		require.NoError(t, os.Chmod(path, 0o600))
	}
	dir, child := elsewhere(t, dir, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}})
	if !child {
		return
	}
	leak.Check(t)
	path = filepath.Join(dir, "app.pid")
	before, err := os.Stat(path)
	require.NoError(t, err)

	require.NoError(t, pidfile.Write(path, 77))
	assert.Equal(t, "77\n", content(t, path), "shorter than the one before")
	require.NoError(t, pidfile.Write(path, 424242))
	assert.Equal(t, "424242\n", content(t, path), "longer")
	put(t, path, strings.Repeat("9", 500))
	require.NoError(t, pidfile.Write(path, 5))
	assert.Equal(t, "5\n", content(t, path), "garbage before")

	require.NoError(t, pidfile.Remove(path, 6))
	assert.Equal(t, "5\n", content(t, path), "another's")
	require.NoError(t, pidfile.Remove(path, 5))
	assert.Empty(t, content(t, path))
	require.NoError(t, pidfile.Remove(path, 5))
	require.NoError(t, pidfile.Write(path, 8))
	assert.Equal(t, "8\n", content(t, path))

	after, err := os.Stat(path)
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, after), "it is the administrator's file")
	assert.Equal(t, fs.FileMode(0o600), after.Mode(), "and mode")

	// Neither has a file that is not there an error of a file.
	err = pidfile.Write(filepath.Join(dir, "none.pid"), 8)
	require.ErrorIs(t, err, unix.EACCES)
	assert.NotErrorIs(t, err, unix.ENOENT)
	require.NoError(t, pidfile.Remove(filepath.Join(dir, "none.pid"), 8))
	assert.Equal(t, []string{"app.pid"}, names(t, dir))
}

// TestInPlaceRace has an old generation remove in place what its successor
// writes in place at the same moment.
func TestInPlaceRace(t *testing.T) {
	requireRoot(t)
	dir := publicDir(t)
	if dir != "" {
		put(t, filepath.Join(dir, "app.pid"), "")
		require.NoError(t, os.Chown(filepath.Join(dir, "app.pid"), nobody, nobody))
	}
	dir, child := elsewhere(t, dir, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}})
	if child {
		race(t, filepath.Join(dir, "app.pid"))
	}
}

// TestMounted is a file that is a mount of its own, as container layouts have
// it: the directory can be written, but the file cannot be replaced.
func TestMounted(t *testing.T) {
	requireRoot(t)
	dir, child := elsewhere(t, publicDir(t), &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS})
	if !child {
		return
	}
	leak.Check(t)
	path := filepath.Join(dir, "app.pid")
	put(t, path, "123456\n")
	put(t, path+".mounted", "123456\n")
	require.NoError(t, unix.Mount(path+".mounted", path, "", unix.MS_BIND, ""))
	defer func() { require.NoError(t, unix.Unmount(path, 0)) }()

	require.NoError(t, pidfile.Write(path, 4711))
	assert.Equal(t, "4711\n", content(t, path))
	assert.Equal(t, "4711\n", content(t, path+".mounted"))
	require.NoError(t, pidfile.Remove(path, 4711))
	assert.Empty(t, content(t, path))
	assert.Equal(t, []string{"app.pid", "app.pid.mounted"}, names(t, dir))
}

// TestReadOnly is a file system that cannot be written at all.
func TestReadOnly(t *testing.T) {
	requireRoot(t)
	dir, child := elsewhere(t, publicDir(t), &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS})
	if !child {
		return
	}
	leak.Check(t)
	path := filepath.Join(dir, "app.pid")
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	defer func() { require.NoError(t, unix.Unmount(dir, 0)) }()
	put(t, path, "1\n")
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	require.ErrorIs(t, pidfile.Write(path, 2), unix.EROFS)
	require.ErrorIs(t, pidfile.Remove(path, 1), unix.EROFS)
	require.NoError(t, pidfile.Remove(path, 2))
	assert.Equal(t, "1\n", content(t, path))
}

// TestFullDisk: no inode is left for a new file.
func TestFullDisk(t *testing.T) {
	requireRoot(t)
	dir, child := elsewhere(t, publicDir(t), &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS})
	if !child {
		return
	}
	leak.Check(t)
	path := filepath.Join(dir, "app.pid")
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "nr_inodes=3"))
	defer func() { require.NoError(t, unix.Unmount(dir, 0)) }()
	put(t, filepath.Join(dir, "other"), "")
	require.NoError(t, pidfile.Write(path, 123456))
	require.NoError(t, pidfile.Write(path, 99), "in place of 123456")
	assert.Equal(t, "99\n", content(t, path))
	put(t, filepath.Join(dir, "other"), "")
	require.NoError(t, os.Remove(path))
	put(t, filepath.Join(dir, "another"), "")
	require.ErrorIs(t, pidfile.Write(path, 99), unix.ENOSPC)
	assert.Equal(t, []string{"another", "other"}, names(t, dir))
}

func TestNoDescriptors(t *testing.T) {
	path, child := elsewhere(t, filepath.Join(t.TempDir(), "app.pid"), nil)
	if !child {
		return
	}
	require.NoError(t, pidfile.Write(path, 1))
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	free := freeNumbers(t, 4)
	for more := range 2 {
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: free[more], Max: limit.Max}))
		assert.ErrorIs(t, pidfile.Write(path, 2), unix.EMFILE)
		assert.ErrorIs(t, pidfile.Remove(path, 1), unix.EMFILE)
	}
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	assert.Equal(t, "1\n", content(t, path))
}

// freeNumbers returns the next n numbers of descriptors: if RLIMIT_NOFILE is the
// one with index i, then i more can be opened.
func freeNumbers(t *testing.T, n int) []uint64 {
	t.Helper()
	var free []uint64
	for range n {
		fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(fd)
		free = append(free, uint64(fd))
	}
	return free
}
