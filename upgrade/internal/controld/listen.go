package controld

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxPath is the length of sun_path less its final NUL, unix(7). The
	// kernel could be led around it by way of /proc/self/fd, but then no
	// client could connect.
	maxPath = 107

	backlog  = 128
	dirMode  = 0o755
	sockMode = 0o660

	// lockPatience is how long a start waits for another one that holds the
	// lock. It is held for a few system calls.
	lockPatience = 5 * time.Second
)

// InUseError says that a live process listens on the control socket already.
type InUseError struct {
	Path string
	// PID is the process that opened the socket: it may have handed it on,
	// and be gone. 0 is unknown.
	PID int
}

func (e *InUseError) Error() string {
	by := ""
	if e.PID > 0 {
		by = fmt.Sprintf(" (its socket was opened by process %d)", e.PID)
	}
	return fmt.Sprintf("another instance of the service runs, and answers on %s%s", e.Path, by)
}

// Unwrap returns EADDRINUSE, which a bind would have said.
func (e *InUseError) Unwrap() error { return unix.EADDRINUSE }

// MakeDir makes the directory of the control socket path, with mode 0755, and
// the one above it: handoff/NAME. What exists is left as it is. It is for the
// default path of a service without systemd; a service unit has
// RuntimeDirectory=handoff/NAME, and a path that somebody chose is his to
// prepare.
func MakeDir(path string) error {
	dir := filepath.Dir(path)
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Mkdir(d, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make the directory of the control socket: %w", err)
		}
	}
	return nil
}

// Listen makes the control socket of a service that starts, and gives it to the
// caller. A later generation inherits it and does not call Listen. Closing the
// listener leaves the file in place.
//
// The directory must exist, see [MakeDir]. If a live process listens there, the
// error is an [*InUseError]; the file of a dead one is replaced; a file that is
// not a socket is an error. Two starts at the same moment are kept apart by a
// lock on the file path+".lock", which stays.
//
// The socket has the mode 0660, and never one that lets more people in, whatever
// the umask. If operatorGroup, a name or a number, is not "", it is given to that
// group. Where that is impossible the socket is there all the same, and the
// warning says why and what to do; the warning is for the status.
func Listen(path string, operatorGroup string) (ln *net.UnixListener, warning string, err error) {
	return listen(path, operatorGroup, lockPatience)
}

func listen(path, operatorGroup string, patience time.Duration) (*net.UnixListener, string, error) {
	if err := checkPath(path); err != nil {
		return nil, "", err
	}
	unlock, err := lock(path+".lock", patience)
	if err != nil {
		return nil, "", fmt.Errorf("control socket %s: %w", path, err)
	}
	defer unlock()
	if err := clearStale(path); err != nil {
		return nil, "", err
	}
	ln, err := bind(path)
	if err != nil {
		return nil, "", fmt.Errorf("control socket %s: %w", path, err)
	}
	warning, err := share(path, operatorGroup)
	if err != nil {
		// Nobody but the service itself could connect.
		return nil, "", errors.Join(err, ln.Close(), os.Remove(path))
	}
	return ln, joinWarnings(warning, checkDir(filepath.Dir(path))), nil
}

// Share gives the control socket path to the operator group, or says in a
// warning why it cannot, and what to do. [Listen] has done so; a later
// generation repeats it, because it may have been configured differently. A
// socket that had a group keeps it if operatorGroup is "": who is in it may
// connect, but not command.
func Share(path, operatorGroup string) (warning string) {
	warning, err := share(path, operatorGroup)
	if err != nil {
		return joinWarnings(warning, err.Error())
	}
	return warning
}

func joinWarnings(warnings ...string) string {
	var all []string
	for _, w := range warnings {
		if w != "" {
			all = append(all, w)
		}
	}
	return strings.Join(all, "; ")
}

// checkPath refuses what the kernel would refuse with less words, and what it
// would take for something else: an abstract socket ("@...") has no mode, and a
// relative path depends on the working directory.
func checkPath(path string) error {
	switch {
	case !filepath.IsAbs(path) || strings.ContainsRune(path, 0):
		return fmt.Errorf("control socket %q: the path is not absolute", path)
	case len(path) > maxPath:
		return fmt.Errorf("control socket %s: the path has %d bytes, and the kernel takes %d; choose a shorter one with HANDOFF_CONTROL=", path, len(path), maxPath)
	}
	switch info, err := os.Stat(filepath.Dir(path)); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("control socket %s: its directory does not exist (RuntimeDirectory=handoff/NAME in the unit makes it): %w", path, err)
	case err != nil:
		return fmt.Errorf("control socket %s: %w", path, err)
	case !info.IsDir():
		return fmt.Errorf("control socket %s: %w", path, unix.ENOTDIR)
	}
	return nil
}

// checkDir warns of a directory in which anybody can put another socket in the
// place of ours.
func checkDir(dir string) (warning string) {
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm()&0o002 == 0 || info.Mode()&fs.ModeSticky != 0 {
		return ""
	}
	return fmt.Sprintf("everybody can replace the control socket: directory %s has mode %#o", dir, info.Mode().Perm())
}

// lock takes the lock on path, or returns an error when it is not to be had in
// time. The file stays: to remove it would let two processes lock two files of
// one name.
func lock(path string, patience time.Duration) (unlock func(), err error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock file: %w", &fs.PathError{Op: "open", Path: path, Err: err})
	}
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	for {
		// Not a blocking flock(2): somebody who is stopped in the middle must
		// not hold up all others for good.
		switch err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err {
		case nil:
			return func() { unix.Close(fd) }, nil
		case unix.EWOULDBLOCK, unix.EINTR:
		default:
			unix.Close(fd)
			return nil, fmt.Errorf("lock: %w", &fs.PathError{Op: "flock", Path: path, Err: err})
		}
		select {
		case <-retry.C:
		case <-deadline.C:
			unix.Close(fd)
			return nil, fmt.Errorf("another start of the service has held %s for %v: %w", path, patience, os.ErrDeadlineExceeded)
		}
	}
}

// clearStale makes sure that path is free: it removes a socket on which nobody
// listens any more, and nothing else.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket %s: %w", path, err)
	}
	// First this: connect(2) says ECONNREFUSED of any file.
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("control socket %s: there is something else, not a socket: remove it, or choose another path", path)
	}
	switch pid, err := probe(path); {
	case err == nil, errors.Is(err, unix.EAGAIN): // EAGAIN: its backlog is full
		return &InUseError{Path: path, PID: pid}
	case errors.Is(err, unix.ENOENT):
		return nil
	case !errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("control socket %s: there is a socket that may be in use: connect: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the stale control socket: %w", err)
	}
	return nil
}

// probe connects to path, which does nothing to a live server, and returns the
// process that opened it. It does not block.
func probe(path string) (pid int, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return 0, err
	}
	// To the client, SO_PEERCRED is who called listen(2).
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0, nil // it answers; who it is was a detail
	}
	return int(cred.Pid), nil
}

// bind makes a socket at path that only the own user can connect to.
func bind(path string) (*net.UnixListener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // FileListener makes a duplicate
	// The file gets the mode of the socket less the umask, so that it is never
	// open to others, not even for a moment. (To set the umask would do it to
	// all threads; to bind elsewhere and rename would leave the other name in
	// what getsockname(2) and ss(8) show.)
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return nil, os.NewSyscallError("fchmod", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return nil, errors.Join(os.NewSyscallError("listen", err), os.Remove(path))
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	ul := ln.(*net.UnixListener) // it is one, by the call of Socket above
	// It is so already for a FileListener, but nobody should have to know: the
	// next generation lives by this file.
	ul.SetUnlinkOnClose(false)
	return ul, nil
}

// share gives path to the operator group, then lets the group in. The group
// alone is worth a warning only: root and the service's user can still connect.
func share(path, operatorGroup string) (warning string, err error) {
	// What is checked here is what is changed below, even if somebody moves
	// files around meanwhile: no path is looked up twice, no symlink followed.
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("control socket %s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", fmt.Errorf("control socket %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return "", fmt.Errorf("control socket %s: it is not a socket any more", path)
	}
	gid, lookupErr := lookupGroup(operatorGroup)
	switch {
	case lookupErr != nil:
		warning = lookupErr.Error()
	case gid >= 0 && uint32(gid) != st.Gid:
		if err := unix.Fchownat(fd, "", -1, gid, unix.AT_EMPTY_PATH); err != nil {
			warning = fmt.Sprintf("members of the operator group %s cannot connect: give the control socket to the group: %v (the unit needs SupplementaryGroups=%s)",
				operatorGroup, err, operatorGroup)
		}
	}
	if st.Mode&0o7777 == sockMode {
		return warning, nil
	}
	// fchmod(2) does not take an O_PATH descriptor, and fchmodat2 needs Linux
	// 6.6; proc_pid_fd(5) has done since ever.
	if err := unix.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), sockMode); err != nil {
		return warning, fmt.Errorf("control socket %s: %w", path, os.NewSyscallError("chmod", err))
	}
	return warning, nil
}
