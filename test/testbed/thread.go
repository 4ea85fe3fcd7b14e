package testbed

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// onThread runs f on an OS thread of its own and returns when f does. The
// thread is not used for anything else afterwards: it ends. So f may change
// what Linux keeps for each thread: namespaces, and after unshare(CLONE_FS) the
// root directory, too. A process that f starts inherits that.
//
// This is how a program of many threads can build a container: unshare(2) and
// setns(2) act on the calling thread only.
func onThread(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// A goroutine that ends while it is locked takes its thread with it.
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		// The main thread must not be changed: it never ends, and it is what
		// /proc/self stands for. While this goroutine waits on it, the next one
		// gets another thread.
		onThread(f)
		runtime.UnlockOSThread()
	}()
	<-done
}
