package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/control"
)

// running is a service whose main process executes a file of its own.
type running struct {
	restored
	dir  string // temporary
	file string // what it executes: dir/old/app
}

// startRunning starts it: a copy of cat(1), which ends with its stdin.
func startRunning(t *testing.T) *running {
	t.Helper()
	cat, err := exec.LookPath("cat")
	require.NoError(t, err)
	content, err := os.ReadFile(cat)
	require.NoError(t, err)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	r := &running{dir: dir, file: filepath.Join(dir, "old", "app")}
	require.NoError(t, os.Mkdir(filepath.Dir(r.file), 0o755))
	require.NoError(t, os.WriteFile(r.file, content, 0o755))
	cmd := exec.Command(r.file)
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		assert.NoError(t, cmd.Wait())
	})
	// Its first answer proves that it has executed the file.
	_, err = stdin.Write([]byte("x"))
	require.NoError(t, err)
	_, err = io.ReadFull(stdout, make([]byte, 1))
	require.NoError(t, err)
	sum := sha256.Sum256(content)
	r.restored = restored{pid: cmd.Process.Pid, digest: hex.EncodeToString(sum[:])}
	return r
}

// installAt installs, for a service that is started with path.
func (r *running) installAt(t *testing.T, path string) (string, error) {
	t.Helper()
	exe, err := r.open()
	require.NoError(t, err)
	defer exe.Close()
	return r.install(exe, r.status(path), &control.Program{Path: r.file})
}

func (r *running) status(path string) *control.Status {
	return &control.Status{
		Service: "app", Main: 9, Disk: &control.Disk{Path: path, State: control.DiskDiffers},
		Generations: []control.Generation{{Number: 9, PID: r.pid, State: control.StateServing}},
	}
}

// assertInstalled checks that path leads to what runs, and that nothing else is
// beside it.
func (r *running) assertInstalled(t *testing.T, path string) {
	t.Helper()
	assert.True(t, hasDigest(path, r.digest), "%s is not what runs", path)
	assertNoLeftovers(t, filepath.Dir(path))
}

func assertNoLeftovers(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		assert.False(t, strings.HasPrefix(e.Name(), ".hdctl-"), "%s was left", e.Name())
	}
}

// The new version was installed over the old one, or in place of it, or removed.
func TestInstallFile(t *testing.T) {
	leak.Check(t)
	for _, tt := range []struct {
		name   string
		before func(t *testing.T, path string)
		mode   os.FileMode
	}{
		{"replaced", func(t *testing.T, path string) {
			require.NoError(t, os.Remove(path))
			require.NoError(t, os.WriteFile(path, []byte("bad"), 0o700))
		}, 0o700},
		{"renamed over, setuid", func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path+".new", []byte("bad"), 0o755))
			require.NoError(t, os.Chmod(path+".new", 0o755|os.ModeSetuid))
			require.NoError(t, os.Rename(path+".new", path))
		}, 0o755 | os.ModeSetuid},
		{"missing", func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) }, 0o755},
		{"the same", func(*testing.T, string) {}, 0o755},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := startRunning(t)
			tt.before(t, r.file)
			path, err := r.installAt(t, r.file)
			require.NoError(t, err)
			assert.Equal(t, r.file, path)
			r.assertInstalled(t, r.file)
			info, err := os.Stat(r.file)
			require.NoError(t, err)
			assert.Equal(t, tt.mode, info.Mode())
		})
	}
}

// The file keeps the owner and the capabilities of the one that it replaces.
func TestInstallKeepsOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	r := startRunning(t)
	path := filepath.Join(r.dir, "app")
	require.NoError(t, os.WriteFile(path, []byte("bad"), 0o755))
	require.NoError(t, os.Chown(path, 12, 34))
	require.NoError(t, os.Chmod(path, 0o755|os.ModeSetgid))
	// cap_net_bind_service=ep: struct vfs_cap_data, revision 2 (capabilities(7)).
	capability := "\x01\x00\x00\x02" + "\x00\x04\x00\x00" + strings.Repeat("\x00", 12)
	err := unix.Setxattr(path, "security.capability", []byte(capability), 0)
	withCapability := err == nil // not every file system has them
	_, err = r.installAt(t, path)
	require.NoError(t, err)
	r.assertInstalled(t, path)
	var st unix.Stat_t
	require.NoError(t, unix.Stat(path, &st))
	assert.Equal(t, []uint32{12, 34, 0o2755}, []uint32{st.Uid, st.Gid, st.Mode & 0o7777})
	if withCapability {
		var got [64]byte
		n, err := unix.Getxattr(path, "security.capability", got[:])
		require.NoError(t, err)
		assert.Equal(t, capability, string(got[:n]))
	}
}

// A symbolic link is pointed to the old file, which is not touched; if that is gone,
// or was overwritten by another rename, nothing is changed.
func TestInstallSymlink(t *testing.T) {
	r := startRunning(t)
	bad := filepath.Join(r.dir, "bad")
	require.NoError(t, os.WriteFile(bad, []byte("bad"), 0o755))
	link := filepath.Join(r.dir, "current")
	require.NoError(t, os.Symlink("bad", link))

	path, err := r.installAt(t, link)
	require.NoError(t, err)
	assert.Equal(t, link, path)
	r.assertInstalled(t, link)
	target, err := os.Readlink(link)
	require.NoError(t, err)
	assert.Equal(t, r.file, target)
	content, err := os.ReadFile(bad)
	require.NoError(t, err)
	assert.Equal(t, "bad", string(content))

	// The link leads to it, by whichever way.
	require.NoError(t, os.Remove(link))
	require.NoError(t, os.Symlink("old/app", link))
	_, err = r.installAt(t, link)
	require.NoError(t, err)
	target, err = os.Readlink(link)
	require.NoError(t, err)
	assert.Equal(t, "old/app", target, "a link that is right was replaced")

	// The old file has moved: the process knows where it is.
	moved := filepath.Join(r.dir, "moved")
	require.NoError(t, os.Rename(r.file, moved))
	_, err = r.installAt(t, link)
	require.NoError(t, err)
	target, err = os.Readlink(link)
	require.NoError(t, err)
	assert.Equal(t, moved, target)

	// It is gone.
	require.NoError(t, os.Remove(moved))
	require.NoError(t, os.Remove(link))
	require.NoError(t, os.Symlink("bad", link))
	_, err = r.installAt(t, link)
	var e *installError
	require.ErrorAs(t, err, &e)
	assert.Contains(t, e.Error(), "there is nothing to point it to")
	assert.Contains(t, e.hint, "ln -sfn FILE "+link)
	target, err = os.Readlink(link)
	require.NoError(t, err)
	assert.Equal(t, "bad", target)

	// There is another file in its place.
	require.NoError(t, os.WriteFile(r.file, []byte("other"), 0o755))
	_, err = r.installAt(t, link)
	require.ErrorAs(t, err, &e)
	assertNoLeftovers(t, r.dir)
}

// Each version has a directory, and a symbolic link names the one that counts: the
// file of the bad version must not be overwritten by the good one.
func TestInstallBehindLink(t *testing.T) {
	r := startRunning(t)
	bad := filepath.Join(r.dir, "bad", "app")
	require.NoError(t, os.Mkdir(filepath.Dir(bad), 0o755))
	require.NoError(t, os.WriteFile(bad, []byte("bad"), 0o755))
	link := filepath.Join(r.dir, "current")
	require.NoError(t, os.Symlink("bad", link))
	_, err := r.installAt(t, filepath.Join(link, "app"))
	var e *installError
	require.ErrorAs(t, err, &e)
	assert.Contains(t, e.Error(), "it is the link that has to change")
	assert.Equal(t, "ln -sfn "+filepath.Join(r.dir, "old")+" "+link, e.hint)
	content, err := os.ReadFile(bad)
	require.NoError(t, err)
	assert.Equal(t, "bad", string(content))

	// A directory that has two names is not two versions.
	alias := filepath.Join(r.dir, "alias")
	require.NoError(t, os.Symlink("old", alias))
	require.NoError(t, os.WriteFile(r.file+".new", []byte("bad"), 0o755))
	require.NoError(t, os.Rename(r.file, r.file+".bak"))
	require.NoError(t, os.Rename(r.file+".new", r.file))
	_, err = r.installAt(t, filepath.Join(alias, "app"))
	require.NoError(t, err)
	r.assertInstalled(t, r.file)
}

// What cannot be done leaves everything as it was.
func TestInstallRefuses(t *testing.T) {
	leak.Check(t)
	setup := func(t *testing.T) (r *running, path string) {
		r = startRunning(t)
		path = filepath.Join(r.dir, "bin", "app")
		require.NoError(t, os.Mkdir(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte("bad"), 0o755))
		return r, path
	}
	unchanged := func(t *testing.T, path string) {
		t.Helper()
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, "bad", string(content))
		assertNoLeftovers(t, filepath.Dir(path))
	}
	t.Run("wrong digest", func(t *testing.T) {
		r, path := setup(t)
		r.digest = strings.Repeat("0", 64)
		_, err := r.installAt(t, path)
		require.ErrorContains(t, err, "is not what the service says it runs")
		unchanged(t, path)
	})
	t.Run("another main process", func(t *testing.T) {
		r, path := setup(t)
		exe, err := r.open()
		require.NoError(t, err)
		defer exe.Close()
		s := r.status(path)
		s.Generations[0].PID = 1
		_, err = r.install(exe, s, nil)
		require.ErrorContains(t, err, "is not the main one any more, process 1 is")
		unchanged(t, path)
	})
	t.Run("no path", func(t *testing.T) {
		r, _ := setup(t)
		exe, err := r.open()
		require.NoError(t, err)
		defer exe.Close()
		_, err = r.install(exe, &control.Status{}, nil)
		require.ErrorContains(t, err, "does not say which file")
	})
	t.Run("a directory", func(t *testing.T) {
		r, path := setup(t)
		_, err := r.installAt(t, filepath.Dir(path))
		require.ErrorContains(t, err, "not a regular file but d")
	})
	t.Run("no directory", func(t *testing.T) {
		r, path := setup(t)
		_, err := r.installAt(t, filepath.Join(r.dir, "gone", "app"))
		require.ErrorIs(t, err, os.ErrNotExist)
		unchanged(t, path)
	})
	t.Run("read-only", func(t *testing.T) {
		r, path := setup(t)
		require.NoError(t, os.Chmod(r.dir, 0o755))
		require.NoError(t, os.Chmod(filepath.Dir(path), 0o555))
		exe, err := r.open()
		require.NoError(t, err)
		defer exe.Close()
		asNobody(func() { _, err = r.install(exe, r.status(path), nil) })
		require.ErrorIs(t, err, os.ErrPermission)
		unchanged(t, path)
	})
	t.Run("no process", func(t *testing.T) {
		_, err := restored{pid: 1999999999}.open()
		require.ErrorIs(t, err, os.ErrNotExist)
		_, err = restored{}.open()
		require.ErrorContains(t, err, "which process")
	})
	t.Run("full disk", func(t *testing.T) {
		_, path := setup(t)
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		require.NoError(t, err)
		defer full.Close()
		err = replaceFile(path, func(*os.File) error {
			_, err := full.Write([]byte("x"))
			return err
		})
		require.ErrorIs(t, err, unix.ENOSPC)
		unchanged(t, path)
	})
}

// asNobody calls f without root's rights on files; for everybody else it just calls
// f.
func asNobody(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The user for files is one of the thread, which ends with the goroutine.
		runtime.LockOSThread()
		if os.Getuid() == 0 {
			_, _ = unix.SetfsuidRetUid(65534)
		}
		f()
	}()
	<-done
}

// The whole way: rollback --install, of a file that was replaced by the version that
// did not work.
func TestRollbackInstalls(t *testing.T) {
	for _, format := range []string{"table", "json"} {
		t.Run(format, func(t *testing.T) {
			leak.Check(t)
			r := startRunning(t)
			require.NoError(t, os.Remove(r.file))
			require.NoError(t, os.WriteFile(r.file, []byte("bad"), 0o755))
			a, stdout, stderr := testApp(t)
			f := &fakeService{
				Status: &control.Status{Service: "app", Main: 8, Generations: []control.Generation{{Number: 8, PID: 8}}},
				After:  r.status(r.file),
				Rollback: []control.Line{{Result: &control.Result{
					Outcome: control.OutcomeConfirmed, Rollback: true, From: 8, To: 9, ToPID: r.pid, ToDigest: r.digest, Version: "v1",
				}}},
			}
			f.run(t, a.runDir, "app")
			assert.Equal(t, exitOK, a.run(t.Context(), []string{"rollback", "app", "--install", "-o", format}), stderr.String())
			r.assertInstalled(t, r.file)
			assert.Empty(t, stderr.String())
			if format == "table" {
				assert.Equal(t, "app: rolled back 8 -> 9 (v1)\napp: "+r.file+" is the file that runs again: a restart would start it\n", stdout.String())
			} else {
				assert.Contains(t, stdout.String(), `"installed": `+strconv.Quote(r.file))
			}
		})
	}
}
