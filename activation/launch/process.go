package launch

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Process is a running service: the process that [Start] has made, and all in its
// group. Its methods may be called concurrently.
type Process struct {
	group      int // of processes; the PID of the first one
	invocation string
	tell       func(Event)
	notify     *notifySocket
	done       chan struct{} // closed when Wait may return
	readers    sync.WaitGroup

	telling sync.Mutex // one event after the other

	mu     sync.Mutex
	main   int
	dead   bool // all have ended: the number of the group may be somebody else's
	exit   Exit // of the main process; not Known: nobody has seen it
	status string
}

// Start starts a service. It returns when the program is executed, which says
// nothing about its being ready; an error wraps the errno of execve(2), such as
// ENOENT, and then nothing is left.
//
// The caller becomes the subreaper of its descendants (Linux 3.4). It calls
// [Process.Wait], always.
func Start(c Command) (*Process, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become a subreaper: %w", err)
	}
	notify, err := listenNotify()
	if err != nil {
		return nil, err
	}
	p := &Process{
		invocation: newID(), tell: c.Notify, notify: notify, done: make(chan struct{}),
	}
	if p.tell == nil {
		p.tell = func(Event) {}
	}
	notify.hear = p.hear
	pid, err := startShim(&c, c.environment(notify.address, p.invocation))
	if err != nil {
		notify.close()
		return nil, err
	}
	p.group, p.main = pid, pid
	p.event(Event{Kind: Started, PID: pid})
	p.readers.Go(notify.read)
	go p.reap()
	return p, nil
}

// MainPID is the PID of the main process. It may have ended.
func (p *Process) MainPID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.main
}

// Invocation is the INVOCATION_ID of the service.
func (p *Process) Invocation() string { return p.invocation }

// Signal sends a signal to all processes of the service, as KillMode=control-group
// does. Of a service that has ended it is [os.ErrProcessDone].
func (p *Process) Signal(s unix.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return os.ErrProcessDone
	}
	// As long as one of them is not reaped, and nobody is without this lock, the
	// group is theirs.
	if err := unix.Kill(-p.group, s); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s to process group %d: %w", signalName(s), p.group, err)
	}
	return nil
}

// Done is closed when all processes of the service have ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits until all processes of the service have ended, and tells how the main
// one did. Where that was not this process's to know, as after the death of a
// generation whose parent was still there, [Exit.Known] is false.
func (p *Process) Wait() Exit {
	<-p.done
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exit
}

// reap waits for the processes of the group, until none is left.
func (p *Process) reap() {
	defer close(p.done)
	for p.reapOne() {
	}
	p.notify.close()
	p.readers.Wait()
}

// reapOne waits for the next one that ends. The group has no more children of ours
// only if it has no more members: orphans become ours before their parent can be
// reaped.
func (p *Process) reapOne() bool {
	// Wait first, and reap under the lock: see Signal.
	err := unix.Waitid(unix.P_PGID, p.group, nil, unix.WEXITED|unix.WNOWAIT, nil)
	if errors.Is(err, unix.EINTR) {
		return true
	}
	// What it has said before its end counts: it may have named its successor.
	p.notify.flush()
	p.mu.Lock()
	if err != nil { // ECHILD
		p.dead = true
		if p.exit.PID == 0 {
			p.exit = Exit{PID: p.main}
		}
		p.mu.Unlock()
		return false
	}
	var status unix.WaitStatus
	pid, err := unix.Wait4(-p.group, &status, unix.WNOHANG, nil)
	if err != nil || pid == 0 {
		p.mu.Unlock()
		return true
	}
	exit := exitOf(pid, status)
	isMain := pid == p.main
	if isMain {
		p.exit = exit
	}
	p.mu.Unlock()
	p.event(Event{Kind: Ended, PID: pid, Exit: exit})
	if isMain {
		_ = p.Signal(unix.SIGTERM) // to those who are left
	}
	return true
}

func exitOf(pid int, s unix.WaitStatus) Exit {
	e := Exit{PID: pid, Known: true}
	if s.Signaled() {
		e.Signal, e.Core = s.Signal(), s.CoreDump()
	} else {
		e.Status = s.ExitStatus()
	}
	return e
}

// event tells of one thing.
func (p *Process) event(e Event) {
	p.telling.Lock()
	defer p.telling.Unlock()
	p.tell(e)
}
