package spawn

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// child implements Child.
type child struct {
	pid    int
	tail   *tail
	exited chan struct{}
	exit   Exit // before exited is closed: not to be read

	mu    sync.Mutex
	pidfd int // -1 when the process is gone
}

func newChild(pid, pidfd int, t *tail) *child {
	return &child{pid: pid, pidfd: pidfd, tail: t, exited: make(chan struct{})}
}

func (c *child) PID() int                { return c.pid }
func (c *child) Exited() <-chan struct{} { return c.exited }
func (c *child) Exit() Exit              { return c.exit }
func (c *child) Output() []string        { return c.tail.last() }

func (c *child) Kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pidfd < 0 {
		return nil
	}
	err := unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", c.pid, os.NewSyscallError("pidfd_send_signal", err))
	}
	return nil
}

// awaitDeath blocks until the process is dead. It leaves the pidfd out of the
// netpoller since this is hardly ever needed.
func (c *child) awaitDeath() {
	fds := []unix.PollFd{{Fd: int32(c.pidfd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			return
		}
	}
}

// reaped closes the pidfd.
func (c *child) reaped() {
	c.mu.Lock()
	defer c.mu.Unlock()
	closeAll(c.pidfd)
	c.pidfd = -1
}

// Texts of tableflip v1.2.3.
const (
	refusedNotReady = "process is not ready yet" // Upgrade too soon after Ready
	refusedParent   = "parent hasn't exited"     // Upgrade too soon after New, see inherit
	startFailed     = "can't start child: "
)

// refused reports whether Upgrade has done nothing and is to be called again.
func refused(err error) bool {
	return err != nil && (err.Error() == refusedNotReady || err.Error() == refusedParent)
}

// childExited matches the end of a child that was not ready, which ours never
// are: with "exited" alone the status was 0.
var childExited = regexp.MustCompile(`^child pid=(\d+) exited(?:: (.*))?$`)

// parseExited takes apart the error that Upgrade returns when the child is gone.
func parseExited(err error) (pid int, exit Exit, ok bool) {
	m := childExited.FindStringSubmatch(err.Error())
	if m == nil {
		return 0, Exit{}, false
	}
	pid, convErr := strconv.Atoi(m[1])
	if convErr != nil {
		return 0, Exit{}, false
	}
	return pid, parseExit(m[2]), true
}

// parseExit parses what os.ProcessState.String has made.
func parseExit(text string) Exit {
	if text == "" {
		return Exit{}
	}
	if s, ok := strings.CutPrefix(text, "exit status "); ok {
		if code, err := strconv.Atoi(s); err == nil {
			return Exit{Code: code}
		}
	}
	if s, ok := strings.CutPrefix(text, "signal: "); ok {
		s = strings.TrimSuffix(s, " (core dumped)")
		for sig := syscall.Signal(1); sig <= 64; sig++ {
			if sig.String() == s {
				return Exit{Code: -1, Signal: sig}
			}
		}
	}
	return Exit{Code: -1, Err: fmt.Errorf("unknown exit status: %w", withErrno(text))}
}
