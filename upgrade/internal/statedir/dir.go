package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dirMode    = 0o750
	parentMode = 0o755 // other services may have theirs beside ours
	fileMode   = 0o640

	// lockPatience is how long a call waits for a process that holds the lock.
	lockPatience = 2 * time.Second
)

// ErrTooLarge is wrapped by the errors about a line, or a file, that is longer
// than one may be.
var ErrTooLarge = errors.New("statedir: too large")

// Dir is a state directory. It is safe for concurrent use, by several processes
// as well. There is nothing to close.
type Dir struct {
	path string

	maxHistory int64         // bytes in one file of the history
	patience   time.Duration // for the lock
}

// Open makes the directory path with mode 0750 (less the umask) if it is not
// there, and the ones above it with 0755. An existing one is left as it is, and
// may be a symbolic link, which it is with DynamicUser=.
//
// The path must be absolute. The error says whether the directory is missing
// (fs.ErrNotExist, if it cannot be made), something else (ENOTDIR), or not
// writable for this process (EACCES, EROFS).
func Open(path string) (*Dir, error) {
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return nil, fmt.Errorf("state directory %q: the path is not absolute", path)
	}
	path = filepath.Clean(path)
	if err := makeDir(path); err != nil {
		return nil, fmt.Errorf("make the state directory (StateDirectory=%s in the unit does): %w", filepath.Base(path), err)
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("state directory: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("state directory %s: %w", path, unix.ENOTDIR)
	}
	// To ask and not to try: a disk that is full now may have room later.
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return nil, fmt.Errorf("state directory %s cannot be written (StateDirectory= in the unit gives it to the service's user): %w", path, err)
	}
	return &Dir{path: path, maxHistory: maxHistory, patience: lockPatience}, nil
}

// Path returns the path of the directory.
func (d *Dir) Path() string { return d.path }

func makeDir(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), parentMode); err != nil {
		return err
	}
	if err := os.Mkdir(path, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// directory is a Dir in use. Everything that one call does is done relative to
// one descriptor, whatever happens to the path meanwhile.
type directory struct {
	fd       int
	path     string
	patience time.Duration
}

// open opens the directory. The caller closes it, which also unlocks it.
func (d *Dir) open() (*directory, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(d.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: d.path, Err: err}
	}
	return &directory{fd: fd, path: d.path, patience: d.patience}, nil
}

func (o *directory) close() { unix.Close(o.fd) }

// lock takes the lock on the directory, which keeps away other users of this
// package in all processes. It is not a file of its own: that one could be
// removed, and two processes would hold locks on two files of one name. The
// error wraps os.ErrDeadlineExceeded when somebody else has kept it for too long.
func (o *directory) lock() error {
	deadline := time.NewTimer(o.patience)
	defer deadline.Stop()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for {
		switch err := unix.Flock(o.fd, unix.LOCK_EX|unix.LOCK_NB); err {
		case nil:
			return nil
		case unix.EWOULDBLOCK, unix.EINTR:
		default:
			return &fs.PathError{Op: "flock", Path: o.path, Err: err}
		}
		select {
		case <-again.C:
		case <-deadline.C:
			return &fs.PathError{
				Op: "flock", Path: o.path,
				Err: fmt.Errorf("another process has kept its lock for %v: %w", o.patience, os.ErrDeadlineExceeded),
			}
		}
	}
}

// unlock ends the lock before the directory is closed.
func (o *directory) unlock() { _ = unix.Flock(o.fd, unix.LOCK_UN) }

// openFile opens a file of the directory, which must be a regular one, and no
// symbolic link: who may put one there must not choose what is written.
func (o *directory) openFile(name string, flags int) (file, error) {
	// O_NONBLOCK is for the open(2) of a FIFO, which would wait for somebody.
	fd, err := retry(func() (int, error) {
		return unix.Openat(o.fd, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, fileMode)
	})
	switch {
	case err == unix.ELOOP:
		return -1, o.wrap("open", name, fmt.Errorf("it is a symbolic link, and not followed: %w", err))
	case err != nil:
		return -1, o.wrap("open", name, err)
	}
	f := file(fd)
	switch st, err := f.stat(); {
	case err != nil:
		f.close()
		return -1, o.wrap("fstat", name, err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		f.close()
		return -1, o.wrap("open", name, fmt.Errorf("it is not a regular file: %w", unix.EINVAL))
	}
	return f, nil
}

// sync makes durable which files there are.
func (o *directory) sync() error {
	err := retryErr(func() error { return unix.Fsync(o.fd) })
	if err == unix.EINVAL || err == unix.ENOTSUP { // of some file systems, for directories
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "fsync", Path: o.path, Err: err}
	}
	return nil
}

func (o *directory) wrap(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: filepath.Join(o.path, name), Err: err}
}
