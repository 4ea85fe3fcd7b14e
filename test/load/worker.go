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

// habit is how a worker uses its connections.
type habit struct {
	traffic Traffic
	early   bool          // half of the connections are there before they are needed
	spare   time.Duration // each is, and waits at most so long for its first request; 0: it is not so
	uses    int           // after at most so many flights the client closes a connection; 0: never
}

// Now and then a client whose requests come in pieces opens another connection:
// the first request of one is torn, too.
const renew = 40

// run works until stopping ends. The end of ctx aborts what is running.
func (w *worker) run(ctx, stopping context.Context) {
	defer w.drop()
	o := w.opts
	h := habit{traffic: o.traffic(w.kind), early: true}
	var next maker
	switch w.kind {
	case New:
		h.early, h.uses = false, 1
		next = o.hello()
	case KeepAlive:
		next = o.post()
	case Pool:
		next = o.small()
	case Spare:
		h.spare, h.uses = o.SpareTime, 4
		h.traffic = Traffic{Conns: 1, Rate: 20} // from the first request on
		next = o.small()
	case Torn:
		h.uses = renew
		next = o.torn()
	case ByteByByte:
		h.uses = renew
		next = o.byteByByte()
	case Pipelined:
		h.uses = renew
		next = o.pipelined()
	case Slow:
		next = o.sleep()
	case Download:
		next = o.bytes()
	case Arrivals:
		w.arrivals(ctx, stopping)
		return
	case Idle:
		w.hold(ctx, stopping, o.hello())
		return
	case Stream:
		w.streams(ctx, stopping)
		return
	case WebSocket:
		w.webSockets(ctx, stopping)
		return
	}
	w.requests(ctx, stopping, h, next)
}

// requests sends one flight after the other, at random intervals.
func (w *worker) requests(ctx, stopping context.Context, h habit, next maker) {
	for left := 0; ; left-- {
		if left == 0 {
			w.drop()
		}
		f := next(w.rng)
		pause := time.Duration(len(f.requests)) * w.interval(h.traffic)
		early := h.early && w.rng.IntN(2) == 0
		if w.c == nil {
			left = -1
			if h.uses > 0 {
				left = 1 + w.rng.IntN(h.uses)
			}
			if h.spare > 0 {
				early = true
				pause = h.spare/40 + time.Duration(w.rng.Int64N(int64(h.spare-h.spare/40)))
			}
		}
		until := time.Now().Add(pause)
		// A server must not drop the first request of an old connection either.
		if early {
			w.prepare(ctx, stopping)
		}
		if !w.wait(stopping, until) || !w.begin(len(f.requests)) {
			return
		}
		w.flight(ctx, stopping, f)
	}
}

// reopen is how often a client whose connection is gone tries another one.
var reopen = Traffic{Conns: 1, Rate: 4}

// hold makes one request on a connection and then keeps it for as long as the
// server does.
func (w *worker) hold(ctx, stopping context.Context, next maker) {
	for until := time.Now(); w.wait(stopping, until) && w.begin(1); until = time.Now().Add(w.interval(reopen)) {
		w.flight(ctx, stopping, next(w.rng))
		if w.c == nil || w.wait(stopping, time.Time{}) {
			continue // the server ended it
		}
		if w.opts.ProbeIdle && w.c != nil && w.begin(1) {
			w.flight(ctx, stopping, next(w.rng))
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

// begin counts n requests. It is false if the load has had its share.
func (w *worker) begin(n int) bool {
	if w.rec.begin(w.kind, n) {
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
	if err := w.connect(ctx, stopping); err != nil && !errors.Is(err, errAborted) && w.begin(1) {
		w.end(err, 1)
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

// flight makes requests that were begun, and records their end.
func (w *worker) flight(ctx, stopping context.Context, f flight) {
	start := time.Now()
	if err := w.connect(ctx, stopping); err != nil {
		w.end(err, len(f.requests))
		return
	}
	dialed := time.Since(start)
	answered, announced := 0, false
	err := w.c.do(f, w.opts.Timeout, func(a answer) {
		answered++
		announced = a.announced
		w.rec.waited(w.kind, dialed+a.wait)
		w.rec.answered(w.kind, a.from, a.announced)
	})
	switch {
	case err != nil:
		w.end(err, len(f.requests)-answered)
	case announced:
		w.drop()
	}
}

// end records the bad end of n requests that were begun. Their connection is not
// used again.
func (w *worker) end(err error, n int) {
	var h history
	if w.c != nil {
		h = w.c.history
	}
	for range n {
		w.endOn(err, h)
	}
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
