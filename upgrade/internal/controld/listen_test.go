package controld_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/internal/controld"
)

// withUmask sets the umask of this process for the test, which must not be
// parallel.
func withUmask(t *testing.T, mask int) {
	old := unix.Umask(mask)
	t.Cleanup(func() { unix.Umask(old) })
}

func stat(t *testing.T, path string) *syscall.Stat_t {
	t.Helper()
	info, err := os.Lstat(path)
	require.NoError(t, err)
	return info.Sys().(*syscall.Stat_t)
}

func TestListen(t *testing.T) {
	for _, umask := range []int{0, 0o022, 0o077, 0o777} {
		path := socketPath(t)
		withUmask(t, umask)
		ln, warning, err := controld.Listen(path, "")
		require.NoError(t, err)
		assert.Empty(t, warning)
		assert.Equal(t, uint32(unix.S_IFSOCK|0o660), stat(t, path).Mode, "umask %#o", umask)
		assert.Equal(t, path, ln.Addr().String())
		c, err := net.Dial("unix", path)
		require.NoError(t, err)
		require.NoError(t, c.Close())
		require.NoError(t, ln.Close())
		assert.FileExists(t, path+".lock")
		_, err = os.Lstat(path)
		require.NoError(t, err, "closing the listener leaves the file for the next generation")
	}
}

// There is no moment in which the socket lets in more than it should: not even
// without a umask, before anybody had a chance to set its mode.
func TestNeverOpen(t *testing.T) {
	withUmask(t, 0)
	path := socketPath(t)
	ln, err := controld.Bind(path)
	require.NoError(t, err)
	defer ln.Close()
	assert.Zero(t, stat(t, path).Mode&0o177)
}

func TestListenInUse(t *testing.T) {
	path := socketPath(t)
	ln, _, err := controld.Listen(path, "")
	require.NoError(t, err)
	defer ln.Close()
	before := stat(t, path).Ino

	requireInUse := func() {
		t.Helper()
		_, _, err := controld.Listen(path, "")
		e, ok := errors.AsType[*controld.InUseError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, path, e.Path)
		require.ErrorIs(t, err, unix.EADDRINUSE)
		assert.Contains(t, err.Error(), "another instance")
		assert.Equal(t, before, stat(t, path).Ino, "nothing was touched")
		if e.PID != 0 {
			assert.Equal(t, os.Getpid(), e.PID)
		}
	}
	requireInUse()
	// The same with a server that does not accept, and whose backlog is full.
	for {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			require.Equal(t, unix.EAGAIN, err)
			break
		}
	}
	requireInUse()
}

func TestListenReplacesStale(t *testing.T) {
	path := socketPath(t)
	ln, _, err := controld.Listen(path, "")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	c, err := net.Dial("unix", path)
	require.ErrorIs(t, err, unix.ECONNREFUSED, "%v", c)

	ln, _, err = controld.Listen(path, "")
	require.NoError(t, err)
	defer ln.Close()
	c, err = net.Dial("unix", path)
	require.NoError(t, err)
	require.NoError(t, c.Close())
}

func TestListenLeavesOthersAlone(t *testing.T) {
	tests := []struct {
		name string
		make func(path string) error
	}{
		{"file", func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) }},
		{"directory", func(path string) error { return os.Mkdir(path, 0o700) }},
		{"fifo", func(path string) error { return unix.Mkfifo(path, 0o600) }},
		{"symlink to nothing", func(path string) error { return os.Symlink("nothing", path) }},
		{"symlink to a stale socket", func(path string) error {
			ln, _, err := controld.Listen(path+".1", "")
			return errors.Join(err, ln.Close(), os.Symlink(path+".1", path))
		}},
		{"datagram socket", func(path string) error {
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return err
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := socketPath(t)
			require.NoError(t, tt.make(path))
			before := stat(t, path)
			_, _, err := controld.Listen(path, "")
			require.ErrorContains(t, err, path)
			assert.Equal(t, before.Ino, stat(t, path).Ino)
			assert.Equal(t, before.Mode, stat(t, path).Mode)
		})
	}
}

func TestListenBadPath(t *testing.T) {
	dir := filepath.Dir(socketPath(t))
	long := func(n int) string { return filepath.Join(dir, strings.Repeat("x", n-len(dir)-1)) }
	tests := []struct{ name, path, err string }{
		{"empty", "", "not absolute"},
		{"relative", "control.sock", "not absolute"},
		{"abstract", "@handoff", "not absolute"},
		{"NUL", "/run/a\x00b", "not absolute"},
		{"too long", long(108), "108 bytes"},
		{"no directory", filepath.Join(dir, "none", "control.sock"), "RuntimeDirectory="},
		{"directory is none", "/etc/passwd/control.sock", "not a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := controld.Listen(tt.path, "")
			require.ErrorContains(t, err, tt.err)
		})
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, entries)

	ln, _, err := controld.Listen(long(107), "")
	require.NoError(t, err, "the longest path")
	require.NoError(t, ln.Close())
}

// Many first starts at the same moment: one wins, the others say who.
func TestListenRace(t *testing.T) {
	path := socketPath(t)
	for _, leftover := range []bool{false, true} {
		if leftover {
			ln, _, err := controld.Listen(path, "")
			require.NoError(t, err)
			require.NoError(t, ln.Close())
		}
		var mu sync.Mutex
		var winners []net.Listener
		losers := 0
		var all sync.WaitGroup
		for range 16 {
			all.Go(func() {
				ln, _, err := controld.Listen(path, "")
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					winners = append(winners, ln)
					return
				}
				if _, ok := errors.AsType[*controld.InUseError](err); assert.True(t, ok, "%v", err) {
					losers++
				}
			})
		}
		all.Wait()
		assert.Equal(t, 15, losers)
		require.Len(t, winners, 1)
		require.NoError(t, winners[0].Close())
	}
}

func TestListenLocked(t *testing.T) {
	path := socketPath(t)
	fd, err := unix.Open(path+".lock", unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	require.NoError(t, err)
	defer unix.Close(fd)
	require.NoError(t, unix.Flock(fd, unix.LOCK_EX))
	_, _, err = controld.ListenPatiently(path, "", time.Millisecond)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.ErrorContains(t, err, "another start")
	_, err = os.Lstat(path)
	require.ErrorIs(t, err, fs.ErrNotExist)

	require.NoError(t, unix.Flock(fd, unix.LOCK_UN))
	ln, _, err := controld.Listen(path, "")
	require.NoError(t, err)
	require.NoError(t, ln.Close())

	// A lock file that is a trap is not followed.
	require.NoError(t, os.Remove(path+".lock"))
	require.NoError(t, os.Symlink("/etc/elsewhere", path+".lock"))
	_, _, err = controld.Listen(path, "")
	require.ErrorIs(t, err, unix.ELOOP)
}

func TestListenOperatorGroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give a file to any group")
	}
	path := socketPath(t)
	ln, warning, err := controld.Listen(path, "4242")
	require.NoError(t, err)
	defer ln.Close()
	assert.Empty(t, warning)
	st := stat(t, path)
	assert.Equal(t, uint32(4242), st.Gid)
	assert.Equal(t, uint32(unix.S_IFSOCK|0o660), st.Mode)

	assert.Empty(t, controld.Share(path, "4243"), "another configuration in the next generation")
	assert.Equal(t, uint32(4243), stat(t, path).Gid)
	assert.Empty(t, controld.Share(path, ""))
	assert.Equal(t, uint32(4243), stat(t, path).Gid)
}

func TestShareAfterReplacement(t *testing.T) {
	path := socketPath(t)
	target := path + ".target"
	require.NoError(t, os.WriteFile(target, nil, 0o600))
	require.NoError(t, os.Symlink(target, path))
	assert.Contains(t, controld.Share(path, "4242"), "not a socket")
	assert.Equal(t, uint32(unix.S_IFREG|0o600), stat(t, target).Mode)
	assert.Contains(t, controld.Share(path+".none", ""), "no such file")

	require.NoError(t, os.Remove(target))
	ln, err := controld.Bind(target) // somebody else's socket
	require.NoError(t, err)
	defer ln.Close()
	before := stat(t, target)
	assert.Contains(t, controld.Share(path, "4242"), "not a socket")
	assert.Equal(t, before.Mode, stat(t, target).Mode)
	assert.Equal(t, before.Gid, stat(t, target).Gid)
}

// A group that cannot be had is a warning: the socket works for the others.
func TestListenGroupWarning(t *testing.T) {
	tests := []struct {
		name, group, warning string
		who                  user
	}{
		{"unknown", "no-such-group", "does not exist", user{0, 0, nil}},
		{"overflow", "65534", "cannot be used", user{0, 0, nil}},
		{"not a member", "4242", "SupplementaryGroups=4242", user{998, 998, nil}},
		{"a member", "4242", "", user{998, 998, []int{4242}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := socketPath(t)
			require.NoError(t, os.Chmod(filepath.Dir(path), 0o777|fs.ModeSticky))
			out := asUser(t, tt.who, "listen", path, tt.group)
			assert.True(t, strings.HasSuffix(out, " <nil>\n"), "no error: %s", out)
			if tt.warning == "" {
				assert.Equal(t, " <nil>\n", out)
			} else {
				assert.Contains(t, out, tt.warning)
			}
			assert.Equal(t, uint32(unix.S_IFSOCK|0o660), stat(t, path).Mode)
		})
	}
}

func TestListenDirectoryWarning(t *testing.T) {
	path := socketPath(t)
	require.NoError(t, os.Chmod(filepath.Dir(path), 0o777))
	ln, warning, err := controld.Listen(path, "no-such-group")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	assert.Contains(t, warning, "everybody can replace")
	assert.Contains(t, warning, "does not exist; ")
}

func TestMakeDir(t *testing.T) {
	withUmask(t, 0)
	run := filepath.Dir(socketPath(t))
	path := filepath.Join(run, "handoff", "app", "control.sock")
	require.NoError(t, controld.MakeDir(path))
	require.NoError(t, controld.MakeDir(path), "again")
	for _, dir := range []string{"handoff", "handoff/app"} {
		assert.Equal(t, uint32(unix.S_IFDIR|0o755), stat(t, filepath.Join(run, dir)).Mode)
	}
	err := controld.MakeDir(filepath.Join(run, "none", "handoff", "app", "control.sock"))
	require.ErrorIs(t, err, fs.ErrNotExist, "no more than two levels")
}
