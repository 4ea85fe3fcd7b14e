package preflight

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
)

// subject is the file that is looked at.
type subject struct {
	name string // for people
	path string // for system calls
	open bool   // path is that of an open file of this process
	size int64
}

const (
	hintMissing  = "put the program in place; a restart of the service would fail, too"
	hintUnclosed = "was it still being written? Write the new file under another name, then rename it"
	hintInstall  = "install the program anew"
)

// program looks at the file. It stops where the next check would make no sense.
func program(c Config) []control.Check {
	s := subject{name: c.Path, path: c.Path}
	if c.File != nil {
		if s.name == "" {
			s.name = c.File.Name()
		}
		fd, err := number(c.File)
		if err != nil {
			return []control.Check{fail(NameFile, fmt.Sprintf("the open file of %s cannot be used: %v", s.name, err), "")}
		}
		s.path, s.open = "/proc/self/fd/"+strconv.Itoa(fd), true
	}

	checks := []control.Check{s.file()}
	if Failed(checks) != nil {
		return checks
	}
	checks = append(checks, s.executable())
	if Failed(checks) != nil {
		return checks
	}
	// Without O_NONBLOCK a FIFO that is put in place just now would hold us.
	f, err := os.OpenFile(s.path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil { // executable, but not readable
		return append(checks, pass(NameArchitecture, s.name+" cannot be read by this service: the kernel will know"))
	}
	defer f.Close()
	return append(checks, s.content(f)...)
}

// number returns the descriptor of f, which stays as it is.
func number(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	n := -1
	err = raw.Control(func(fd uintptr) { n = int(fd) })
	return n, err
}

// file checks that there is one.
func (s *subject) file() control.Check {
	info, err := os.Stat(s.path) // symbolic links as they are now
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if target, linkErr := os.Readlink(s.path); linkErr == nil {
			return fail(NameFile, fmt.Sprintf("%s is a symbolic link to %s, which does not exist", s.name, target), hintMissing)
		}
		return fail(NameFile, s.name+" does not exist", hintMissing)
	case err != nil:
		return fail(NameFile, fmt.Sprintf("%s cannot be looked at: %v", s.name, errno(err)), "")
	case !info.Mode().IsRegular():
		return fail(NameFile, fmt.Sprintf("%s is no regular file but %s", s.name, kind(info.Mode())), hintMissing)
	case info.Size() == 0:
		return fail(NameFile, s.name+" is empty", hintUnclosed)
	}
	s.size = info.Size()
	what := fmt.Sprintf("%s of %s", size(s.size), info.ModTime().Format("2006-01-02 15:04:05"))
	if s.open {
		return pass(NameFile, fmt.Sprintf("%s is still open: %s", s.name, what))
	}
	if target, err := filepath.EvalSymlinks(s.path); err == nil && target != filepath.Clean(s.path) {
		return pass(NameFile, fmt.Sprintf("%s leads to %s: %s", s.name, target, what))
	}
	return pass(NameFile, fmt.Sprintf("%s: %s", s.name, what))
}

// executable checks that this process may execute it.
func (s *subject) executable() control.Check {
	err := canExecute(s.path)
	if err == nil {
		return pass(NameExecutable, s.name+" may be executed by this service")
	}
	var fsys unix.Statfs_t
	if unix.Statfs(s.path, &fsys) == nil && fsys.Flags&unix.ST_NOEXEC != 0 {
		return fail(NameExecutable, s.name+" is on a file system from which nothing may be executed",
			"it is mounted with noexec, or the unit says NoExecPaths=")
	}
	info, statErr := os.Stat(s.path)
	if statErr != nil {
		return fail(NameExecutable, fmt.Sprintf("%s may not be executed by this service: %v", s.name, err), "")
	}
	message := fmt.Sprintf("%s (mode %04o) may not be executed by this service (user %d): %v", s.name, info.Mode().Perm(), os.Geteuid(), err)
	return fail(NameExecutable, message, "chmod +x "+s.name)
}

// canExecute asks as execve(2) does, by the effective user; access(2) would ask by
// the real one. It sees noexec, too.
func canExecute(path string) error {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

// content checks what is in the file.
func (s *subject) content(f *os.File) []control.Check {
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil {
		return []control.Check{fail(NameComplete, fmt.Sprintf("%s is no program: it has %d bytes", s.name, s.size), hintUnclosed)}
	}
	switch {
	case string(magic[:2]) == "#!":
		return []control.Check{s.script(f)}
	case string(magic[:]) == elf.ELFMAG:
		return s.elf(f)
	}
	return []control.Check{warn(
		NameArchitecture,
		s.name+" is neither an ELF program nor a script with a #! line",
		"it can be executed only by a rule of the kernel's binfmt_misc",
	)}
}

// kind names what is no regular file.
func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return mode.Type().String()
}

// errno leaves the number of an error, where the path is told otherwise.
func errno(err error) error {
	if n, ok := errors.AsType[unix.Errno](err); ok {
		return n
	}
	return err
}

// size formats a number of bytes.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, u := float64(n)/1024, 0
	for v >= 1024 && u < len(units)-1 {
		v /= 1024
		u++
	}
	return fmt.Sprintf("%.1f %ciB", v, units[u])
}
