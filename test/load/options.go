package load

import (
	"context"
	"net"
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

	New        Traffic
	Arrivals   float64 // connections a second
	KeepAlive  Traffic
	Pool       Traffic
	Spare      int // connections
	Torn       Traffic
	ByteByByte Traffic
	Pipelined  Traffic
	Slow       Traffic
	Idle       int // connections
	Download   Traffic
	Stream     int // connections
	WebSocket  Traffic

	// ProbeIdle sends one more request on each connection of kind Idle at the
	// end, to see that it still works.
	ProbeIdle bool

	SlowTime     time.Duration // longest sleep that a slow request asks for; default 1 s
	SpareTime    time.Duration // longest time that a spare connection waits for its first request; default 2 s
	DownloadSize int64         // bytes; default 256 KiB
	StreamPause  time.Duration // between two events; default 100 ms

	Timeout     time.Duration // of a request, besides the sleep that it asks for; default 30 s
	Duration    time.Duration // the load stops itself; default 10 minutes
	MaxRequests int           // the same; default 1,000,000
}

// Mix returns options with some of each kind but [Arrivals], which one core can bear. Who to
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

// MixWithPool returns the kinds of [Mix] at lower rates, a pool of 500
// connections that are idle most of the time, and the clients whose requests
// arrive in odd pieces: what an upgrade can lose is all there. It is about 400
// requests a second, which two slow cores can bear, with the race detector and
// the server on them, too. Who to ask remains to be set.
func MixWithPool() Options {
	o := Mix()
	o.New.Rate = 50
	o.KeepAlive.Rate = 80
	o.Download.Rate = 2
	o.Pool = Traffic{Conns: 500, Rate: 150}
	o.Spare = 12
	o.Torn = Traffic{Conns: 8, Rate: 24}
	o.ByteByByte = Traffic{Conns: 4, Rate: 4}
	o.Pipelined = Traffic{Conns: 8, Rate: 60}
	return o
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
	o.SpareTime = or(o.SpareTime, 2*time.Second)
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

// traffic is how much there is of a kind. Where the rate is not to be chosen, it
// is not set.
func (o *Options) traffic(k Kind) Traffic {
	switch k {
	case New:
		return o.New
	case Arrivals:
		if o.Arrivals > 0 {
			return Traffic{Conns: 1, Rate: o.Arrivals} // one worker sets the pace
		}
	case KeepAlive:
		return o.KeepAlive
	case Pool:
		return o.Pool
	case Spare:
		return Traffic{Conns: o.Spare}
	case Torn:
		return o.Torn
	case ByteByByte:
		return o.ByteByByte
	case Pipelined:
		return o.Pipelined
	case Slow:
		return o.Slow
	case Idle:
		return Traffic{Conns: o.Idle}
	case Download:
		return o.Download
	case Stream:
		return Traffic{Conns: o.Stream}
	case WebSocket:
		return o.WebSocket
	}
	return Traffic{}
}

// kinds are those that were asked for.
func (o *Options) kinds() []Kind {
	var kinds []Kind
	for _, k := range Kinds() {
		if o.traffic(k).Conns > 0 {
			kinds = append(kinds, k)
		}
	}
	return kinds
}
