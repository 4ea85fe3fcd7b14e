package load

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Kind is a kind of traffic.
type Kind string

// The kinds of traffic.
const (
	New        Kind = "new"
	Arrivals   Kind = "arrivals"
	KeepAlive  Kind = "keep-alive"
	Pool       Kind = "pool"
	Spare      Kind = "spare"
	Torn       Kind = "torn"
	ByteByByte Kind = "byte-by-byte"
	Pipelined  Kind = "pipelined"
	Slow       Kind = "slow"
	Idle       Kind = "idle"
	Download   Kind = "download"
	Stream     Kind = "stream"
	WebSocket  Kind = "websocket"
)

// Kinds are all kinds of traffic, in the order in which they are shown.
func Kinds() []Kind {
	return []Kind{New, Arrivals, KeepAlive, Pool, Spare, Torn, ByteByByte, Pipelined, Slow, Idle, Download, Stream, WebSocket}
}

// Phase is what a request was doing when it failed.
type Phase string

// The phases of a request.
const (
	PhaseDial    Phase = "dial"    // connecting
	PhaseWrite   Phase = "write"   // sending the request
	PhaseRead    Phase = "read"    // waiting for the answer, or reading it
	PhaseContent Phase = "content" // the answer is complete, and wrong
	PhaseIdle    Phase = "idle"    // no request: the connection broke between two
)

// Counters count the requests of one kind. For streams and WebSockets a request
// is the opening of one, and it is answered when it ended as it should.
//
// When the load has ended, Requests is Responses + Aborted + those failures that
// belong to a request (all but the ones in [PhaseIdle]).
type Counters struct {
	Requests  int // begun
	Responses int // answered completely and correctly
	Failed    int
	Aborted   int // cut short by the end of the context that was given to Start; neither answered nor failed
	Dials     int // connections made
	Announced int // connections that the server ended with its answer: "Connection: close", goodbye, close frame
	Closed    int // connections that the server closed, unannounced, while they carried no request
	Messages  int // events and messages received on streams and WebSockets

	// LongestWait is the longest time from a request (the connecting included)
	// to the header of its answer, less the time that it asked the server to
	// sleep and the pauses that the client made in writing it.
	LongestWait time.Duration
}

// add adds o to c.
func (c *Counters) add(o Counters) {
	c.Requests += o.Requests
	c.Responses += o.Responses
	c.Failed += o.Failed
	c.Aborted += o.Aborted
	c.Dials += o.Dials
	c.Announced += o.Announced
	c.Closed += o.Closed
	c.Messages += o.Messages
	c.LongestWait = max(c.LongestWait, o.LongestWait)
}

// maxSamples is how many failures of each kind a report describes; all are
// counted.
const maxSamples = 10

// Failure is one failed request.
type Failure struct {
	Time       time.Time
	Kind       Kind
	Phase      Phase
	Err        error
	Generation int           // the last that answered on this connection, 0: none did
	Latest     int           // the generation whose answer, on any connection, came last before the failure
	Requests   int           // how many requests this connection had carried before
	Age        time.Duration // of the connection
}

// String describes the failure in a line.
func (f Failure) String() string {
	s := fmt.Sprintf("%s %s, %s: %v", f.Time.Format("15:04:05.000"), f.Kind, f.Phase, f.Err)
	if f.Phase == PhaseDial {
		return s + fmt.Sprintf(" (latest generation %d)", f.Latest)
	}
	return s + fmt.Sprintf(" (connection %s old, %d requests before, last answered by generation %d; latest generation %d)",
		f.Age.Round(time.Millisecond), f.Requests, f.Generation, f.Latest)
}

// Served is what one process of the service answered.
type Served struct {
	Generation int // from X-Handoff-Generation, 0: the answers had no such header
	PID        int
	Version    string
	Responses  int
	First      time.Time
	Last       time.Time
}

// Report is what a load has seen so far.
type Report struct {
	Elapsed  time.Duration
	ByKind   map[Kind]Counters // the kinds that were asked for
	Served   []Served          // in the order of their first answers
	Failures []Failure         // the first 10 of each kind
	Arrivals Timeline          // all of that kind
}

// Total adds up all kinds.
func (r Report) Total() Counters {
	var t Counters
	for _, c := range r.ByKind {
		t.add(c)
	}
	return t
}

// ClosedByServer returns how many connections that can carry one HTTP/1.1 request
// after the other the server has ended in an orderly way, be it announced with an
// answer or not. A service that hands its idle connections over ends none. What
// was broken under a request is no part of it: that request has failed.
func (r Report) ClosedByServer() int {
	n := 0
	for k, c := range r.ByKind {
		if k != Stream && k != WebSocket && k != Arrivals {
			n += c.Announced + c.Closed
		}
	}
	return n
}

// Answered returns how many requests a generation answered.
func (r Report) Answered(generation int) int {
	n := 0
	for _, s := range r.Served {
		if s.Generation == generation {
			n += s.Responses
		}
	}
	return n
}

// Generations returns the numbers of the generations that answered, ascending.
func (r Report) Generations() []int {
	var ns []int
	for _, s := range r.Served {
		ns = append(ns, s.Generation)
	}
	slices.Sort(ns)
	return slices.Compact(ns)
}

// Err is nil if every request was answered, and there was one. Otherwise it says
// how many failed and describes the first of them.
func (r Report) Err() error {
	t := r.Total()
	switch {
	case t.Requests == 0:
		return errors.New("no request was made, so nothing is proven")
	case t.Failed == 0 && t.Requests == t.Responses+t.Aborted:
		return nil
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d failures: %d requests, %d responses, %d aborted", t.Failed, t.Requests, t.Responses, t.Aborted)
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "\n\t%s", f)
	}
	return errors.New(b.String())
}

// String is a table with a line for each kind, the processes that answered, and
// the first failures.
func (r Report) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "KIND\tREQUESTS\tRESPONSES\tFAILED\tABORTED\tDIALS\tANNOUNCED\tCLOSED\tLONGEST WAIT\t")
	line := func(name string, c Counters) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t\n", name, c.Requests, c.Responses, c.Failed,
			c.Aborted, c.Dials, c.Announced, c.Closed, c.LongestWait.Round(100*time.Microsecond))
	}
	for _, k := range Kinds() {
		if c, ok := r.ByKind[k]; ok {
			line(string(k), c)
		}
	}
	line("all", r.Total())
	w.Flush()
	for _, s := range r.Served {
		fmt.Fprintf(&b, "generation %d (%s, PID %d) answered %d requests in %s\n",
			s.Generation, s.Version, s.PID, s.Responses, s.Last.Sub(s.First).Round(time.Millisecond))
	}
	if len(r.Arrivals) > 0 {
		fmt.Fprintln(&b, r.Arrivals)
	}
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "failed: %s\n", f)
	}
	return b.String()
}
