package load

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
)

// ErrEnded is what [Load.Wait] returns if the load ended before the condition
// held.
var ErrEnded = errors.New("load: ended")

// Load is traffic that is under way. Its methods may be used concurrently.
type Load struct {
	rec  *recorder
	stop context.CancelFunc
	done chan struct{}
}

// Start puts traffic on the service until [Load.Stop], until a limit of the
// options is reached, or until ctx ends, which cuts off the requests that are
// under way and counts them as aborted.
func Start(ctx context.Context, opts Options) *Load {
	opts = opts.withDefaults()
	ctx, cancel := context.WithCancel(ctx)
	stopping, stop := context.WithTimeout(ctx, opts.Duration)
	l := &Load{rec: newRecorder(opts.MaxRequests, opts.kinds()), stop: stop, done: make(chan struct{})}
	var workers sync.WaitGroup
	for _, k := range opts.kinds() {
		for range opts.traffic(k).Conns {
			w := &worker{
				opts: &opts, rec: l.rec, stop: stop, kind: k,
				rng: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
			}
			workers.Go(func() { w.run(ctx, stopping) })
		}
	}
	go func() {
		defer close(l.done)
		defer cancel()
		workers.Wait()
		l.rec.finish()
	}()
	return l
}

// Stop makes no new requests, waits for those that are under way, and reports.
// A request is under way for at most [Options.Timeout] and the sleep that it
// asked for. It may be called more than once.
func (l *Load) Stop() Report {
	l.stop()
	<-l.done
	return l.rec.report()
}

// Done is closed when the load has ended, for whatever reason.
func (l *Load) Done() <-chan struct{} { return l.done }

// Report tells what has happened so far.
func (l *Load) Report() Report { return l.rec.report() }

// Wait returns nil when cond holds of the report, which it looks at after each
// request; otherwise the error of ctx, or [ErrEnded].
func (l *Load) Wait(ctx context.Context, cond func(Report) bool) error {
	for {
		rep, changed := l.rec.watch()
		if cond(rep) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.done:
			if cond(l.rec.report()) {
				return nil
			}
			return ErrEnded
		}
	}
}

// WaitAnswered returns nil when the given generation has answered n more requests
// than at the time of the call.
func (l *Load) WaitAnswered(ctx context.Context, generation, n int) error {
	n += l.Report().Answered(generation)
	return l.Wait(ctx, func(r Report) bool { return r.Answered(generation) >= n })
}
