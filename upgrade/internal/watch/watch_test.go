package watch_test

import (
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
	"github.com/hdctl/handoff/upgrade/internal/watch"
)

// limit is long enough for a service that is well, on a machine that is not.
const limit = 100 * time.Millisecond

func TestStopped(t *testing.T) {
	leak.Check(t)
	s := startService(t)
	f := observe(t, s.target(), watch.Limits{Stopped: limit, Stalled: limit})
	for range 2 {
		s.kill(unix.SIGSTOP)
		s.dial() // what waits meanwhile is no second finding
		x := f.next()
		assert.Equal(t, watch.Stopped, x.Kind)
		assert.Empty(t, x.Socket)
		assert.GreaterOrEqual(t, x.For, limit)
		f.none(limit)

		s.kill(unix.SIGCONT)
		x = f.next()
		assert.Equal(t, watch.Recovered, x.Kind)
		assert.Empty(t, x.Socket)
		assert.Greater(t, x.For, limit)
		s.tell("hello")
	}
}

func TestStalled(t *testing.T) {
	leak.Check(t)
	s := startService(t)
	f := observe(t, s.target(), watch.Limits{Stopped: limit, Stalled: limit})
	s.dial()
	s.awaitAccepts(1)
	s.tell("hang")
	f.none(limit) // nobody waits
	for i := range uint64(2) {
		s.tell("busy 1")
		s.dial()
		s.dial()
		s.tell("busy 0")
		x := f.next()
		assert.Equal(t, watch.Stalled, x.Kind)
		assert.Equal(t, "http", x.Socket)
		assert.GreaterOrEqual(t, x.For, limit)
		assert.Contains(t, x.Detail, "2 in the backlog")
		assert.Contains(t, x.Detail, "the process ")
		f.none(limit) // once

		s.tell("accept")
		x = f.next()
		assert.Equal(t, watch.Recovered, x.Kind)
		assert.Equal(t, "http", x.Socket)
		assert.Greater(t, x.For, limit)
		s.awaitAccepts(3 + 2*i)
		s.tell("hang")
	}
}

func TestBusyIsNotStalled(t *testing.T) {
	leak.Check(t)
	s := startService(t)
	f := observe(t, s.target(), watch.Limits{Stopped: limit, Stalled: limit})
	s.tell("busy 1")
	s.tell("hang")
	s.dial()
	s.tell("waiting 3")
	f.none(limit)
	s.tell("busy 0")
	assert.Equal(t, watch.Stalled, f.next().Kind)
}

func TestQueue(t *testing.T) {
	leak.Check(t)
	s := startService(t)
	s.tell("hang")
	s.dial() // for another generation, if only the queue counts
	f := observe(t, s.target(), watch.Limits{Stalled: limit, Queue: true})
	f.none(limit)

	s.tell("waiting 7")
	x := f.next()
	assert.Equal(t, watch.Stalled, x.Kind)
	assert.Equal(t, "http", x.Socket)
	assert.Contains(t, x.Detail, "7 in the queue")
	s.tell("accepted")
	s.tell("waiting 0")
	assert.Equal(t, watch.Recovered, f.next().Kind)
	f.none(limit)

	f.w.Set(watch.Limits{Stalled: limit}, interval)
	assert.Equal(t, watch.Stalled, f.next().Kind, "now the socket counts as well")
}

func TestQueueWithoutSocket(t *testing.T) {
	leak.Check(t)
	s := startService(t)
	target := s.target()
	target.Sockets[0].FD = -1
	f := observe(t, target, watch.Limits{Stalled: limit})
	s.tell("waiting 1")
	assert.Equal(t, watch.Stalled, f.next().Kind)
}

// tracer is a debugger: all ptrace calls have to come from one thread.
type tracer struct {
	calls chan func()
	done  chan struct{}
}

func newTracer(t *testing.T) *tracer {
	tr := &tracer{calls: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(tr.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for call := range tr.calls {
			call()
		}
	}()
	t.Cleanup(func() {
		close(tr.calls)
		<-tr.done
	})
	return tr
}

func (tr *tracer) do(f func() error) error {
	result := make(chan error)
	tr.calls <- func() { result <- f() }
	return <-result
}

// attach stops the process as a debugger does that has just been started.
func (tr *tracer) attach(t *testing.T, pid int) {
	t.Helper()
	err := tr.do(func() error {
		if err := unix.PtraceAttach(pid); err != nil {
			return err
		}
		for {
			var status unix.WaitStatus
			_, err := unix.Wait4(pid, &status, syscall.WALL, nil)
			if err == unix.EINTR {
				continue
			}
			return err
		}
	})
	if err == unix.EPERM {
		t.Skip("ptrace is not permitted here")
	}
	require.NoError(t, err)
}

func TestDebugger(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start func(t *testing.T, s *service, tr *tracer)
		end   func(t *testing.T, s *service, tr *tracer)
		want  watch.Kind // when it has gone
	}{
		{
			"holds the process",
			func(t *testing.T, s *service, tr *tracer) { tr.attach(t, s.pid()) },
			func(t *testing.T, s *service, tr *tracer) {
				require.NoError(t, tr.do(func() error { return unix.PtraceDetach(s.pid()) }))
				s.kill(unix.SIGSTOP)
			},
			watch.Stopped,
		},
		{
			"has seized a process that somebody stops",
			func(t *testing.T, s *service, tr *tracer) {
				require.NoError(t, tr.do(func() error { return unix.PtraceSeize(s.pid()) }))
				s.kill(unix.SIGSTOP)
			},
			func(t *testing.T, s *service, tr *tracer) {
				require.NoError(t, tr.do(func() error {
					var status unix.WaitStatus
					if _, err := unix.Wait4(s.pid(), &status, syscall.WALL, nil); err != nil {
						return err
					}
					// With the signal that it was seized in the delivery of.
					_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(s.pid()), 0, uintptr(unix.SIGSTOP), 0, 0)
					if errno != 0 {
						return errno
					}
					return nil
				}))
			},
			watch.Stopped,
		},
		{
			"steps through a process that clients wait for",
			func(t *testing.T, s *service, tr *tracer) {
				s.tell("hang")
				require.NoError(t, tr.do(func() error { return unix.PtraceSeize(s.pid()) }))
				s.dial()
			},
			func(t *testing.T, s *service, tr *tracer) {
				require.NoError(t, tr.do(func() error {
					if err := unix.PtraceInterrupt(s.pid()); err != nil {
						return err
					}
					var status unix.WaitStatus
					if _, err := unix.Wait4(s.pid(), &status, syscall.WALL, nil); err != nil {
						return err
					}
					return unix.PtraceDetach(s.pid())
				}))
			},
			watch.Stalled,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			leak.Check(t)
			s := startService(t)
			tr := newTracer(t)
			f := observe(t, s.target(), watch.Limits{Stopped: limit, Stalled: limit})
			tt.start(t, s, tr)
			f.none(limit)
			tt.end(t, s, tr)
			assert.Equal(t, tt.want, f.next().Kind)
		})
	}
}

// dead tells whether the pidfd tells.
func (s *service) dead() bool {
	fds := []unix.PollFd{{Fd: int32(s.pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			require.NoError(s.t, err)
			return n > 0
		}
	}
}

// TestExitingIsSeenBeforeTheEnd kills a process whose memory takes a while to be
// freed. It prints how much earlier that is seen: nothing promises that it is,
// on a machine that is busy enough.
func TestExitingIsSeenBeforeTheEnd(t *testing.T) {
	leak.Check(t)
	s := startService(t)
	s.tell("touch 256")
	f := observe(t, s.target(), watch.Limits{})
	killed := time.Now()
	s.kill(unix.SIGKILL)
	x := f.next()
	seen := time.Since(killed)
	before := !s.dead()
	require.Eventually(t, s.dead, patience, time.Millisecond)
	t.Logf("%s after %v (before its pidfd tells: %v), dead after %v", x.Detail, seen, before, time.Since(killed))
	assert.Equal(t, watch.Exiting, x.Kind)
	assert.NotEmpty(t, x.Detail)
	f.none(limit)
}

func TestExiting(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(s *service)
	}{
		{"exits", func(s *service) {
			_, err := s.in.WriteString("exit 0\n")
			require.NoError(s.t, err)
		}},
		{"is terminated", func(s *service) { s.kill(unix.SIGTERM) }},
		{"is killed while it is stopped", func(s *service) {
			s.kill(unix.SIGSTOP)
			s.kill(unix.SIGKILL)
		}},
		{"is a zombie already", nil},
		{"is gone already", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			leak.Check(t)
			s := startService(t)
			target := s.target()
			switch tt.name {
			case "is gone already":
				s.kill(unix.SIGKILL)
				s.cmd.Wait()
			case "is a zombie already":
				s.kill(unix.SIGKILL)
				require.Eventually(t, s.dead, patience, time.Millisecond)
			}
			f := observe(t, target, watch.Limits{Stopped: time.Hour, Stalled: time.Hour})
			if tt.end != nil {
				tt.end(s)
			}
			x := f.next()
			assert.Equal(t, watch.Exiting, x.Kind)
			assert.NotEmpty(t, x.Detail)
			f.none(limit)
		})
	}
}

// TestReapedWhileWatched: the file in /proc that is open does not become that of
// another process.
func TestReapedWhileWatched(t *testing.T) {
	leak.Check(t)
	s := startService(t)
	reported, goOn := make(chan watch.Finding, 2), make(chan struct{})
	s.tell("waiting 1")
	w := watch.Start(s.target(), watch.Limits{Stalled: limit}, interval, func(f watch.Finding) {
		reported <- f
		<-goOn
	})
	defer w.Stop()
	assert.Equal(t, watch.Stalled, (<-reported).Kind)
	// It does not look now.
	s.kill(unix.SIGKILL)
	s.cmd.Wait()
	close(goOn)
	assert.Equal(t, watch.Finding{Kind: watch.Exiting, Detail: "gone"}, <-reported)
}

// self is a target that is this process, with one connection waiting in vain.
func self(t *testing.T) watch.Target {
	t.Helper()
	page, err := pulse.New()
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, page.Close()) })
	page.Slot(0).SetWaiting(1)
	return watch.Target{PID: os.Getpid(), Page: page, Sockets: []watch.Socket{{FD: -1, Name: "queue"}}}
}

func TestStopWaitsForReport(t *testing.T) {
	leak.Check(t)
	target := self(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	ended := false // by the race detector's leave
	w := watch.Start(target, watch.Limits{Stalled: interval}, interval, func(watch.Finding) {
		close(begun)
		<-goOn
		ended = true
	})
	<-begun
	returned := make(chan struct{})
	go func() {
		w.Stop()
		close(returned)
	}()
	select {
	case <-returned:
		t.Error("Stop has not waited")
	default:
	}
	close(goOn)
	<-returned
	assert.True(t, ended)
	w.Stop()
}

// TestStopFromReport has a report stop its watcher, when two findings are due.
func TestStopFromReport(t *testing.T) {
	leak.Check(t)
	target := self(t)
	target.Page.Slot(1).SetWaiting(1)
	target.Sockets = append(target.Sockets, watch.Socket{Slot: 1, FD: -1, Name: "other"})
	var w *watch.Watcher
	ready := make(chan struct{})
	reports := make(chan watch.Finding, 10)
	w = watch.Start(target, watch.Limits{Stalled: interval}, interval, func(f watch.Finding) {
		<-ready
		deeper(40, w.Stop)
		reports <- f
	})
	close(ready)
	assert.Equal(t, "queue", (<-reports).Socket)
	w.Stop()
	assert.Empty(t, reports)
}

// deeper calls f at the end of a long stack.
func deeper(n int, f func()) {
	if n == 0 {
		f()
		return
	}
	deeper(n-1, f)
}

func TestNothingAfterStop(t *testing.T) {
	leak.Check(t)
	for range 50 {
		target := self(t)
		stopped := false
		w := watch.Start(target, watch.Limits{Stalled: interval}, interval, func(watch.Finding) {
			assert.False(t, stopped)
		})
		w.Set(watch.Limits{Stalled: interval}, 0)
		w.Stop()
		stopped = true
		w.Set(watch.Limits{}, interval)
	}
}

// TestSet changes the pace from slow to fast and back, in reports. Each Set has the
// watcher look once more, and so does Stop not take an hour.
func TestSet(t *testing.T) {
	leak.Check(t)
	target := self(t)
	slow := watch.Limits{Stalled: time.Nanosecond}
	var w *watch.Watcher
	count := 0
	ready := make(chan struct{})
	reports := make(chan watch.Finding, 10)
	w = watch.Start(target, slow, time.Hour, func(f watch.Finding) {
		<-ready
		switch count++; count {
		case 1:
			w.Set(watch.Limits{Stalled: limit}, interval)
			target.Page.Slot(0).Accepted()
		case 3:
			w.Set(watch.Limits{Stalled: limit}, time.Hour)
			target.Page.Slot(0).Accepted()
		}
		reports <- f
	})
	for begun := false; !begun; {
		w.Set(slow, time.Hour)
		select {
		case ready <- struct{}{}:
			begun = true
		default:
			runtime.Gosched()
		}
	}
	close(ready)
	assert.Equal(t, watch.Stalled, (<-reports).Kind)
	assert.Equal(t, watch.Recovered, (<-reports).Kind)
	x := <-reports // which takes many looks
	assert.Equal(t, watch.Stalled, x.Kind)
	assert.GreaterOrEqual(t, x.For, limit)
	assert.Equal(t, watch.Recovered, (<-reports).Kind)
	w.Stop()
}

func TestNothingToCountIn(t *testing.T) {
	leak.Check(t)
	s := startService(t)
	s.tell("hang")
	s.dial()
	without := s.target()
	without.Page = nil
	other := s.target()
	other.Sockets[0].Slot = pulse.Slots
	for _, target := range []watch.Target{without, other} {
		observe(t, target, watch.Limits{Stopped: limit, Stalled: limit}).none(limit)
	}
}

func TestKind(t *testing.T) {
	for kind, want := range map[watch.Kind]string{
		watch.Exiting: "exiting", watch.Stopped: "stopped", watch.Stalled: "stalled", watch.Recovered: "recovered",
		0: "kind 0",
	} {
		assert.Equal(t, want, kind.String())
	}
}
