package testbed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// commandTimeout limits commands that have no context: much more than any of
// them needs, and less than "go test" waits.
const commandTimeout = 3 * time.Minute

// Command returns a command that runs inside: in all namespaces of PID 1, as
// root, in the directory /, with no more than PATH, LANG and TERM in its
// environment. There is no shell; args[0] is looked up inside. When ctx is done
// it is killed, and so is what it has started, as far as it is in the same
// process group.
//
// The process that it starts is nsenter(1), the parent of the real one: for
// signals see [Testbed.Kill]. Its exit code is passed on.
func (tb *Testbed) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter",
		append([]string{"--target", strconv.Itoa(tb.init.process.Pid), "--all", "--"}, args...)...)
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		// Where it came from is a cgroup that does not exist inside.
		UseCgroupFD: true,
		CgroupFD:    int(tb.home.commands.Fd()),
		Setpgid:     true,
	}
	// Killed alone, nsenter would leave its child behind. A parent-death signal
	// would be late for a child that has just been forked; a group is killed as
	// a whole.
	cmd.Cancel = func() error {
		return processDone(unix.Kill(-cmd.Process.Pid, unix.SIGKILL))
	}
	// Whom it leaves behind may hold its output open: wait, but not for ever.
	cmd.WaitDelay = 5 * time.Second
	select {
	case <-tb.init.exited:
		// Its number may be another process's by now.
		cmd.Err = fmt.Errorf("testbed %s: %w", tb.name, os.ErrProcessDone)
	default:
	}
	return cmd
}

// Run runs a command inside to its end. See [Testbed.Command].
func (tb *Testbed) Run(ctx context.Context, args ...string) Result {
	var stdout, stderr bytes.Buffer
	cmd := tb.Command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	result := Result{Args: args, Stdout: stdout.String(), Stderr: stderr.String(), ExitCode: -1}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		result.err = context.Cause(ctx)
	case err == nil:
		result.ExitCode = 0
	case errors.As(err, &exit):
		result.ExitCode = exit.ExitCode()
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			result.ExitCode = 128 + int(status.Signal())
		}
	default:
		result.err = err
	}
	return result
}

// MustRun is [Testbed.Run] for commands that must succeed: otherwise the test
// fails and ends.
func (tb *Testbed) MustRun(t testing.TB, args ...string) Result {
	t.Helper()
	return must(t, tb.run(args...))
}

// Systemctl runs systemctl(1) inside.
func (tb *Testbed) Systemctl(args ...string) Result {
	return tb.run(append([]string{"systemctl"}, args...)...)
}

// MustSystemctl is [Testbed.Systemctl] for commands that must succeed:
// otherwise the test fails and ends.
func (tb *Testbed) MustSystemctl(t testing.TB, args ...string) Result {
	t.Helper()
	return must(t, tb.Systemctl(args...))
}

func (tb *Testbed) run(args ...string) Result {
	ctx, cancel := context.WithTimeoutCause(context.Background(), commandTimeout,
		fmt.Errorf("no end after %v", commandTimeout))
	defer cancel()
	return tb.Run(ctx, args...)
}

func must(t testing.TB, r Result) Result {
	t.Helper()
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return r
}

// Result is how a command ended.
type Result struct {
	Args           []string
	Stdout, Stderr string
	// ExitCode is 128 and the signal's number for a command that was killed, as
	// in a shell, and -1 for one that could not be run or was cut short.
	ExitCode int

	err error // why ExitCode is -1
}

// Err returns nil for an exit code of 0, otherwise an error with the command,
// how it ended, and what it printed.
func (r Result) Err() error {
	if r.ExitCode == 0 {
		return nil
	}
	err := r.err
	if err == nil {
		err = fmt.Errorf("exit code %d", r.ExitCode)
	}
	return fmt.Errorf("%s: %w\n%s%s", strings.Join(r.Args, " "), err, r.Stdout, r.Stderr)
}

// readVersion asks systemctl for the version of systemd.
func (tb *Testbed) readVersion(ctx context.Context) (int, error) {
	r := tb.Run(ctx, "systemctl", "--version")
	if err := r.Err(); err != nil {
		return 0, err
	}
	var version int
	if _, err := fmt.Sscanf(r.Stdout, "systemd %d", &version); err != nil {
		return 0, fmt.Errorf("parse systemctl --version %q: %w", r.Stdout, err)
	}
	return version, nil
}
