package upgrade

import "time"

// worker executes jobs in their order, in a goroutine of its own, so that the driver
// waits for nobody who could be slow.
type worker struct {
	jobs *mailbox
	done chan struct{}
}

func newWorker() worker {
	w := worker{jobs: newMailbox(), done: make(chan struct{})}
	go w.run()
	return w
}

func (w worker) run() {
	defer close(w.done)
	for {
		<-w.jobs.wake
		for _, job := range w.jobs.take() {
			if job == nil {
				return
			}
			job()
		}
	}
}

// do executes f after all that was asked before.
func (w worker) do(f func()) { w.jobs.post(f) }

// wait waits until what was asked has been executed, for at most limit.
func (w worker) wait(limit time.Duration) {
	done := make(chan struct{})
	w.do(func() { close(done) })
	await(done, limit)
}

// close executes what was asked, within limit, and ends. What takes longer goes on
// without being waited for.
func (w worker) close(limit time.Duration) {
	w.jobs.post(nil)
	await(w.done, limit)
}
