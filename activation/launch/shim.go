package launch

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	firstFD   = 3   // SD_LISTEN_FDS_START
	maxReport = 512 // bytes of what a shim says about its failure
)

// ErrNotStarted is what [Exec] returns in a process that [Start] has not started.
var ErrNotStarted = errors.New("launch: not started by launch.Start")

// Exec is the second half of [Start], in the process of the shim: it sets the
// variables that have the PID in them, and replaces this process by the program.
// args are the arguments that [Command.Shim] was started with, without its own. It
// returns only if that fails; Start then has the reason. To call it other than for
// Start makes no sense.
//
// It should be called early: what the program has done before stays done, as far as
// execve(2) keeps it (working directory, umask, ignored signals).
func Exec(args []string) error {
	// COUNT PATH ARGV0 ARG...
	if len(args) < 3 {
		return ErrNotStarted
	}
	count, err := strconv.Atoi(args[0])
	if err != nil || count < 0 {
		return ErrNotStarted
	}
	// Behind the sockets is a pipe. The execve closes it, and that is the good news.
	report := firstFD + count
	var st unix.Stat_t
	if err := unix.Fstat(report, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return ErrNotStarted
	}
	unix.CloseOnExec(report)
	// The program gets nothing that the caller of Start has inherited itself, as of a
	// shell or make. Before Linux 5.11 it does.
	_ = unix.CloseRange(uint(report), math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	err = unix.Exec(args[1], args[2:], shimEnvironment(os.Environ(), count, os.Getpid()))
	text := []byte(strconv.Itoa(int(errnoOf(err))))
	_, _ = unix.Write(report, text) // if nobody reads it, nobody wants to know
	return fmt.Errorf("execute %s: %w", args[1], err)
}

// shimEnvironment adds what has the PID in it. LISTEN_PID is left out where there
// are no sockets, as systemd does.
func shimEnvironment(env []string, sockets, pid int) []string {
	self := strconv.Itoa(pid)
	env = withVariable(env, "SYSTEMD_EXEC_PID", self)
	if sockets > 0 {
		env = withVariable(env, "LISTEN_PID", self)
	}
	return env
}

// withVariable returns env with one variable set, and not twice.
func withVariable(env []string, name, value string) []string {
	return append(without(env, name), name+"="+value)
}

// without returns env without some variables.
func without(env []string, names ...string) []string {
	var left []string
	for _, kv := range env {
		drop := false
		for _, name := range names {
			drop = drop || strings.HasPrefix(kv, name+"=")
		}
		if !drop {
			left = append(left, kv)
		}
	}
	return left
}

func errnoOf(err error) syscall.Errno {
	n, _ := errors.AsType[syscall.Errno](err)
	return cmp.Or(n, unix.EINVAL)
}

// startShim starts the program by its shim, and returns the PID that both have. The
// process has a group of its own.
func startShim(c *Command, env []string) (int, error) {
	shim, err := exec.LookPath(c.Shim[0])
	if err != nil {
		return 0, fmt.Errorf("find the shim: %w", err)
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &fs.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	defer unix.Close(null)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return 0, os.NewSyscallError("pipe2", err)
	}
	defer unix.Close(pipe[0])

	files := []uintptr{uintptr(null), uintptr(unix.Stdout), uintptr(unix.Stderr)}
	for _, s := range c.Sockets {
		files = append(files, uintptr(s.fd))
	}
	argv := append(slices.Clone(c.Shim), strconv.Itoa(len(c.Sockets)), c.Path, cmp.Or(c.Argv0, c.Path))
	pid, err := syscall.ForkExec(shim, append(argv, c.Args...), &syscall.ProcAttr{
		Dir: c.Dir, Env: env, Files: append(files, uintptr(pipe[1])),
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	_ = unix.Close(pipe[1])
	if err != nil {
		return 0, fmt.Errorf("start the shim %s: %w", shim, err)
	}
	report, err := readAll(pipe[0])
	if err == nil && report == "" {
		return pid, nil
	}
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL) // what is no shim need not end
	}
	waitFor(pid)
	if n, convErr := strconv.Atoi(report); convErr == nil {
		err = syscall.Errno(n)
	}
	return 0, fmt.Errorf("execute %s: %w", c.Path, err)
}

// readAll reads a short text until the other end of the pipe is closed.
func readAll(fd int) (string, error) {
	var text []byte
	buf := make([]byte, maxReport)
	for len(text) < maxReport {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return "", os.NewSyscallError("read", err)
		case n == 0:
			return string(text), nil
		}
		text = append(text, buf[:n]...)
	}
	return "", errors.New("the shim is not one")
}

// waitFor reaps a child that ends at once.
func waitFor(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
