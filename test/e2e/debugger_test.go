package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// attach holds all threads of a process inside, as a debugger does at a breakpoint
// (see ptrace(2)), until detach is called.
func (s *site) attach(pid int) (detach func()) {
	s.t.Helper()
	host, err := s.HostPID(pid)
	require.NoError(s.t, err)
	leave, left := make(chan struct{}), make(chan error, 1)
	attached := make(chan error, 1)
	go func() {
		// A tracer is a thread. This one ends with its goroutine, and if it should
		// not have let go of somebody, does so then.
		runtime.LockOSThread()
		threads, err := holdThreads(host)
		attached <- err
		<-leave
		for _, thread := range threads {
			if e := unix.PtraceDetach(thread); e != nil && e != unix.ESRCH && err == nil {
				err = fmt.Errorf("detach from thread %d: %w", thread, e)
			}
		}
		left <- err
	}()
	detach = func() {
		s.t.Helper()
		close(leave)
		require.NoError(s.t, <-left)
	}
	if err := <-attached; err != nil {
		close(leave)
		require.NoError(s.t, err)
	}
	return detach
}

// holdThreads stops all threads of a process.
func holdThreads(pid int) (threads []int, err error) {
	held := make(map[int]bool)
	for {
		dirs, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
		if err != nil {
			return threads, err
		}
		before := len(held)
		for _, dir := range dirs {
			thread, err := strconv.Atoi(filepath.Base(dir))
			if err != nil || held[thread] {
				continue
			}
			held[thread] = true
			switch err := holdThread(thread); err {
			case nil:
				threads = append(threads, thread)
			case unix.ESRCH: // it has ended
			default:
				return threads, fmt.Errorf("attach to thread %d: %w", thread, err)
			}
		}
		if len(held) == before { // nobody is left who could make another one
			if len(held) == 0 {
				return nil, os.ErrProcessDone
			}
			return threads, nil
		}
	}
}

// holdThread stops a thread.
func holdThread(thread int) error {
	if err := unix.PtraceSeize(thread); err != nil {
		return err
	}
	if err := unix.PtraceInterrupt(thread); err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		if _, err := unix.Wait4(thread, &status, unix.WALL, nil); err != nil {
			return err
		}
		switch {
		case status.Exited(), status.Signaled():
			return unix.ESRCH
		case status.TrapCause() == unix.PTRACE_EVENT_STOP:
			return nil
		}
		// A signal was on its way, and came first.
		if err := unix.PtraceCont(thread, int(status.StopSignal())); err != nil {
			return err
		}
	}
}
