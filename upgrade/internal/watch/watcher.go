package watch

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/hdctl/handoff/upgrade/internal/pulse"
)

// Target is what is watched.
type Target struct {
	// PID is the process. It must not have been waited for when Start is called,
	// or else it could be another one by then; later it may.
	PID int

	// Page is where the process counts what it accepts. Without one, nobody is
	// found to be stalled.
	Page *pulse.Page

	// Sockets are the listening sockets that the process shall accept from.
	Sockets []Socket
}

// Socket is a listening socket of a target.
type Socket struct {
	// Slot is its number in the page. One that the page does not have is not
	// watched.
	Slot int

	// FD is a descriptor of the socket in this process, which must be open until
	// Stop has returned. It is only polled, and may be in blocking mode or not. If
	// it is negative, only the queue of the socket is watched, see [Limits].
	FD int

	// Name is for findings.
	Name string
}

// Limits says how long a target may do nothing, in observed time. What has a
// limit of 0 is not looked for, and forgotten if it was found before.
type Limits struct {
	Stopped time.Duration
	Stalled time.Duration

	// Queue: only connections that wait in the target's queue count
	// ([pulse.Slot.SetWaiting]), and not those on the socket: for a target that
	// is handed its connections, and leaves the socket to another process.
	Queue bool
}

// Kind says what was found.
type Kind int

const (
	// Exiting: the process is dying, or dead. It is reported once, as soon as it
	// is seen, and is the last finding.
	Exiting Kind = iota + 1
	// Stopped: the process has been stopped for [Limits.Stopped].
	Stopped
	// Stalled: clients wait on a socket, and the process has accepted none of
	// them for [Limits.Stalled].
	Stalled
	// Recovered: what was Stopped or Stalled goes on again.
	Recovered
)

// String returns the kind as a word for messages.
func (k Kind) String() string {
	switch k {
	case Exiting:
		return "exiting"
	case Stopped:
		return "stopped"
	case Stalled:
		return "stalled"
	case Recovered:
		return "recovered"
	default:
		return fmt.Sprintf("kind %d", int(k))
	}
}

// Finding is something that was found. What lasts is found once, and again only
// after a Recovered.
type Finding struct {
	Kind   Kind
	Socket string        // the name of the socket; empty if it is about the process
	For    time.Duration // how long it has lasted, in observed time; 0 for Exiting
	Detail string        // for people
}

// Watcher watches one process.
type Watcher struct {
	report  func(Finding)
	changed chan struct{} // has room for one
	done    chan struct{} // closed when run has ended

	mu       sync.Mutex
	limits   Limits
	interval time.Duration
	stopped  bool
}

// minInterval is a guard: a ticker without pace panics.
const minInterval = time.Millisecond

// Start begins to watch t, and looks at it each interval, which is at least a
// millisecond. That something exceeds its limit is seen up to two intervals late, and
// later on a machine that lets this process wait for the CPU.
//
// What it finds it reports, one call at a time, from a goroutine of its own; the
// next look waits for that. The caller must call Stop.
func Start(t Target, l Limits, interval time.Duration, report func(Finding)) *Watcher {
	w := &Watcher{
		report:   report,
		changed:  make(chan struct{}, 1),
		done:     make(chan struct{}),
		limits:   l,
		interval: max(interval, minInterval),
	}
	// Here, as long as the caller knows whose number it is.
	s := newSampler(t)
	go w.run(s)
	return w
}

// Set changes the limits and the pace, from now on. It may be called from report,
// and does nothing after Stop.
func (w *Watcher) Set(l Limits, interval time.Duration) {
	w.mu.Lock()
	w.limits, w.interval = l, max(interval, minInterval)
	w.mu.Unlock()
	w.wake()
}

// Stop ends the watch. When it has returned, report is not called any more, and
// the sockets are the caller's again.
//
// It waits for a call of report that is under way, and so must not be called with
// a lock held that report needs. From within a report it can be called: it does
// not wait then. Further calls only wait.
func (w *Watcher) Stop() {
	w.mu.Lock()
	w.stopped = true
	w.mu.Unlock()
	w.wake()
	if !withinReport() {
		<-w.done
	}
}

func (w *Watcher) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// settings returns what Set and Stop have last said.
func (w *Watcher) settings() (l Limits, interval time.Duration, stopped bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.limits, w.interval, w.stopped
}

func (w *Watcher) run(s *sampler) {
	defer close(w.done)
	defer s.close()
	limits, interval, stopped := w.settings()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	e := newEpisodes(len(s.sockets))
	for last := time.Now(); !stopped; {
		now := time.Now()
		r := s.read(limits)
		r.took = now.Sub(last)
		last = now
		for _, f := range e.step(r, limits, interval) {
			s.complete(&f)
			if !w.deliver(f.Finding) {
				return
			}
		}
		if r.process == dying {
			return
		}
		select {
		case <-ticker.C:
		case <-w.changed:
		}
		before := interval
		if limits, interval, stopped = w.settings(); interval != before {
			ticker.Reset(interval)
		}
	}
}

// deliver reports f, unless Stop was called, which is what it returns.
//
//go:noinline
func (w *Watcher) deliver(f Finding) bool {
	if _, _, stopped := w.settings(); stopped {
		return false
	}
	w.report(f)
	return true
}

// deliverName is deliver as the runtime calls it.
const deliverName = "github.com/hdctl/handoff/upgrade/internal/watch.(*Watcher).deliver"

// withinReport tells whether the caller of Stop was called by report, and would
// wait for itself. Nothing but the stack knows that: another goroutine that calls
// Stop at the same moment has to wait.
func withinReport() bool {
	var pcs [32]uintptr
	for skip := 2; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs[:])
		if n == 0 {
			return false
		}
		for frames := runtime.CallersFrames(pcs[:n]); ; {
			frame, more := frames.Next()
			if frame.Function == deliverName {
				return true
			}
			if !more {
				break
			}
		}
	}
}
