package load

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"
)

// worker is one client. It has one connection at a time.
type worker struct {
	opts *Options
	rec  *recorder
	stop context.CancelFunc // ends the whole load
	kind Kind
	rng  *rand.Rand // of this worker alone
	c    *conn      // nil: none at present
}

// run works until stopping ends. The end of ctx aborts what is running.
func (w *worker) run(ctx, stopping context.Context) {
	defer w.drop()
	o := w.opts
	switch w.kind {
	case New:
		w.requests(ctx, stopping, o.New, o.hello())
	case KeepAlive:
		w.requests(ctx, stopping, o.KeepAlive, o.post())
	case Slow:
		w.requests(ctx, stopping, o.Slow, o.sleep())
	case Download:
		w.requests(ctx, stopping, o.Download, o.bytes())
	case Idle:
		w.hold(ctx, stopping, o.hello())
	case Stream:
		w.streams(ctx, stopping)
	case WebSocket:
		w.webSockets(ctx, stopping)
	}
}

// requests makes one request after the other, at random intervals.
func (w *worker) requests(ctx, stopping context.Context, t Traffic, next maker) {
	for {
		until := time.Now().Add(w.interval(t))
		// Half of the connections of a pool are there before they are needed: a
		// server must not drop the first request of an old connection either.
		if w.kind != New && w.rng.IntN(2) == 0 {
			w.prepare(ctx, stopping)
		}
		if !w.wait(stopping, until) || !w.begin() {
			return
		}
		w.one(ctx, stopping, next(w.rng))
		if w.kind == New {
			w.drop()
		}
	}
}

// reopen is how often a client whose connection is gone tries another one.
var reopen = Traffic{Conns: 1, Rate: 4}

// hold makes one request on a connection and then keeps it for as long as the
// server does.
func (w *worker) hold(ctx, stopping context.Context, next maker) {
	for until := time.Now(); w.wait(stopping, until) && w.begin(); until = time.Now().Add(w.interval(reopen)) {
		w.one(ctx, stopping, next(w.rng))
		if w.c == nil || w.wait(stopping, time.Time{}) {
			continue // the server ended it
		}
		if w.opts.ProbeIdle && w.c != nil && w.begin() {
			w.one(ctx, stopping, next(w.rng))
		}
		return
	}
}

// interval is a random time between two requests of one connection. The times
// are distributed as those of independent clients are, but for a limit.
func (w *worker) interval(t Traffic) time.Duration {
	mean := float64(time.Second)
	if t.Rate > 0 {
		mean *= float64(t.Conns) / t.Rate
	}
	return time.Duration(min(w.rng.ExpFloat64(), 5) * mean)
}

// begin counts a request. It is false if the load has had its share.
func (w *worker) begin() bool {
	if w.rec.begin(w.kind) {
		return true
	}
	w.stop()
	return false
}

// connect makes the connection, if there is none.
func (w *worker) connect(ctx, stopping context.Context) error {
	if w.c != nil {
		return nil
	}
	start := time.Now()
	c, err := w.opts.dial(ctx, stopping)
	if err != nil {
		return err
	}
	w.c = c
	w.rec.dialed(w.kind, time.Since(start))
	return nil
}

// prepare connects before there is a request. If that fails, the request that it
// was for has failed.
func (w *worker) prepare(ctx, stopping context.Context) {
	if stopping.Err() != nil {
		return
	}
	if err := w.connect(ctx, stopping); err != nil && !errors.Is(err, errAborted) && w.begin() {
		w.end(err)
	}
}

// drop closes the connection, if there is one.
func (w *worker) drop() {
	if w.c != nil {
		w.c.Close()
		w.c = nil
	}
}

// wait waits for the time of the next request, and watches the connection
// meanwhile. A connection that is gone is dropped; with until zero, which is
// never, wait ends then. It is false if there shall be no more requests.
func (w *worker) wait(stopping context.Context, until time.Time) bool {
	if w.c != nil {
		switch err := w.c.await(until); {
		case err == nil:
			return stopping.Err() == nil // the connection hears of it later
		case errors.Is(err, errStopped), errors.Is(err, errAborted):
			return false
		case err == io.EOF:
			w.rec.closed(w.kind)
		default:
			w.fail(PhaseIdle, err, w.c.history)
		}
		w.drop()
	}
	if until.IsZero() {
		return true
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
		return stopping.Err() == nil // both may be true
	case <-stopping.Done():
		return false
	}
}

// one makes a request that was begun, and records its end.
func (w *worker) one(ctx, stopping context.Context, r request) {
	start := time.Now()
	if err := w.connect(ctx, stopping); err != nil {
		w.end(err)
		return
	}
	dialed := time.Since(start)
	announced, wait, err := w.c.do(r, w.opts.Timeout)
	if err != nil {
		w.end(err)
		return
	}
	w.rec.waited(w.kind, dialed+wait-r.asked)
	w.rec.answered(w.kind, w.c.last, announced)
	if announced {
		w.drop()
	}
}

// end records the bad end of a request that was begun. Its connection is not
// used again.
func (w *worker) end(err error) {
	var h history
	if w.c != nil {
		h = w.c.history
	}
	w.endOn(err, h)
	w.drop()
}

func (w *worker) endOn(err error, h history) {
	var p *phaseError
	switch {
	case errors.As(err, &p):
		w.fail(p.phase, p.err, h)
	case errors.Is(err, errAborted):
		w.rec.aborted(w.kind)
	default:
		w.fail(PhaseRead, err, h)
	}
}

func (w *worker) fail(p Phase, err error, h history) {
	f := Failure{Kind: w.kind, Phase: p, Err: err, Generation: h.last.generation, Requests: h.requests}
	if !h.born.IsZero() {
		f.Age = time.Since(h.born)
	}
	w.rec.failed(f)
}
