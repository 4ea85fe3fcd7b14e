package testbed

import (
	_ "embed" // janitor.sh
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// prefix begins the name of every testbed's directory and cgroup.
const prefix = "handoff-testbed-"

//go:embed janitor.sh
var janitorScript string

// A home is what a testbed has on the host: a directory, and a cgroup of the
// same name. Unlike processes, mounts and namespaces they do not vanish when
// their owner does. Therefore there is a janitor: a process that waits for the
// end of its owner, however it comes, and then removes both.
//
// As a second line of defence the directory is locked (flock(2)) as long as the
// owner or the janitor lives: both have the same open file description. Who
// finds a directory that is not locked, removes it; see [sweep].
type home struct {
	dir     string   // /tmp/handoff-testbed-NAME-RANDOM
	lock    *os.File // dir
	cgroups *os.File // root of the cgroup2 file system
	janitor *exec.Cmd
	leash   *os.File // write end of the janitor's stdin

	root     *os.File // the home's cgroup, the root of what is visible inside
	commands *os.File // the cgroup of commands that come from the outside
}

// newHome creates the directory and the cgroup, and hires the janitor first.
func newHome(name string) (*home, error) {
	cgroups, err := cgroupRoot()
	if err != nil {
		return nil, err
	}
	dir, lock, err := lockedDir(name)
	if err != nil {
		_ = cgroups.Close()
		return nil, err
	}
	h := &home{dir: dir, lock: lock, cgroups: cgroups}
	if err := h.hire(); err != nil {
		return nil, errors.Join(err, os.Remove(dir), lock.Close(), cgroups.Close())
	}
	for _, sub := range []string{h.share(), h.mountpoint()} {
		if err := os.Mkdir(sub, 0o755); err != nil {
			return nil, errors.Join(err, h.close())
		}
	}
	// Like /tmp: services inside that are not root's create sockets there.
	if err := os.Chmod(h.share(), 0o777|os.ModeSticky); err != nil {
		return nil, errors.Join(err, h.close())
	}
	if h.root, err = h.newCgroup("."); err != nil {
		return nil, errors.Join(err, h.close())
	}
	if h.commands, err = h.newCgroup("commands"); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *home) share() string      { return filepath.Join(h.dir, "share") }
func (h *home) mountpoint() string { return filepath.Join(h.dir, "mnt") }
func (h *home) cgroup() string     { return filepath.Base(h.dir) }

// newCgroup creates a cgroup below the home's, or the home's itself for ".",
// and opens it.
func (h *home) newCgroup(name string) (*os.File, error) {
	name = path.Join(h.cgroup(), name)
	if err := unix.Mkdirat(int(h.cgroups.Fd()), name, 0o755); err != nil {
		return nil, fmt.Errorf("create cgroup %s: %w", name, err)
	}
	fd, err := unix.Openat(int(h.cgroups.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// close makes the janitor do its work, and waits for it.
func (h *home) close() error {
	err := h.leash.Close()
	if e := h.janitor.Wait(); e != nil {
		err = errors.Join(err, fmt.Errorf("remove %s and its cgroup: %w", h.dir, e))
	}
	for _, cgroup := range []*os.File{h.root, h.commands} {
		if cgroup != nil {
			_ = cgroup.Close()
		}
	}
	return errors.Join(err, h.lock.Close(), h.cgroups.Close())
}

// hire starts the janitor.
func (h *home) hire() error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = read.Close() }()
	// No output: a janitor that outlives its owner must not keep anybody waiting
	// for the end of the owner's output ("go test" would). In its own session,
	// where neither Ctrl-C nor the end of a terminal finds it.
	h.janitor = exec.Command("/bin/sh", "-c", janitorScript, "handoff-testbed-janitor", h.dir, h.cgroup())
	h.janitor.Dir = "/"
	h.janitor.Stdin = read
	h.janitor.ExtraFiles = []*os.File{h.cgroups, h.lock}
	h.janitor.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := h.janitor.Start(); err != nil {
		return errors.Join(fmt.Errorf("start janitor: %w", err), write.Close())
	}
	h.leash = write
	return nil
}

// cgroupRoot opens the root of the cgroup2 file system, whether and wherever
// the host has mounted it: by a mount of its own that is attached to no
// directory, and goes away with the last descriptor (fsmount(2), Linux 5.2).
func cgroupRoot() (*os.File, error) {
	context, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open cgroup2 file system: %w", err)
	}
	defer func() { _ = unix.Close(context) }()
	if err := unix.FsconfigCreate(context); err != nil {
		return nil, fmt.Errorf("open cgroup2 file system: %w", err)
	}
	fd, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("mount cgroup2 file system: %w", err)
	}
	return os.NewFile(uintptr(fd), "cgroup2"), nil
}

// lockedDir creates a directory and locks it.
func lockedDir(name string) (string, *os.File, error) {
	for {
		dir, err := os.MkdirTemp("", prefix+name+"-")
		if err != nil {
			return "", nil, err
		}
		lock, err := tryLock(dir)
		if err != nil {
			return "", nil, errors.Join(err, os.Remove(dir))
		}
		if lock != nil {
			return dir, lock, nil
		}
		// A sweep came between the two, and has removed it. Again.
	}
}

// tryLock locks the directory and returns it, or nil if that is impossible
// because it is locked by somebody else, or gone.
func tryLock(dir string) (*os.File, error) {
	lock, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	// Locked, but still there?
	locked, err1 := lock.Stat()
	named, err2 := os.Lstat(dir)
	if err1 != nil || err2 != nil || !os.SameFile(locked, named) {
		_ = lock.Close()
		return nil, nil
	}
	return lock, nil
}

// sweep removes the homes whose owner and janitor are both dead, killed
// together by a CI system, for instance.
func sweep() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() || !ours(info) {
			continue
		}
		lock, err := tryLock(dir)
		if err != nil || lock == nil {
			errs = append(errs, err)
			continue
		}
		cgroups, err := cgroupRoot()
		if err != nil {
			return errors.Join(err, lock.Close())
		}
		h := &home{dir: dir, lock: lock, cgroups: cgroups}
		if err := h.hire(); err != nil {
			return errors.Join(err, lock.Close(), cgroups.Close())
		}
		errs = append(errs, h.close())
	}
	return errors.Join(errs...)
}

// ours tells whether the file belongs to this user.
func ours(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
