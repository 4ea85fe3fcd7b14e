package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// System is where the doctor looks, and whom it asks. The zero value is the system
// that the caller runs on, without a systemd that can be asked. Its methods may be
// called at the same time.
type System struct {
	// Root is the directory of the file system to look at, with its own /proc and
	// /sys. Default: /.
	Root string

	// Show asks systemd; see [units.Systemctl]. Without it, that it was not asked
	// is a finding.
	Show units.Show

	// Drift returns in what the process of a unit differs from the unit; see
	// [units.Drift]. Without it that is not looked at.
	Drift func(ctx context.Context, unit string, pid int) ([]control.Check, error)

	// User is for services of a user's service manager.
	User bool

	// UserName is the name of that user, who is the caller.
	UserName string

	// RunDir is where the services have their control sockets. Default:
	// [control.RunDir].
	RunDir string

	// Hdctl is the path of the program that asks, and Version the version of the
	// library in it. Without them nothing is compared with them.
	Hdctl   string
	Version string

	// label returns the SELinux label of a file; tests replace it.
	label func(path string) (string, error)
}

// path is the path of a file of the system.
func (s System) path(name string) string {
	return filepath.Join(cmp.Or(s.Root, "/"), name)
}

// read reads a file, without white space around it.
func (s System) read(name string) (string, error) {
	data, err := os.ReadFile(s.path(name))
	if err != nil {
		return "", s.shorten(err)
	}
	return strings.TrimSpace(string(data)), nil
}

// number reads a file that has one number, or begins with one.
func (s System) number(name string) (int64, error) {
	text, err := s.read(name)
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(text, "\t")
	n, err := strconv.ParseInt(first, 10, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 1<<63 - 1, nil // file-max can be that of an unsigned number
	}
	if err != nil {
		return 0, fmt.Errorf("%s has %q", name, text)
	}
	return n, nil
}

// exists reports whether there is such a file.
func (s System) exists(name string) bool {
	_, err := os.Stat(s.path(name))
	return err == nil
}

// shorten takes the root out of the error of a file, which is not a matter of the
// operator.
func (s System) shorten(err error) error {
	e, ok := errors.AsType[*fs.PathError](err)
	if !ok || s.Root == "" {
		return err
	}
	return &fs.PathError{Op: e.Op, Path: strings.TrimPrefix(e.Path, filepath.Clean(s.Root)), Err: e.Err}
}

// proc is the path of a file of a process.
func proc(pid int, name string) string {
	return "/proc/" + strconv.Itoa(pid) + "/" + name
}

// good, warn and fail make findings.
func good(name, format string, args ...any) control.Check {
	return control.Check{Name: name, Result: control.CheckOK, Message: fmt.Sprintf(format, args...)}
}

func warn(name, hint, format string, args ...any) control.Check {
	return control.Check{Name: name, Result: control.CheckWarning, Message: fmt.Sprintf(format, args...), Hint: hint}
}

func fail(name, hint, format string, args ...any) control.Check {
	return control.Check{Name: name, Result: control.CheckFailed, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// unseen is the finding where the caller may not look, or cannot.
func unseen(name string, err error) control.Check {
	hint := ""
	if errors.Is(err, fs.ErrPermission) {
		hint = "ask as root, or as the user of the service"
	}
	return warn(name, hint, "not looked at: %v", err)
}

// several is a number of things.
func several(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.Itoa(n) + " " + thing + "s"
}
