package upgrade

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hdctl/handoff/upgrade/internal/gate"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

// How a staged generation gets its share of the new connections. If both accepted
// from the shared sockets, the kernel would decide by chance, and not for 5 %. So the
// old one accepts everything, and passes every twentieth connection on, over the same
// kind of link as connections that move in a drain, before a byte of it is read. It
// waits for the answer beside its Accept; what the new one does not take comes out of
// that Accept after all.

// shareUnit is the whole of a share.
const shareUnit = 1_000_000

// share passes connections on to a staged generation. Its methods may be called
// concurrently.
type share struct {
	to        int
	sender    *transfer.Sender
	listeners map[string]bool // those that the receiver serves
	places    transfer.Places // bounds what is under way
	log       *slog.Logger
	passing   sync.WaitGroup

	mu           sync.Mutex
	part         int            // of shareUnit
	owed         map[string]int // by listener, in parts of a connection
	passed, kept int            // since the part was set
	ended        bool
}

// setShare makes it percent from now on.
func (s *share) setShare(percent float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.part = int(percent*shareUnit/100 + 0.5)
	s.owed = make(map[string]int)
	s.passed, s.kept = 0, 0
}

// counts returns how many connections were passed on and kept since the share was
// set.
func (s *share) counts() (passed, kept int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.passed, s.kept
}

// takes decides about one more connection of l: exactly the share, not by chance.
func (s *share) takes(l *Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || !s.listeners[l.name] {
		return false
	}
	owed := s.owed[l.name] + s.part
	takes := owed >= shareUnit && s.places.TryAcquire()
	if takes {
		owed -= shareUnit
		s.passed++
		s.passing.Add(1)
	} else {
		s.kept++
	}
	s.owed[l.name] = min(owed, 10*shareUnit) // what was not taken is made up for, but not without end
	return takes
}

// pass passes c on, or has it come out of the Accept of l.
func (s *share) pass(l *Listener, c *Conn) {
	defer s.passing.Done()
	err := s.give(l, c)
	s.places.Release()
	if err == nil {
		c.entry.SetFlags(moved)
		_ = c.conn.Close() // close(2), not shutdown(2): the receiver has the socket
		c.forget()
		return
	}
	s.mu.Lock()
	s.passed = max(s.passed-1, 0) // it may be of a share before
	s.kept++
	s.owed[l.name] += shareUnit
	s.mu.Unlock()
	if errors.Is(err, transfer.ErrWithdrawn) {
		c.entry.SetFlags(doubled)
	}
	s.log.Debug("connection not passed on", "listener", l.name, "err", err)
	l.comeBack(c)
}

func (s *share) give(l *Listener, c *Conn) error {
	sc, ok := c.conn.(syscall.Conn)
	if !ok {
		return errors.New("not a socket")
	}
	accepted := c.entry.Accepted().UnixNano()
	return s.sender.Give(sc, link.Offer{Listener: l.name, Accepted: accepted, Moved: accepted, Fresh: true})
}

// end passes nothing on any more, and waits until it is decided who has what is
// under way: a receiver that is well may take it, within limit.
func (s *share) end(limit time.Duration) {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	within(limit, &s.passing)
	_ = s.sender.Close()
	s.passing.Wait()
}

// comeBack has c, which was accepted here and not wanted elsewhere, come out of
// Accept. It takes no place in the queue that was promised to a connection that is
// being adopted.
func (l *Listener) comeBack(c *Conn) {
	for {
		if l.reserve() {
			err := l.gates[0].Push(c)
			l.reserved.Add(-1)
			if err == nil {
				return
			}
			if !errors.Is(err, gate.ErrFull) {
				_ = c.Close()
				return
			}
		}
		timer := time.NewTimer(retryDelay / 10)
		select {
		case <-timer.C:
		case <-l.closing:
			timer.Stop()
			_ = c.Close()
			return
		}
	}
}

// passOn gives c to a staged generation, if it is one of its share.
func (l *Listener) passOn(c *Conn) bool {
	s := l.share.Load()
	if s == nil || !s.takes(l) {
		return false
	}
	go s.pass(l, c) // ended by end
	return true
}

// openShare is the way for connections that the candidate has opened: it is used
// once it is on stage. The driver calls it; keep says that the file is used.
func (u *Upgrader) openShare(p *peer, m link.Adopt, file *os.File) (keep bool) {
	a := u.attempt
	if a == nil || a.stage == nil || a.stage.share != nil || u.state.Candidate.Phase != machine.Staging {
		return false
	}
	conn, err := link.New(file)
	if err != nil {
		u.log.LogAttrs(u.ctx, slog.LevelError, "way for connections not opened", slog.Int("generation", p.number), slog.Any("err", err))
		return true
	}
	s := &share{
		to: p.number, sender: transfer.NewSender(conn), listeners: make(map[string]bool),
		places: transfer.NewPlaces(gate.MaxPushed), log: u.log, owed: make(map[string]int),
	}
	for _, l := range m.Listeners {
		s.listeners[l.Name] = true
	}
	a.stage.share = s
	return true
}

// startSharing begins to pass connections on.
func (u *Upgrader) startSharing() {
	st := u.attempt.stage
	if st.share == nil {
		u.failStage("it has opened no way for connections")
		return
	}
	u.setStage(st.percent)
	for _, l := range u.allListeners() {
		l.share.Store(st.share)
	}
}

// endSharing passes nothing on any more.
func (u *Upgrader) endSharing() {
	a := u.attempt
	if a == nil || a.stage == nil || a.stage.share == nil {
		return
	}
	s := a.stage.share
	for _, l := range u.allListeners() {
		l.share.CompareAndSwap(s, nil)
	}
	limit := lastWords
	if p := u.peers[s.to]; p == nil || u.state.Candidate.Phase == machine.Dying || hangs(u.watching) {
		limit = 0 // nobody is going to answer
	}
	u.wg.Go(func() { s.end(limit) })
}

// failStage ends a staged upgrade that cannot go on.
func (u *Upgrader) failStage(why string) {
	a := u.attempt
	u.box.post(func() {
		if a == nil || u.attempt != a { // it has ended in another way
			return
		}
		if a.problem == nil {
			a.problem = failedStage(why)
		}
		u.step(machine.Rollback{})
	})
}

// describeShare is how much of the new connections goes where.
func describeShare(percent float64) string {
	return fmt.Sprintf("%.4g%% of the new connections", percent)
}
