package watch

import "time"

// condition is what a process is doing, as far as it matters here.
type condition int

const (
	unknown condition = iota // it could not be read
	running                  // or sleeping
	stopped
	traced // a debugger is attached, whatever the process does
	dying
)

// reading is what one look has seen.
type reading struct {
	took      time.Duration // since the look before
	throttled time.Duration // for how long of that, or before, there was no CPU time to be had
	process   condition
	wanting   bool   // it has the CPU, or waits for it
	detail    string // why dying
	sockets   []socketReading
}

// socketReading is what one look has seen of a socket.
type socketReading struct {
	accepts uint64
	pending bool // somebody waits
	busy    bool
}

// clock measures how long something lasts, in observed time.
type clock struct {
	spent    time.Duration
	running  bool // it lasted at the look before
	reported bool
}

// advance adds a tick, and reports whether that is the one that exceeds the
// limit. What begins has not lasted yet.
func (c *clock) advance(t tick, limit time.Duration) bool {
	if !c.running {
		c.running = true
		return false
	}
	c.spent = max(c.spent+t.credit-t.debit, 0)
	if c.reported || c.spent < limit {
		return false
	}
	c.reported = true
	return true
}

// tick is what a look adds to the clocks that run.
type tick struct {
	credit time.Duration
	debit  time.Duration // what others have added, and should not have
}

// grain is what a look may always be late: how long others can keep the CPU from
// somebody who wants it, on a machine that is busy. Without it, a pace faster than
// that would have the clocks run slow there.
const grain = 20 * time.Millisecond

// patience is how many times as long a process may accept nothing that is at work, or
// waits for the CPU: on a machine that is overloaded one cannot tell a good one that
// is slow from one whose accept loop is stuck while the rest goes on. One that sleeps
// while clients wait is not slow.
const patience = 4

// pace applies the rule that only observed time counts.
type pace struct {
	carry time.Duration // how late the look before was
}

// tick returns what a look adds: at most one interval (or grain), however late it
// comes. If it was late by less than that, the next, which comes on time, comes early
// after it, and gets the rest.
func (p *pace) tick(r reading, interval time.Duration) tick {
	most := max(interval, grain)
	took := r.took + p.carry
	credit := min(took, most)
	p.carry = min(took-credit, most)
	if r.throttled > 0 {
		// The kernel tells when it ends: the looks before, that came on time because
		// this process ran on another CPU, turn out to have seen nothing.
		return tick{debit: max(r.throttled-r.took, 0)}
	}
	return tick{credit: credit}
}

// episodes turns readings into findings. It knows no clock but what readings say,
// and calls nothing.
type episodes struct {
	pace     pace
	stop     clock
	sockets  []stall
	exiting  bool
	findings []found // in the present step
}

// found is a finding, and the index of the socket that it is about.
type found struct {
	Finding
	socket int // negative: about the process
}

// stall is the accounting of one socket.
type stall struct {
	clock
	known   bool // accepts is
	accepts uint64
}

func newEpisodes(sockets int) *episodes {
	return &episodes{sockets: make([]stall, sockets)}
}

// step takes one reading, whose sockets are those of newEpisodes. The result is
// valid until the next step.
func (e *episodes) step(r reading, l Limits, interval time.Duration) []found {
	e.findings = e.findings[:0]
	if e.exiting {
		return nil
	}
	if r.process == dying {
		e.exiting = true
		e.add(processItself, Finding{Kind: Exiting, Detail: r.detail})
		return e.findings
	}
	t := e.pace.tick(r, interval)
	e.stepProcess(r, t, l.Stopped)
	for i := range e.sockets {
		e.stepSocket(i, r, t, l)
	}
	return e.findings
}

func (e *episodes) stepProcess(r reading, t tick, limit time.Duration) {
	c := &e.stop
	switch {
	case limit <= 0:
		*c = clock{}
	case r.process == stopped:
		if c.advance(t, limit) {
			e.add(processItself, Finding{Kind: Stopped, For: c.spent, Detail: "by a signal (state T)"})
		}
	case r.process == running:
		e.recover(c, processItself)
	}
	// Otherwise nothing is known of it now, and the clock stands still.
}

func (e *episodes) stepSocket(i int, r reading, t tick, l Limits) {
	s, now := &e.sockets[i], r.sockets[i]
	moved := s.known && now.accepts != s.accepts
	s.known, s.accepts = true, now.accepts
	switch {
	case l.Stalled <= 0:
		s.clock = clock{}
	case moved || now.busy:
		// Busy is a sign of life, too: somebody has just said so.
		e.recover(&s.clock, i)
		s.running = now.pending && !now.busy
	case r.process == traced:
	case r.process == stopped && l.Stopped > 0:
		// Of course it accepts nothing: one cause, one finding.
	case now.pending:
		if r.wanting {
			t.credit /= patience
		}
		if s.advance(t, l.Stalled) {
			e.add(i, Finding{Kind: Stalled, For: s.spent})
		}
	case !s.reported:
		s.clock = clock{}
	}
	// If nobody waits any more after a report, others may have accepted what did:
	// it is not known that this process goes on.
}

// recover ends what c measures.
func (e *episodes) recover(c *clock, socket int) {
	if c.reported {
		e.add(socket, Finding{Kind: Recovered, For: c.spent})
	}
	*c = clock{}
}

// processItself is in the place of the index of a socket.
const processItself = -1

func (e *episodes) add(socket int, f Finding) {
	e.findings = append(e.findings, found{f, socket})
}
