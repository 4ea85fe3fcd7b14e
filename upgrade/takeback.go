package upgrade

import (
	"errors"
	"log/slog"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/track"
)

// The late fall back: the generation that was confirmed is gone, and its predecessor,
// which still drains, serves again.

// tooLate tells whether our drain cannot be taken back any more, if the generation
// number is the one whose end would have us do so; if it can, nothing that could not
// be undone happens in it from now on.
func (u *Upgrader) tooLate(number int) bool {
	s := u.state
	if s.Life != machine.Draining || s.Stopping || number != s.Lead || number != s.Heir || s.Reserve != 0 {
		return false
	}
	return u.drainage == nil || !u.drainage.reopen()
}

// takeBack makes this generation, which drains, one that serves; the gate opens next.
func (u *Upgrader) takeBack(number int) {
	u.reopen()
	u.cut, u.hurriedUntil = track.Counts{}, time.Time{}
	if u.reportTimer != nil {
		u.reportTimer.Stop()
	}
	u.stopMoving(errors.New("this generation serves again"))
	if u.expectation != nil {
		u.expectation.end()
		u.expectation = nil
	}
	u.note = ""
	u.wg.Go(stepForward)
	u.events.skip()
	u.publish() // before anybody can ask, which is before the step ends
	u.recordTakenBack(number)
}

// recordTakenBack tells the story. How the process has ended is known a moment later.
func (u *Upgrader) recordTakenBack(number int) {
	reason, child := u.fallReason, u.lastChild
	u.fallReason = nil
	r := control.Result{}
	if u.last != nil {
		r = u.last.Result
	}
	waiters := append(u.awaitDrain, u.reloads...)
	u.awaitDrain, u.reloads = nil, nil
	u.wg.Go(func() {
		a := &attempt{number: number, child: child, problem: reason}
		if child != nil {
			a.pid = child.PID()
			await(child.Exited(), outcomeGrace)
		}
		tell := func() {
			cause := u.causeOf(a)
			r.Outcome, r.Phase, r.To, r.From = control.OutcomeFellBack, control.PhaseDraining, number, u.number
			r.ToPID, r.FromPID = a.pid, u.pid
			r.ExitCode, r.Signal = cause.ExitCode, cause.Signal
			r.Error = a.problem
			if r.Error == nil {
				r.Error = control.Errorf(control.CodeFellBack, "generation %d ended after it was confirmed (%s); generation %d, which still drained, serves again", number, cause.text, u.number).
					WithHint("what it printed is in the journal: journalctl _PID=%d", a.pid)
			}
			u.settle(control.Record{Time: time.Now(), Result: r}, u.confirmedFile)
			u.systemd.do(func() { // when it knows who is main
				for _, w := range waiters {
					answer := r
					answer.Total = time.Since(w.began).Seconds()
					w.finish(&answer)
				}
			})
		}
		if !u.box.post(tell) {
			for _, w := range waiters {
				w.finish(u.refusal(machine.Terminating, w.trigger))
			}
		}
	})
	u.log.LogAttrs(u.ctx, slog.LevelError, "the new generation is gone; this one serves again",
		slog.Int("generation", u.number), slog.Int("gone", number))
}

// reopen ends a drain that is taken back.
func (u *Upgrader) reopen() {
	d := u.drainage
	if d == nil {
		return
	}
	u.drainage = nil
	if d.timer != nil {
		d.timer.Stop()
	}
	u.goodbyes.end(u.allListeners())
	d.cancel(ErrReopened)
	u.mu.Lock()
	u.draining = make(chan struct{})
	u.mu.Unlock()
	for _, p := range u.peers { // they were refused meanwhile
		u.closeReceiver(p)
	}
}

// closeReceiver takes no more of p's connections on the way that is open.
func (u *Upgrader) closeReceiver(p *peer) {
	if r := p.receiver; r != nil {
		p.receiver = nil
		u.wg.Go(func() { _ = r.Close() })
	}
}
