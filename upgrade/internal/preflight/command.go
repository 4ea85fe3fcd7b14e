package preflight

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
)

const (
	// binaryMark in Config.Command is the path of the program.
	binaryMark = "%b"
	// maxLines and maxBytes of the output are in the message, the last ones.
	maxLines = 50
	maxBytes = 16 << 10
	// pipeGrace is for output of a process that has left the group of the command
	// and lives on.
	pipeGrace = 200 * time.Millisecond
)

// command runs the service's own check. What it prints follows the sentence in the
// message, on lines of its own.
func command(ctx context.Context, c Config) control.Check {
	binary := c.Path
	var files []*os.File
	if c.File != nil {
		// The only descriptor besides stdio, and so number 3. It stays open in
		// what the command starts.
		binary, files = "/proc/self/fd/3", []*os.File{c.File}
	}
	args := slices.Clone(c.Command)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], binaryMark, binary)
	}
	name := strings.Join(args, " ")

	out := new(tail)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = c.Env
	cmd.ExtraFiles = files
	cmd.Stdout, cmd.Stderr = out, out // stdin is /dev/null
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = pipeGrace
	if ctx.Err() != nil {
		return fail(NameCommand, fmt.Sprintf("%s was not run: %v", name, ctx.Err()), "")
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return fail(NameCommand, fmt.Sprintf("%s cannot be run: %v", name, err), "it is the check command of this service")
	}
	endGroup(ctx, cmd.Process.Pid)
	err := cmd.Wait()
	took := time.Since(began).Round(time.Millisecond)
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // exit status 0 both times
		return pass(NameCommand, fmt.Sprintf("%s is content after %v%s", name, took, out))
	case ctx.Err() != nil:
		return fail(NameCommand, fmt.Sprintf("%s was killed after %v: %v%s", name, took, ctx.Err(), out), "")
	}
	return fail(NameCommand, fmt.Sprintf("%s has refused after %v: %v%s", name, took, err, out),
		"run it by hand, as the user of the service")
}

// endGroup waits for the end of pid, or of ctx, and then kills all that is left of
// its process group. It leaves pid a zombie: only as long as there is one does the
// number belong to this group for certain.
func endGroup(ctx context.Context, pid int) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if err != unix.EINTR {
				return
			}
		}
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	_ = unix.Kill(-pid, unix.SIGKILL)
	<-ended
}

// tail keeps the end of what is written to it. It is for one writer at a time.
type tail struct {
	text []byte
	cut  bool // something is missing at the beginning
}

func (t *tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p...)
	if len(t.text) > 2*maxBytes { // not with each write
		t.trim()
	}
	return len(p), nil
}

// trim drops what is more than maxBytes.
func (t *tail) trim() {
	if drop := len(t.text) - maxBytes; drop > 0 {
		t.text = slices.Delete(t.text, 0, drop)
		t.cut = true
	}
}

// String returns the last lines, each after a newline, or "".
func (t *tail) String() string {
	t.trim()
	text := bytes.ToValidUTF8(bytes.TrimRight(t.text, "\n"), []byte("?"))
	lines := bytes.Split(text, []byte("\n"))
	if t.cut && len(lines) > 1 {
		lines = lines[1:] // the rest of one
	}
	lines = lines[max(0, len(lines)-maxLines):]
	if len(lines) == 1 && len(lines[0]) == 0 {
		return ""
	}
	return "\n" + string(bytes.Join(lines, []byte("\n")))
}
