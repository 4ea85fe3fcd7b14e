package testbed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"
)

// Install writes a unit file, or a drop-in ("app.service.d/more.conf"), below
// /etc/systemd/system, and makes systemd read it ("systemctl daemon-reload").
func (tb *Testbed) Install(name, content string) error {
	return tb.InstallUnits(map[string]string{name: content})
}

// InstallUnits is [Testbed.Install] for several files at once: names to
// contents.
func (tb *Testbed) InstallUnits(units map[string]string) error {
	for name, content := range units {
		if err := tb.WriteFile(path.Join(unitDir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return tb.DaemonReload()
}

// DaemonReload makes systemd read its unit files again.
func (tb *Testbed) DaemonReload() error { return tb.Systemctl("daemon-reload").Err() }

// WriteFile writes a file inside; directories that it needs are created. A file
// of that name is replaced by rename(2): who has it open, or runs it, keeps the
// old one.
func (tb *Testbed) WriteFile(name string, data []byte, mode os.FileMode) error {
	return tb.write(name, bytes.NewReader(data), mode)
}

// CopyFile copies a file of the host to the inside, with its permissions, as
// [Testbed.WriteFile] does: the way to install a new version of a program that
// runs.
func (tb *Testbed) CopyFile(hostPath, name string) error {
	file, err := os.Open(hostPath)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return tb.write(name, file, info.Mode().Perm())
}

// ReadFile reads a file inside. It does not work for /proc/self.
func (tb *Testbed) ReadFile(name string) ([]byte, error) {
	fd, err := tb.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	defer func() { _ = file.Close() }()
	return io.ReadAll(file)
}

func (tb *Testbed) write(name string, content io.Reader, mode os.FileMode) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", name, err)
		}
	}()
	dir, err := tb.openDir(path.Dir(path.Clean(name)))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }()
	temporary := fmt.Sprintf(".testbed-%x", randomID())

	// A child that another goroutine starts in this very moment would have the
	// descriptor until it execs, and so long the kernel would not run the file
	// (ETXTBSY). So nobody forks while it is open.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Openat(dir, temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), temporary)
	_, err = io.Copy(file, content)
	err = errors.Join(err, file.Chmod(mode), file.Close())
	if err == nil {
		err = unix.Renameat(dir, temporary, dir, path.Base(name))
	}
	if err != nil {
		_ = unix.Unlinkat(dir, temporary, 0)
	}
	return err
}

// openDir opens a directory inside, and creates what is missing of its path.
func (tb *Testbed) openDir(name string) (int, error) {
	fd, err := tb.open(name, unix.O_PATH|unix.O_DIRECTORY)
	if !errors.Is(err, os.ErrNotExist) || name == "/" || name == "." {
		return fd, err
	}
	parent, err := tb.openDir(path.Dir(name))
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(parent) }()
	if err := unix.Mkdirat(parent, path.Base(name), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return -1, fmt.Errorf("create directory %s: %w", name, err)
	}
	return tb.open(name, unix.O_PATH|unix.O_DIRECTORY)
}

// open opens a file inside. /proc/PID/root would seem to be the way; but
// absolute links inside, such as /var/run, would lead to the host's files then.
// openat2(2) (Linux 5.6) resolves them as a process inside would.
func (tb *Testbed) open(name string, flags uint64) (int, error) {
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	for {
		fd, err := unix.Openat2(int(tb.init.root.Fd()), name, how)
		switch {
		case err == nil:
			return fd, nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			// Something was renamed meanwhile.
		default:
			return -1, &os.PathError{Op: "open", Path: tb.name + ":" + name, Err: err}
		}
	}
}
