package spawn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tick is the pace of looking for a new process, and of asking again when
	// tableflip is not ready. From fork to the end of exec it takes 1 to 10 ms.
	tick = time.Millisecond
	// collectAfter is when garbage is collected after a start.
	collectAfter = time.Second
	// outputGrace is for the output of what a dead process has left behind.
	outputGrace = time.Second
	// readyScans is how often it is looked for a process of which only is known
	// that it has lived.
	readyScans = 500
)

// attempt is one Start, and then the life of the process. All of it happens in
// the goroutine of run, so that Start can return when its context ends, and
// whatever is under way then is still brought to an end.
type attempt struct {
	t       *Tableflip
	target  target // after prepare
	out     *output
	reserve *reserve
	child   *child     // after launch
	result  chan error // of Upgrade

	started   chan error    // to Start, once: nil if the process lives, or has lived
	abandoned chan struct{} // closed when Start has not waited for that
	done      chan struct{} // closed when everything is over
}

func newAttempt(t *Tableflip) *attempt {
	return &attempt{
		t:         t,
		result:    make(chan error, 1),
		started:   make(chan error),
		abandoned: make(chan struct{}),
		done:      make(chan struct{}),
	}
}

// isAbandoned reports whether nobody wants the process any more.
func (a *attempt) isAbandoned() bool {
	select {
	case <-a.abandoned:
		return true
	default:
		return false
	}
}

// prepare does what can be done before the fork. If it fails nothing is left.
func (a *attempt) prepare(files []File, g target) (err error) {
	a.t.stdio.Lock()
	defer func() {
		if err != nil {
			a.t.stdio.Unlock()
		}
	}()
	if err := a.t.load(files); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			a.t.unload()
		}
	}()
	// One file of /proc at a time, the pidfd, and what unload needs.
	if a.reserve, err = newReserve(2 + unloadFDs + a.t.slots); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			a.reserve.release()
		}
	}()
	if err := g.open(firstFD + 1 + a.t.slots); err != nil {
		return err
	}
	a.out, err = newOutput(&a.t.stdio, &tail{report: a.t.opts.Output}, a.t.logger)
	if err != nil {
		g.close()
		return err
	}
	a.target = g
	g.swapIn(a.t.path)
	return nil
}

// run executes the attempt and stays with the process until that is gone.
func (a *attempt) run() {
	err := a.launch()
	a.target.swapOut(a.t.path)
	a.target.close()
	if closeErr := a.out.close(); closeErr != nil {
		// There is nowhere to print, but the process may live.
		a.t.logger.Error("restore stdout and stderr", "err", closeErr)
	}
	a.reserve.release()
	a.t.unload()

	if a.child == nil {
		a.out.wait(outputGrace)
		a.t.release(a)
		select {
		case a.started <- err:
		case <-a.abandoned:
		}
		runtime.GC()
		return
	}

	a.t.logger.Debug("process started", "pid", a.child.pid, "path", a.target.name)
	select {
	case a.started <- nil:
	case <-a.abandoned:
		if err := a.child.Kill(); err != nil {
			a.t.logger.Error("kill an unwanted process", "err", err)
		}
	}
	a.child.exit = a.reap(a.await())
	a.child.reaped()
	a.out.wait(outputGrace)
	a.t.logger.Debug("process exited", "pid", a.child.pid, "exit", a.child.exit.String())
	a.t.release(a)
	close(a.child.exited)
}

// await waits for the result of Upgrade. In passing it has the garbage collected
// that tableflip has made, and with it the duplicates that unload has replaced:
// not at once, when tableflip may not have returned from the fork, and the new
// process needs the processor, but soon.
func (a *attempt) await() error {
	timer := time.NewTimer(collectAfter)
	defer timer.Stop()
	select {
	case err := <-a.result:
		runtime.GC()
		return err
	case <-timer.C:
		runtime.GC()
		return <-a.result
	}
}

// launch has tableflip start the process, and sets child when there is one. It
// leaves the pipes in the place of stdout and stderr; the result of Upgrade is
// or will be in result.
func (a *attempt) launch() error {
	retry := time.NewTicker(tick)
	defer retry.Stop()
	for {
		find, err := newFinder(a.target.path, a.out)
		if err != nil {
			return err
		}
		if err := a.out.swap(); err != nil {
			return err
		}
		go func() { a.result <- a.t.upgrader.Upgrade() }()
		p, pidfd, err := a.search(find)
		switch {
		case err == nil:
			a.child = newChild(p.pid, pidfd, a.out.tail)
			return nil
		case !refused(err):
			return a.ended(err)
		}
		// It refuses for microseconds, and could only be asked again.
		if err := a.out.restore(); err != nil {
			return err
		}
		select {
		case <-retry.C:
		case <-a.abandoned:
			return context.Canceled
		}
	}
}

// search waits until the process is found, or Upgrade has returned, whose error
// it returns then.
func (a *attempt) search(find *finder) (process, int, error) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	result, ready := a.result, 0
	for ready <= readyScans {
		select {
		case err := <-result:
			if err != nil {
				return process{}, -1, err
			}
			// The process lives, and was faster than this. It is found if it
			// does not end just now, of which nobody would tell.
			a.result <- err // for reap
			result, ready = nil, 1
		case <-ticker.C:
		}
		if result == nil {
			ready++
		}
		p, pidfd, err := a.look(find)
		for outOfFDs(err) && a.reserve.release() {
			p, pidfd, err = a.look(find)
		}
		if err == nil && pidfd >= 0 {
			return p, pidfd, nil
		}
		if err != nil {
			a.t.logger.Debug("looking for a started process", "err", err)
		}
	}
	return process{}, -1, errReady
}

// look looks once; the pidfd is negative if there is nothing to be seen.
func (a *attempt) look(find *finder) (process, int, error) {
	p, err := find.scan()
	if err != nil || p.pid == 0 {
		return p, -1, err
	}
	pidfd, err := p.pidfd()
	if errors.Is(err, unix.ESRCH) {
		return p, -1, nil // and so Upgrade is about to return
	}
	return p, pidfd, err
}

// errReady stands for the nil that Upgrade returns when a child was ready in
// tableflip's sense.
var errReady = errors.New("it has used tableflip's own protocol: not a program of this library")

// ended handles that Upgrade has returned err before the process was found.
func (a *attempt) ended(err error) error {
	text := err.Error()
	if pid, _, ok := parseExited(err); ok {
		a.child = newChild(pid, -1, a.out.tail)
		a.result <- err // for run
		return nil
	}
	if errors.Is(err, errReady) {
		a.t.spend()
		return err
	}
	if strings.HasPrefix(text, startFailed) {
		return startError(text, a.target.path, a.t.wd)
	}
	return withErrno(text)
}

// reap makes an Exit of the result of Upgrade.
func (a *attempt) reap(err error) Exit {
	if err == nil {
		// tableflip reaps it, but tells nobody any more.
		a.t.spend()
		if err := a.child.Kill(); err != nil {
			a.t.logger.Error("kill a process that is no successor", "err", err)
		}
		a.child.awaitDeath()
		return Exit{Code: -1, Err: errReady}
	}
	if _, exit, ok := parseExited(err); ok {
		return exit
	}
	return Exit{Code: -1, Err: withErrno(err.Error())}
}

// load registers files with tableflip, and the real stdout and stderr, and the
// manifest. The caller has locked stdio.
func (t *Tableflip) load(files []File) (err error) {
	m, err := newManifest(files)
	if err != nil {
		return err
	}
	m.Path = t.path
	defer func() {
		if err != nil {
			t.unload()
		}
	}()
	memfd, err := m.memfd()
	if err != nil {
		return err
	}
	defer unix.Close(memfd)
	if err := t.add(manifestKey, memfd); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	t.mu.Lock()
	stdout, stderr := t.in.stdout, t.in.stderr
	t.mu.Unlock()
	// In a process that was not ready yet, 1 and 2 are pipes to its parent, whose
	// end must not concern its successor.
	if stdout < 0 {
		stdout = 1
	}
	if stderr < 0 {
		stderr = 2
	}
	for slot, fd := range []int{slotStdout: stdout, slotStderr: stderr} {
		if err := t.add(slotKey(slot), fd); err != nil {
			return err
		}
	}
	for i, f := range files {
		slot := firstSlot + i
		t.slots = max(t.slots, slot+1)
		if err := t.add(slotKey(slot), f.FD); err != nil {
			return fmt.Errorf("file %q: %w", f.Name, err)
		}
	}
	return nil
}

// add registers a duplicate of fd under key.
func (t *Tableflip) add(key string, fd int) error {
	n, err := dup(fd)
	if err != nil {
		return err
	}
	// tableflip goes by SyscallConn: it makes a duplicate once more, and
	// leaves O_NONBLOCK as it is, as does os.NewFile.
	f := os.NewFile(uintptr(n), key)
	defer f.Close()
	if err := t.upgrader.AddFile(key, f); err != nil {
		return fmt.Errorf("duplicate file descriptor %d: %w", fd, withErrno(err.Error()))
	}
	return nil
}

// unloadFDs is how many descriptors unload needs, and one more for each slot:
// /dev/null, a duplicate on its way, and the manifest's.
const unloadFDs = 3

// unload replaces everything that is registered with tableflip by /dev/null:
// there is no way to remove it, and it would hold on to the service's sockets,
// in the netpoller, where each new connection of another generation wakes it.
// What was replaced is closed by the garbage collector. If it fails, for want of
// descriptors, the next Start makes up for it.
func (t *Tableflip) unload() {
	null, err := openNull()
	if err == nil {
		defer unix.Close(null)
		err = t.add(manifestKey, null)
	}
	for slot := 0; slot < t.slots && err == nil; slot++ {
		err = t.add(slotKey(slot), null)
	}
	if err != nil {
		t.logger.Debug("keeping duplicates of passed files", slog.Any("err", err))
	}
}
