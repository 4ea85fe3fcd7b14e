package load

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// DefaultArrivals is the rate of [Arriving].
const DefaultArrivals = 1500

// Arriving returns options with nothing but new connections, 1,500 a second. Who to
// ask remains to be set.
func Arriving() Options { return Options{Arrivals: DefaultArrivals} }

// Arrival is one connection of kind [Arrivals], with its one request.
type Arrival struct {
	Due        time.Time     // when it was to begin, by the rate
	Begun      time.Duration // after Due: how late the client itself was
	Connected  time.Duration // after Due; 0: it was not connected
	Answered   time.Duration // after Due: the last byte of a good answer was read; 0: there was none
	Cause      Cause         // why not; none: it was answered, or the load was aborted
	Generation int           // that answered
	PID        int           // likewise
}

// End is when a good answer had been read.
func (a Arrival) End() time.Time { return a.Due.Add(a.Answered) }

// arrivals makes one connection after the other, each in its time, whatever has
// become of those before.
func (w *worker) arrivals(ctx, stopping context.Context) {
	r := w.opts.lone()
	f := flight{requests: []request{r}}
	interval := float64(time.Second) / w.opts.Arrivals
	start := time.Now()
	var running sync.WaitGroup
	defer running.Wait()
	for n := 0; ; n++ {
		due := start.Add(time.Duration(float64(n) * interval))
		// After a pause of the client itself those that are due all begin at once.
		if !w.wait(stopping, due) || !w.begin(1) {
			return
		}
		running.Go(func() { w.arrive(ctx, stopping, f, due) })
	}
}

// arrive makes one connection, which was begun, and records its end.
func (w *worker) arrive(ctx, stopping context.Context, f flight, due time.Time) {
	one := &worker{opts: w.opts, rec: w.rec, stop: w.stop, kind: w.kind} // its connection is its own
	a := Arrival{Due: due, Begun: time.Since(due)}
	err := one.connect(ctx, stopping)
	if err == nil {
		a.Connected = time.Since(due)
		err = one.c.do(f, w.opts.Timeout, func(got answer) {
			a.Answered, a.Generation, a.PID = time.Since(due), got.from.generation, got.from.pid
			w.rec.waited(w.kind, a.Answered-a.Begun)
			w.rec.answered(w.kind, got.from, got.announced)
		})
	}
	if err != nil {
		if !errors.Is(err, errAborted) {
			a.Cause = causeOf(err)
		}
		w.rec.arrived(a)
		one.end(err, 1)
		return
	}
	w.rec.arrived(a)
	one.c.leave(w.opts.Timeout)
	one.drop()
}

// leave waits for the server's end of the connection and has the kernel forget
// ours: after a minute of many connections no port is left otherwise, for each is
// kept for a minute by the side that closes first. A reset that comes after the
// server's last byte takes nothing away.
func (c *conn) leave(timeout time.Duration) {
	if c.arm(false, time.Now().Add(timeout)) == nil {
		_, _ = c.br.Peek(1) // whatever it is: the answer was good
	}
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}
