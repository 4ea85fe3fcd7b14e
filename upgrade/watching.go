package upgrade

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/coreos/go-systemd/v22/journal"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
	"github.com/hdctl/handoff/upgrade/internal/watch"
)

// An old generation watches the new one as long as it could take its place: that it
// lives, by its pidfd (peer.go), and that it works, by what is in this file. Where a
// process is large its death is reported late, since its memory is freed before, and
// of a hang nobody is told at all.

// How often one looks: closely while the old generation stands by, and later at the
// pace at which it matters.
const (
	watchClosely = 10 * time.Millisecond
	watchLater   = 50 * time.Millisecond
)

// watching is the watch over the successor. It belongs to the driver.
type watching struct {
	number  int
	limits  watch.Limits
	watcher *watch.Watcher
	hung    bool // it is what the machine is told of now
}

// hangs tells whether the successor is known to answer nothing.
func hangs(w *watching) bool { return w != nil && w.hung }

// wanted is who is to be watched in this state, and how.
func (u *Upgrader) wanted() (number int, l watch.Limits, interval time.Duration) {
	s := u.state
	switch c := s.Candidate; {
	case c.Phase == machine.OnStage:
		return c.Number, watch.Limits{Stopped: u.set.hangTimeout, Stalled: u.set.hangTimeout, Queue: true}, watchClosely
	case c.Phase == machine.Probation, c.Phase == machine.Notifying:
		return c.Number, watch.Limits{Stopped: u.set.hangTimeout, Stalled: u.set.hangTimeout}, watchClosely
	case s.Life == machine.Draining && !s.Stopping && s.Lead != 0 && s.Lead == s.Heir:
		return s.Lead, watch.Limits{Stopped: u.set.stoppedTimeout, Stalled: u.set.stoppedTimeout}, watchLater
	}
	return 0, watch.Limits{}, 0
}

// updateWatch begins, changes or ends the watch. The driver calls it after each step.
func (u *Upgrader) updateWatch() {
	number, limits, interval := u.wanted()
	p := u.peers[number]
	w := u.watching
	if w != nil && (p == nil || w.number != number) {
		u.watching = nil
		w.watcher.Stop()
		w = nil
	}
	switch {
	case p == nil:
	case w == nil:
		w = &watching{number: number, limits: limits}
		w.watcher = watch.Start(u.watchTarget(p), limits, interval, func(f watch.Finding) {
			u.box.post(func() { u.found(w, p, f) })
		})
		u.watching = w
	case w.limits != limits:
		w.limits = limits
		w.watcher.Set(limits, interval)
	}
}

// watchTarget is what is known of p: the sockets that it serves, by our descriptors.
func (u *Upgrader) watchTarget(p *peer) watch.Target {
	t := watch.Target{PID: p.pid, Page: p.page}
	for i, s := range u.table.all() {
		if i < pulse.Slots && slices.Contains(p.claimed, s.name) && listening(s.network) {
			t.Sockets = append(t.Sockets, watch.Socket{Slot: i, FD: s.fd, Name: s.name})
		}
	}
	return t
}

// listening tells whether sockets of a network are accepted from.
func listening(network string) bool {
	switch network {
	case "tcp", "unix", "unixpacket":
		return true
	}
	return false
}

// found is what the watch has found. The driver calls it.
func (u *Upgrader) found(w *watching, p *peer, f watch.Finding) {
	if u.watching != w || u.peers[p.number] != p {
		return
	}
	u.log.LogAttrs(u.ctx, slog.LevelDebug, "watch", slog.Int("generation", p.number), slog.String("finding", fmt.Sprintf("%v %s %s", f.Kind, f.Socket, f.Detail)))
	switch {
	case f.Kind == watch.Exiting:
		// All that it has said still comes before its end. That none of it goes on
		// is made sure of.
		u.kill(p.number)
		u.wg.Go(p.died)
	case f.Kind == watch.Recovered:
		u.tellStalled(p, link.Stalled{Socket: f.Socket, Detail: f.Detail, Over: true})
	case u.state.Life == machine.Draining && (f.Kind == watch.Stalled || u.tooLate(p.number)):
		// It runs, and it is main: who is right is not for us to decide. Or it does
		// not, and there is no way back any more.
		u.tellStalled(p, link.Stalled{Socket: f.Socket, Detail: describeFinding(f)})
	default:
		why := control.Errorf(control.CodeHung, "%s; it was killed", describeFinding(f)).
			WithHint("what it printed is in the journal: journalctl _PID=%d; how long is too long: HANDOFF_HANG_TIMEOUT, HANDOFF_STOPPED_TIMEOUT", p.pid)
		if a := u.attempt; a != nil && a.number == p.number {
			if a.problem == nil {
				a.problem = why
			}
			u.events.add(control.Event{Phase: control.PhaseHung, Generation: p.number, PID: p.pid, Message: why.Message})
		} else {
			u.fallReason = why
		}
		w.hung = true
		u.step(machine.Hung{Number: p.number})
	}
}

// describeFinding says what is wrong.
func describeFinding(f watch.Finding) string {
	if f.Kind == watch.Stopped {
		return fmt.Sprintf("its process is stopped (SIGSTOP) for %v", round(f.For))
	}
	return fmt.Sprintf("it accepts nothing on %q for %v although clients wait: %s", f.Socket, round(f.For), f.Detail)
}

// tellStalled reports a serving generation that does not accept, or does again.
func (u *Upgrader) tellStalled(p *peer, m link.Stalled) {
	text := fmt.Sprintf("generation %d (pid %d) does not work: %s", p.number, p.pid, m.Detail)
	priority := journal.PriErr
	if m.Over {
		text, priority = fmt.Sprintf("generation %d (pid %d) goes on: %s", p.number, p.pid, m.Detail), journal.PriNotice
	}
	u.events.add(control.Event{Phase: control.PhaseHung, Generation: p.number, PID: p.pid, Message: text})
	u.toJournal(MessageHung, priority, u.name+": "+text, map[string]string{
		"HANDOFF_GENERATION": fmt.Sprint(p.number), "HANDOFF_REASON": text,
	})
	u.send(p.number, m)
}

// stalled is what the predecessor sees of us. It is in status as long as it lasts.
func (u *Upgrader) stalled(m link.Stalled) {
	text := ""
	if !m.Over {
		text = "the old generation sees this one not work: " + m.Detail
		u.log.LogAttrs(u.ctx, slog.LevelError, text)
	}
	u.events.add(control.Event{Phase: control.PhaseHung, Generation: u.number, PID: u.pid, Message: m.Detail})
	u.stalledText = text
	u.publish()
}
