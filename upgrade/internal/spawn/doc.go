// Package spawn starts the next generation of a service and hands it named
// file descriptors. It is the only package that knows
// [github.com/cloudflare/tableflip], and it knows v1.2.3 of it: what it relies
// on beyond tableflip's documentation is pinned by tests.
//
//	tf, err := spawn.New(spawn.Options{})  // first thing in the process
//	if tf.Successor() {
//		for _, f := range tf.Inherited() { ... } // ours now, close-on-exec
//	}
//	...
//	child, err := tf.Start(ctx, []spawn.File{{Name: "http", FD: 7}}, spawn.Program{})
//	<-child.Exited()
//
// # What of tableflip is used
//
// tableflip forks, executes, passes descriptors and arguments, and reaps. Its
// notion of readiness is not used: an Upgrader whose child has said ready is
// finished for good, so that a generation that took over again after its
// successor died could never upgrade a second time. Therefore a successor keeps
// tableflip's ready pipe to itself (see inherit.go), and the parent's Upgrade
// stays pending for as long as both live. It returns an error when the child is
// gone, and can be called again. Whether the child is ready is told elsewhere,
// on a descriptor that Start passed. tableflip's Stop is never called: it kills
// the child; its time limit is switched off.
//
// # What is executed
//
// Usually the path by which the service was started, which is settled in its first
// process and handed on from then on. A [Program] is another file for once; it may
// be an open one that no path leads to any more (see target.go). The arguments of
// such a process start with /proc/self/fd/N for ps(1); its name, and os.Args[0], are
// as usual.
//
// # Ownership of file descriptors
//
// [Tableflip.Start] borrows the descriptors. It leaves no duplicate of them in
// this process, but only the garbage collector closes those that tableflip made:
// it is run once, a second after the start or when the child is gone. Start
// never changes O_NONBLOCK, which all processes that share a socket share. What
// [Tableflip.Inherited] returns belongs to the caller.
//
// # Standard output
//
// A process that dies before it can say anything on a link has said why on
// stderr. So a child starts with pipes as stdout and stderr; what it prints is
// passed on line by line to those of its parent, and the last lines are
// remembered for the answer to whoever asked for the upgrade. The real ones
// travel along, and [Tableflip.RestoreOutput] puts them in place when the child
// is ready: from then on it logs by itself, and outlives its parent.
//
// # Finding the process
//
// tableflip tells the PID of a child only in the text of the error that reports
// its death. So it is looked up in proc(5), see find.go; this needs /proc, and
// pidfd_open(2), Linux 5.3.
package spawn
