// Package watch finds out that another process is dying, stands still, or leaves
// its clients waiting, sooner than its end is reported, and when it never ends.
//
// A [Watcher] looks at its [Target] at a fixed pace, from outside, and reports
// what it finds:
//
//	w := watch.Start(watch.Target{
//		PID:     pid,
//		Page:    page, // in which the process counts what it accepts
//		Sockets: []watch.Socket{{Slot: 0, FD: fd, Name: "http"}},
//	}, watch.Limits{
//		Stopped: 500 * time.Millisecond,
//		Stalled: 500 * time.Millisecond,
//	}, 10*time.Millisecond, func(f watch.Finding) { … })
//	defer w.Stop()
//
// # What is found
//
// [Exiting] is a process that has been killed or has called exit, and has not
// finished dying. The kernel frees its memory first, which takes about 0.1 s for
// each GiB, and a core dump takes longer; only then pidfd_open(2) and wait(2) tell.
// But from the first moment on the process runs no code of its own any more. (The
// sign is that its main thread is ending. That of a process which executes another
// program in its place by execve(2) may do so, too: no generation does.)
//
// [Stopped] is a process that somebody has sent SIGSTOP. One that a debugger
// holds is not meant: its user knows.
//
// [Stalled] is a process that runs, but does not accept: clients wait on a
// listening socket, and the counter of what was accepted stands still. It is the
// one sign of a deadlock, an endless loop, or an accept loop that has ended, that
// can be seen from outside. Whoever does not accept on purpose declares it, by
// [pulse.Slot.SetBusy], and is not stalled.
//
// # Only observed time counts
//
// Somebody who has slept cannot say that others have done nothing meanwhile. So
// a limit is compared to the time that the watcher has observed: a look that comes
// late adds no more than one that is on time (or 20 ms, if that is more), as after a
// suspension of the machine, or of the control group that both are in. A look before
// which the control group was throttled (CPUQuota=) adds nothing, nor does one that
// sees a debugger.
//
// A process that accepts nothing while a thread of it has the CPU, or waits for it,
// may just be slow, as all are on a machine that is overloaded. Such a look adds a
// quarter. One that sleeps while clients wait is not slow.
//
// # Ownership of file descriptors
//
// A watcher borrows the sockets until Stop has returned. It only calls poll(2)
// for them, and never has them in Go's netpoller, which would wake this process
// for each connection that the other one accepts. It has a few files in /proc and
// /sys open, all of which are closed when Stop has returned.
package watch
