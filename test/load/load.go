package load

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Traffic is how much there is of one kind. The zero value is none.
type Traffic struct {
	Conns int     // connections (for New: requests) at the same time
	Rate  float64 // requests a second, of all connections together; 0: one a second for each connection
}

// Options say whom to ask, and how much. Asked for no kind of traffic at all,
// [Start] takes that of [Mix].
type Options struct {
	// Dial makes a connection to the service. If it is nil, Network and Address
	// are dialed ("tcp", "unix").
	Dial             func(ctx context.Context) (net.Conn, error)
	Network, Address string
	Host             string // the Host header; default "handoff-load"

	New       Traffic
	KeepAlive Traffic
	Slow      Traffic
	Idle      int // connections
	Download  Traffic
	Stream    int // connections
	WebSocket Traffic

	// ProbeIdle sends one more request on each connection of kind Idle at the
	// end, to see that it still works.
	ProbeIdle bool

	SlowTime     time.Duration // longest sleep that a slow request asks for; default 1 s
	DownloadSize int64         // bytes; default 256 KiB
	StreamPause  time.Duration // between two events; default 100 ms

	Timeout     time.Duration // of a request, besides the sleep that it asks for; default 30 s
	Duration    time.Duration // the load stops itself; default 10 minutes
	MaxRequests int           // the same; default 1,000,000
}

// Mix returns options with some of each kind, which one core can bear. Who to
// ask remains to be set.
func Mix() Options {
	return Options{
		New:       Traffic{Conns: 4, Rate: 100},
		KeepAlive: Traffic{Conns: 64, Rate: 300},
		Slow:      Traffic{Conns: 8, Rate: 8},
		Idle:      16,
		Download:  Traffic{Conns: 2, Rate: 4},
		Stream:    2,
		WebSocket: Traffic{Conns: 4, Rate: 8},
	}
}

func (o Options) withDefaults() Options {
	if o.kinds() == nil {
		m := Mix()
		o.New, o.KeepAlive, o.Slow, o.Idle = m.New, m.KeepAlive, m.Slow, m.Idle
		o.Download, o.Stream, o.WebSocket = m.Download, m.Stream, m.WebSocket
	}
	if o.Dial == nil {
		network, address := o.Network, o.Address
		o.Dial = func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	}
	if o.Host == "" {
		o.Host = "handoff-load"
	}
	o.SlowTime = or(o.SlowTime, time.Second)
	o.DownloadSize = or(o.DownloadSize, 256<<10)
	o.StreamPause = or(o.StreamPause, 100*time.Millisecond)
	o.Timeout = or(o.Timeout, 30*time.Second)
	o.Duration = or(o.Duration, 10*time.Minute)
	o.MaxRequests = or(o.MaxRequests, 1_000_000)
	return o
}

func or[T int | int64 | time.Duration](v, fallback T) T {
	if v > 0 {
		return v
	}
	return fallback
}

// conns is how many workers a kind has.
func (o *Options) conns(k Kind) int {
	switch k {
	case New:
		return o.New.Conns
	case KeepAlive:
		return o.KeepAlive.Conns
	case Slow:
		return o.Slow.Conns
	case Idle:
		return o.Idle
	case Download:
		return o.Download.Conns
	case Stream:
		return o.Stream
	case WebSocket:
		return o.WebSocket.Conns
	}
	return 0
}

// kinds are those that were asked for.
func (o *Options) kinds() []Kind {
	var kinds []Kind
	for _, k := range Kinds() {
		if o.conns(k) > 0 {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

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
		for range opts.conns(k) {
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
