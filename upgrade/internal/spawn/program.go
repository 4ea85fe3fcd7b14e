package spawn

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// programPath returns the absolute path to run for the next generation, found
// from how this process was started: argv0 in the working directory wd.
//
// Symlinks in it are kept, so that each start follows them anew: switching one
// is how a new version is installed. For the same reason it is not the path of
// the executable, in which the kernel has resolved them, except if argv0 leads
// nowhere (with "ExecStart=@path argv0" of systemd it can be any string).
func programPath(argv0, wd string) (string, error) {
	if strings.Contains(argv0, "/") {
		path := absolute(argv0, wd)
		if isProgram(path) {
			return path, nil
		}
	} else if argv0 != "" {
		path, err := exec.LookPath(argv0)
		// ErrDot says that PATH has a relative directory. It has led here.
		if err == nil || errors.Is(err, exec.ErrDot) {
			// A name is a weak hint, and another program may have it.
			if path = absolute(path, wd); isThisProgram(path) {
				return path, nil
			}
		}
	}
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the executable of this process: %w", err)
	}
	return path, nil
}

// absolute makes path absolute. It does not clean it: a/../b is not b if a is a
// symlink.
func absolute(path, wd string) string {
	if filepath.IsAbs(path) {
		return path
	}
	for strings.HasPrefix(path, "./") {
		path = strings.TrimLeft(path[2:], "/")
	}
	return strings.TrimSuffix(wd, "/") + "/" + path
}

// isProgram reports whether path is a file that somebody may execute.
func isProgram(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// isThisProgram reports whether path is the file that this process executes.
func isThisProgram(path string) bool {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false
	}
	fi, err := os.Stat(path)
	return err == nil && os.SameFile(self, fi)
}

// startError makes an error of the text of tableflip's, when it could not start
// path in the working directory wd: the useful part, with the error number that
// tableflip has not wrapped, and with what the number does not say.
func startError(text, path, wd string) error {
	for _, prefix := range []string{
		startFailed,
		"can't start process " + path + ": ",
		"fork/exec: ",
		fmt.Sprintf("exec: %q: ", path),
		"stat " + path + ": ",
	} {
		text = strings.TrimPrefix(text, prefix)
	}
	err := withErrno(text)
	if detail := startDetail(err, path, wd); detail != "" {
		return fmt.Errorf("%s: %w", detail, err)
	}
	return err
}

// startDetail says what err alone does not.
func startDetail(err error, path, wd string) string {
	switch {
	case errors.Is(err, unix.ENOEXEC):
		return "neither a program for this machine nor a script with a #! line"
	case !errors.Is(err, fs.ErrNotExist):
		return ""
	}
	// fork/exec says ENOENT for four things.
	if _, err := os.Stat(path); err != nil {
		if target, err := os.Readlink(path); err == nil {
			return fmt.Sprintf("symlink to %s", target)
		}
		return ""
	}
	if _, err := os.Stat(wd); err != nil {
		return fmt.Sprintf("working directory %s", wd)
	}
	if interpreter := scriptInterpreter(path); interpreter != "" {
		return fmt.Sprintf("interpreter %s of the script", interpreter)
	}
	return "dynamic loader of the program"
}

// scriptInterpreter returns the interpreter that the first line of path names,
// or "" if it is no script.
func scriptInterpreter(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, 256)).ReadString('\n') // BINPRM_BUF_SIZE
	if err != nil && err != io.EOF {
		return ""
	}
	rest, ok := strings.CutPrefix(line, "#!")
	if !ok {
		return ""
	}
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return ""
	}
	return fields[0]
}

// withErrno returns an error that reads text and wraps the error number that
// text ends with, if it does.
func withErrno(text string) error {
	for errno := unix.Errno(1); errno < 134; errno++ {
		if s := errno.Error(); text == s {
			return errno
		} else if prefix, ok := strings.CutSuffix(text, ": "+s); ok {
			return fmt.Errorf("%s: %w", prefix, errno)
		}
	}
	return errors.New(text)
}
