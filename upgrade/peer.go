package upgrade

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
	"github.com/hdctl/handoff/upgrade/internal/spawn"
	"github.com/hdctl/handoff/upgrade/internal/transfer"
)

// peer is another generation that this one has a link to. Its fields belong to
// the driver, but for conn, which is safe for concurrent use.
type peer struct {
	number  int
	pid     int
	version string
	conn    *link.Conn
	pidfd   *os.File    // nil for a candidate that has not said hello
	child   spawn.Child // if we started it
	page    *pulse.Page // in which it shows what it does; nil: we have not started it, or it failed
	claimed []string    // the names of the sockets that it serves
	since   time.Time   // when we came to know it

	dead chan struct{} // closed when its process is known to be gone
	die  sync.Once

	receiver   *transfer.Receiver // of its connections; nil: not open
	adoptLater bool               // opening it failed and is tried again

	report   link.Report // the last one, of a draining generation
	reported time.Time   // zero: none yet

	deeds      deeds // what it has done, as far as it has said
	settled    deeds // what of that is settled
	drainSince int64 // when its drain began, by its own word; 0: not heard of
}

// addPeer makes p known and starts to listen to it.
func (u *Upgrader) addPeer(p *peer) {
	p.since = time.Now()
	u.peers[p.number] = p
	p.dead = make(chan struct{})
	if p.child != nil {
		u.wg.Go(func() {
			select {
			case <-p.child.Exited():
				p.died()
			case <-u.ending:
			}
		})
	}
	u.watch(p)
	u.wg.Go(func() { u.listenTo(p) })
}

// watch awaits the death of p by its pidfd, if there is one yet. A child's Exited
// comes later than its death where it has left a process that holds its output.
func (u *Upgrader) watch(p *peer) {
	if pidfd := p.pidfd; pidfd != nil {
		u.wg.Go(func() {
			if awaitDeath(pidfd) == nil {
				p.died()
			}
		})
	}
}

// died has the rest of what p said received, and then its death.
func (p *peer) died() {
	p.die.Do(func() {
		p.conn.Finish()
		close(p.dead)
	})
}

// listenTo posts what a peer says, and in the end its death: never before what
// it said last. An end of file alone is no sign of death, since other processes
// may hold the other end, and is followed by waiting for the death.
func (u *Upgrader) listenTo(p *peer) {
	for {
		m, files, err := p.conn.Receive()
		var frame *link.FrameError
		switch {
		case err == nil:
			if !u.box.post(func() { u.receive(p, m, files) }) {
				closeFiles(files)
			}
			continue
		case errors.As(err, &frame):
			u.log.LogAttrs(u.ctx, slog.LevelWarn, "message not understood", slog.Int("generation", p.number), slog.Any("err", err))
			continue
		case !errors.Is(err, io.EOF):
			u.log.LogAttrs(u.ctx, slog.LevelDebug, "link ended", slog.Int("generation", p.number), slog.Any("err", err))
		}
		break
	}
	select {
	case <-p.dead:
		u.box.post(func() { u.gone(p) })
	case <-u.ending:
	}
}

// lastReportDelay is how long the last report of a generation may be on its way by
// another one.
const lastReportDelay = 250 * time.Millisecond

// gone is the death of a generation.
func (u *Upgrader) gone(p *peer) {
	// Where it ends between the two steps of a confirm, there is no main yet that
	// knows of it but the one to come.
	s := u.state
	drained := s.Main && slices.Contains(s.Drainers, p.number) ||
		!s.Main && s.Life == machine.Serving && p.number < u.number && p.number != s.Lead
	if u.mover != nil && u.mover.to == p.number {
		u.stopMoving(fmt.Errorf("generation %d is gone", p.number))
	}
	u.closeReceiver(p)
	delete(u.peers, p.number)
	u.deedsDone(p)
	u.step(machine.PeerGone{Number: p.number, TooLate: u.tooLate(p.number)})
	switch {
	case drained && !p.report.Final && p.pidfd != nil: // it ended without a word
		u.departed[p.number] = p
		u.wg.Go(func() {
			cause := causeOfDeath(p.pidfd, deathWait)
			u.after(lastReportDelay, func() { u.recordDeparted(p, cause) })
		})
		return
	case drained:
		u.recordDrained(p, "")
	}
	p.close()
}

// recordDeparted records the end of a generation that ended without a word, once.
func (u *Upgrader) recordDeparted(p *peer, cause string) {
	if u.departed[p.number] == p {
		delete(u.departed, p.number)
		u.recordDrained(p, cause)
		p.close()
	}
}

func (p *peer) close() {
	_ = p.conn.Close()
	_ = p.page.Close()
	if p.pidfd != nil {
		_ = p.pidfd.Close()
	}
}

// awaitDeath waits until the process of pidfd has ended; an error means that
// pidfd was closed.
func awaitDeath(pidfd *os.File) error {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(readable)
}

// ended tells whether the process of pidfd has ended.
func ended(pidfd *os.File) (yes bool) {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { yes = readable(fd) })
	return yes
}

// readable is true of a pidfd whose process has ended.
func readable(fd uintptr) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n == 1 && err == nil
}

// ownPidfd opens a pidfd of this process that can be waited for in the
// netpoller, by whoever gets it: the flag belongs to the open file description.
// PIDFD_NONBLOCK needs Linux 5.10.
func ownPidfd() (*os.File, error) {
	fd, err := unix.PidfdOpen(os.Getpid(), unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open a pidfd of this process: %w", os.NewSyscallError("pidfd_open", err))
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// send sends to a generation. A link that is full or closed is that
// generation's trouble; who waits for an answer has a timer.
func (u *Upgrader) send(number int, m link.Message, files ...*os.File) {
	p := u.peers[number]
	if p == nil {
		return
	}
	if err := p.conn.Send(m, files...); err != nil {
		level := slog.LevelWarn
		if errors.Is(err, link.ErrPeerClosed) { // it is on its way out
			level = slog.LevelDebug
		}
		u.log.LogAttrs(u.ctx, level, "message not sent", slog.Int("generation", number),
			slog.String("kind", string(m.Kind())), slog.Any("err", err))
	}
}

// hello is what this generation says first on a link to a neighbour.
func (u *Upgrader) hello() link.Hello {
	versions := link.Supported()
	return link.Hello{
		Min: versions.Min, Max: versions.Max,
		Library: u.library, Service: u.name, Version: u.opts.Version,
		Generation: u.number, PID: u.pid, Invocation: u.env.invocation,
		SentAt: time.Now().UnixNano(),
	}
}

// receive handles a message. The driver calls it.
func (u *Upgrader) receive(p *peer, m link.Message, files []*os.File) {
	keep := false
	switch m := m.(type) {
	case link.Hello:
		keep = u.greet(p, m, files)
	case link.Refuse:
		u.refused(p, m)
	case link.Ready:
		p.claimed = m.Claimed
		u.candidateReady(p)
	case link.Stage:
		u.step(machine.StageNow{})
	case link.Staged:
		if p.number == u.state.Candidate.Number {
			u.step(machine.CandidateStaged{})
		}
	case link.Retire:
		u.step(machine.Retire{})
	case link.Numbers:
		u.hear(m.Totals)
		u.step(machine.Numbered{Number: p.number, Next: m.Next, Covered: m.Covered})
	case link.Stalled:
		u.stalled(m)
	case link.Serve:
		u.step(machine.ServeNow{})
	case link.Serving:
		u.candidateServing(p)
	case link.Confirmed:
		keep = u.confirmed(m, files)
	case link.Stopping:
		u.step(machine.PeerStopping{Number: p.number})
	case link.Hurry:
		u.hurriedUntil = time.Unix(0, m.DeadlineUnixNano)
		if m.DeadlineUnixNano == 0 { // of an older version
			u.hurriedUntil = time.Now().Add(hurryTimeout)
		}
		u.step(machine.Hurried{})
	case link.Adopt:
		keep = u.startMoving(p, m, files[0]) || u.openShare(p, m, files[0])
	case link.List:
		keep = u.listConns(m, files[0])
	case link.Report:
		if m.Generation == u.state.Retiring && p.number == m.Generation && drains(m) {
			u.step(machine.Retired{Number: m.Generation})
		}
		// At a confirm the predecessor passes on what others last reported, and
		// what they report to it in vain after that.
		if s := u.state; s.Life == machine.Draining && !s.Main {
			u.send(s.Lead, m)
		}
		q := u.peers[m.Generation]
		if q == nil {
			q = u.departed[m.Generation]
		}
		if q != nil {
			q.report, q.reported = m, time.Now()
			u.noteDeeds(q)
			u.noteDrain(m)
			u.publish()
		}
	case link.Meet:
		keep = u.meet(m, files)
	case link.Unknown:
		if m.Unanswered {
			u.send(p.number, link.Unknown{Name: m.Name})
		} else if m.Name == string(link.KindStage) && p.number == u.state.Candidate.Number {
			u.failStage("its version of the handoff library is too old for that")
		}
		u.log.LogAttrs(u.ctx, slog.LevelInfo, "message of an unknown kind", slog.Int("generation", p.number), slog.String("kind", m.Name))
	}
	if !keep {
		closeFiles(files)
	}
}

// drains tells whether who reports finishes what is open, or has done so.
func drains(r link.Report) bool {
	return r.Final || r.State == string(control.StateDraining)
}

// meet takes up the link to a generation that is no neighbour.
func (u *Upgrader) meet(m link.Meet, files []*os.File) (keep bool) {
	if u.peers[m.Generation] != nil || m.Generation == u.number {
		return false
	}
	conn, err := link.New(files[0])
	if err != nil {
		u.log.LogAttrs(u.ctx, slog.LevelError, "link to another generation not opened", slog.Int("generation", m.Generation), slog.Any("err", err))
		closeFiles(files[1:])
		return true
	}
	u.addPeer(&peer{number: m.Generation, pid: m.PID, version: m.Version, conn: conn, pidfd: files[1]})
	closeFiles(files[2:])
	u.step(machine.Met{Number: m.Generation})
	return true
}

// introduce gives a drainer and the new main generation a link to each other.
func (u *Upgrader) introduce(drainer, main int) {
	d, m := u.peers[drainer], u.peers[main]
	if d == nil || m == nil || m.pidfd == nil {
		return
	}
	a, b, err := link.Pair()
	if err != nil {
		// Without it the drainer would be abandoned when we end.
		u.log.LogAttrs(u.ctx, slog.LevelError, "generations not introduced to each other; trying again", slog.Int("generation", drainer), slog.Any("err", err))
		u.after(50*time.Millisecond, func() { u.introduce(drainer, main) })
		return
	}
	defer a.Close()
	defer b.Close()
	// Main first: a drainer that main does not know would be lost, if we died now.
	u.send(main, link.Meet{Generation: drainer, PID: d.pid, Version: d.version, Role: "draining"}, b, d.pidfd)
	u.send(drainer, link.Meet{Generation: main, PID: m.pid, Version: m.version, Role: "main"}, a, m.pidfd)
	if !d.reported.IsZero() {
		u.send(main, d.report) // until it reports there by itself
	}
}
