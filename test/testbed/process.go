package testbed

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// HostPID returns the host's PID for a PID of the inside: what the test process
// needs for /proc/PID. The error wraps [os.ErrNotExist] when there is no such
// process. There may be none any more a moment later, and another one with its
// number much later; [Testbed.Kill] is not mistaken then.
func (tb *Testbed) HostPID(pid int) (int, error) {
	// There is no system call for that; every process of the machine is asked.
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range dirs {
		host, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if inside, ok := tb.insidePID(host); ok && inside == pid {
			return host, nil
		}
	}
	return 0, fmt.Errorf("process %d of testbed %s: %w", pid, tb.name, os.ErrNotExist)
}

// Kill sends a signal to a process of the inside. The error wraps
// [os.ErrNotExist] or [os.ErrProcessDone] when there is no such process.
func (tb *Testbed) Kill(pid int, signal syscall.Signal) error {
	host, err := tb.HostPID(pid)
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(host, 0)
	if err != nil {
		return fmt.Errorf("kill process %d of testbed %s: %w", pid, tb.name, processDone(err))
	}
	defer func() { _ = unix.Close(pidfd) }()
	// Now that it cannot be replaced by another one: is it still the same?
	if inside, ok := tb.insidePID(host); !ok || inside != pid {
		return fmt.Errorf("kill process %d of testbed %s: %w", pid, tb.name, os.ErrProcessDone)
	}
	if err := unix.PidfdSendSignal(pidfd, signal, nil, 0); err != nil {
		return fmt.Errorf("kill process %d of testbed %s: %w", pid, tb.name, processDone(err))
	}
	return nil
}

func processDone(err error) error {
	if err == unix.ESRCH {
		return os.ErrProcessDone
	}
	return err
}

// insidePID returns the PID of a process in the testbed's PID namespace, and
// false if it is not in it (or in one below it).
func (tb *Testbed) insidePID(host int) (int, bool) {
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", host))
	if err != nil || namespace != tb.pidns {
		return 0, false
	}
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", host))
	if err != nil {
		return 0, false
	}
	defer func() { _ = status.Close() }()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		// "NSpid:	4711	15", from the reader's namespace to the innermost.
		if list, ok := strings.CutPrefix(lines.Text(), "NSpid:"); ok {
			pids := strings.Fields(list)
			pid, err := strconv.Atoi(pids[len(pids)-1])
			return pid, err == nil
		}
	}
	return 0, false
}
