package statedir_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/statedir"
)

// TestFullDisk fills a small file system with a history.
func TestFullDisk(t *testing.T) {
	requireRoot(t)
	dir, child := elsewhere(t, publicDir(t), &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS})
	if !child {
		return
	}
	leak.Check(t)
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"))
	defer func() { require.NoError(t, unix.Unmount(dir, 0)) }()
	d := open(t, dir)
	require.NoError(t, d.Save("pause.json", entry{N: 1}))
	full := func() {
		err := d.Append(entry{N: 99, Text: text(60_000)})
		require.ErrorIs(t, err, unix.ENOSPC)
		require.ErrorContains(t, err, "append to the history: write "+history(d)+": no space left on device")
	}

	// Lines of many pages: the write(2) that does not fit is a short one.
	n := 0
	var err error
	for err == nil && n < 1000 {
		n++
		err = d.Append(entry{N: n, Text: text(60_000)})
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	require.Equal(t, 5, n, "256 KiB less the other file")
	before := content(t, history(d))
	assert.True(t, strings.HasSuffix(before, "}\n"), "nothing is left of the line that did not fit")
	full()
	assert.Equal(t, before, content(t, history(d)))
	assert.Equal(t, down(4, 1), numbers(t, d, 0))

	// Not a byte more, and not a new file.
	for err = nil; err == nil && n < 10_000; n++ {
		err = d.Append(entry{N: n, Text: text(50)})
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	last := numbers(t, d, 1)[0]
	before = content(t, history(d))
	full()
	require.ErrorIs(t, d.Save("pause.json", entry{N: 2, Text: text(100_000)}), unix.ENOSPC)
	require.ErrorIs(t, d.Save("other.json", entry{N: 2}), unix.ENOSPC)
	var e entry
	require.NoError(t, d.Load("pause.json", &e))
	assert.Equal(t, 1, e.N)
	assert.Equal(t, []string{"history.jsonl", "pause.json"}, names(t, d))
	assert.Equal(t, before, content(t, history(d)))

	// With a torn line at the end, which the next one would begin behind.
	require.NoError(t, os.Truncate(history(d), int64(len(before)-3)))
	full()
	assert.Equal(t, before[:len(before)-3], content(t, history(d)))

	// Room again.
	require.NoError(t, d.Remove("pause.json"))
	require.NoError(t, d.Append(entry{N: 1000}))
	assert.Equal(t, []int{1000, last - 1}, numbers(t, d, 2))
}

// TestFullDiskRotation: when the new file cannot be made, the old one is there.
func TestFullDiskRotation(t *testing.T) {
	requireRoot(t)
	dir, child := elsewhere(t, publicDir(t), &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS})
	if !child {
		return
	}
	leak.Check(t)
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "nr_inodes=3"))
	defer func() { require.NoError(t, unix.Unmount(dir, 0)) }()
	d := open(t, dir)
	d.SetMaxHistory(1000)
	put(t, filepath.Join(dir, "other"), "")
	n := 0
	var err error
	for err == nil && n < 1000 {
		n++
		err = d.Append(entry{N: n, Text: text(100)})
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	assert.Equal(t, down(n-1, 1), numbers(t, d, 0))
	require.ErrorIs(t, d.Append(entry{N: n}), unix.ENOSPC)
	assert.Equal(t, down(n-1, 1), numbers(t, d, 0))
	require.NoError(t, os.Remove(filepath.Join(dir, "other")))
	require.NoError(t, d.Append(entry{N: n}))
	assert.Equal(t, down(n, 1), numbers(t, d, 0))
}

// TestFileSizeLimit: beyond RLIMIT_FSIZE the kernel would send SIGXFSZ, which
// would be the end of the service.
func TestFileSizeLimit(t *testing.T) {
	dir, child := elsewhere(t, t.TempDir(), nil)
	if !child {
		return
	}
	leak.Check(t)
	d := open(t, dir)
	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &limit))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 100_000, Max: limit.Max}))
	defer func() { require.NoError(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &limit)) }()
	n := 0
	var err error
	for err == nil && n < 1000 {
		n++
		err = d.Append(entry{N: n, Text: text(7000)})
	}
	require.ErrorIs(t, err, unix.EFBIG)
	require.ErrorContains(t, err, "RLIMIT_FSIZE is 100000")
	assert.Equal(t, down(n-1, 1), numbers(t, d, 0))
	require.NoError(t, d.Append(entry{N: n}), "a short one")
	require.ErrorIs(t, d.Save("a.json", text(100_000)), unix.EFBIG)
	assert.Equal(t, []string{"history.jsonl"}, names(t, d))
}

// TestNoDescriptors has each call fail at each descriptor that it opens.
func TestNoDescriptors(t *testing.T) {
	dir, child := elsewhere(t, t.TempDir(), nil)
	if !child {
		return
	}
	d := open(t, dir)
	require.NoError(t, d.Append(entry{N: 1}))
	require.NoError(t, d.Save("a.json", entry{N: 1}))
	put(t, previous(d), `{"n":0}`)
	before := content(t, history(d))

	var limit unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	free := freeNumbers(t, 4)
	few := func(more int) {
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: free[more], Max: limit.Max}))
	}
	for more := range 2 {
		few(more)
		assert.ErrorIs(t, d.Append(entry{N: 2}), unix.EMFILE)
		assert.ErrorIs(t, d.Save("a.json", entry{N: 2}), unix.EMFILE)
		assert.ErrorIs(t, d.Load("a.json", new(entry)), unix.EMFILE)
		_, err := d.Records(0)
		assert.ErrorIs(t, err, unix.EMFILE)
	}
	few(2)
	records, err := d.Records(0)
	require.ErrorIs(t, err, unix.EMFILE)
	assert.Equal(t, []int{1}, decode(t, records), "of the first file")
	require.NoError(t, d.Load("a.json", new(entry)))
	few(3)
	assert.Equal(t, []int{1, 0}, numbers(t, d, 0))
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	assert.Equal(t, before, content(t, history(d)))
	assert.Equal(t, []string{"a.json", "history.jsonl", "history.jsonl.1"}, names(t, d))
}

// TestReadOnly takes the right to write away while the service runs.
func TestReadOnly(t *testing.T) {
	requireRoot(t)
	dir, child := elsewhere(t, publicDir(t), &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS})
	if !child {
		return
	}
	leak.Check(t)
	require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	defer func() { require.NoError(t, unix.Unmount(dir, 0)) }()
	d := open(t, dir)
	require.NoError(t, d.Append(entry{N: 1}))
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	require.ErrorIs(t, d.Append(entry{N: 2}), unix.EROFS)
	require.ErrorIs(t, d.Save("a.json", 1), unix.EROFS)
	require.ErrorIs(t, d.Load("a.json", new(int)), unix.ENOENT)
	assert.Equal(t, []int{1}, numbers(t, d, 0))
	_, err := statedir.Open(dir)
	require.ErrorIs(t, err, unix.EROFS)
}

// TestReadOnlyDirectory: no new file can be made, but the one that is there can
// be written.
func TestReadOnlyDirectory(t *testing.T) {
	requireRoot(t)
	dir := publicDir(t)
	if dir != "" {
		require.NoError(t, os.Chown(dir, nobody, nobody))
	}
	dir, child := elsewhere(t, dir, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}})
	if !child {
		return
	}
	leak.Check(t)
	d := open(t, dir)
	d.SetMaxHistory(1000)
	require.NoError(t, d.Append(entry{N: 1, Text: text(800)}))
	require.NoError(t, os.Chmod(dir, 0o500))
	defer func() { require.NoError(t, os.Chmod(dir, 0o700)) }()
	require.NoError(t, d.Append(entry{N: 2}))
	err := d.Append(entry{N: 3, Text: text(800)})
	require.ErrorIs(t, err, unix.EACCES)
	require.ErrorContains(t, err, "rename "+history(d))
	require.ErrorIs(t, d.Save("a.json", 1), unix.EACCES)
	assert.Equal(t, []int{2, 1}, numbers(t, d, 0))
	assert.Equal(t, []string{"history.jsonl"}, names(t, d))
	// The file alone.
	require.NoError(t, os.Chmod(history(d), 0o400))
	require.ErrorIs(t, d.Append(entry{N: 3}), unix.EACCES)
	assert.Equal(t, []int{2, 1}, numbers(t, d, 0))
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
