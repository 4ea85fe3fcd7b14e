package upgrade

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
	"github.com/hdctl/handoff/upgrade/internal/sdnotify"
	"github.com/hdctl/handoff/upgrade/internal/verdict"
)

// stage is what an attempt has that is staged. It belongs to the driver.
type stage struct {
	percent  float64 // of the new connections
	timeout  time.Duration
	deadline time.Time // zero: none
	since    time.Time // of the present share
	share    *share    // nil: the candidate has not opened the way yet
	auto     *autopilot

	// What the two had done when the share was set, and when the first one was.
	ours, theirs           pulse.Sample
	oursFirst, theirsFirst pulse.Sample
	first                  time.Time
}

// newStage is nil for a request without a stage.
func (u *Upgrader) newStage(req control.UpgradeRequest) *stage {
	st := &stage{percent: req.Stage, timeout: u.set.stageTimeout}
	switch {
	case req.Auto != nil:
		st.auto = newAutopilot(*req.Auto)
		st.percent, st.timeout = st.auto.steps[0].Share, 0 // it ends by itself
	case req.Stage <= 0:
		return nil
	case req.StageTimeout > 0:
		st.timeout = durationOf(req.StageTimeout)
	}
	return st
}

// setStage sets the share of the new generation. The driver calls it.
func (u *Upgrader) setStage(percent float64) {
	a := u.attempt
	st := a.stage
	st.percent, st.since = percent, time.Now()
	st.share.setShare(percent)
	st.ours, st.theirs = u.page.Sample(), u.pageOf(a.number).Sample()
	if st.first.IsZero() {
		st.first, st.oursFirst, st.theirsFirst = st.since, st.ours, st.theirs
	}
	text := fmt.Sprintf("generation %d (%s) gets %s%s", a.number, a.version, describeShare(percent), a.word)
	u.events.add(control.Event{Phase: control.PhaseStaged, Generation: a.number, PID: a.pid, Message: text})
	u.systemd.notify(sdnotify.Status(servingText(u.number, u.opts.Version) + "; " + text))
	u.log.LogAttrs(u.ctx, slog.LevelInfo, "staged", slog.Int("generation", a.number), slog.Int("pid", a.pid), slog.Float64("percent", percent))
	u.publish()
}

// pageOf returns the pulse page of another generation; nil if there is none.
func (u *Upgrader) pageOf(number int) *pulse.Page {
	if p := u.peers[number]; p != nil {
		return p.page
	}
	return nil
}

// onStage is the moment in which the candidate gets its share: who asked for that is
// answered; an automatic upgrade goes on.
func (u *Upgrader) onStage() {
	a := u.attempt
	if a == nil || a.stage == nil || a.stage.share == nil {
		return
	}
	u.refuseQueue()
	if a.stage.auto != nil {
		u.startAutopilot()
		return
	}
	u.limitStage()
	u.answerStaged(a.waiters)
	a.waiters = nil
	u.publish()
}

// limitStage has the upgrade rolled back if nobody decides about it in time.
func (u *Upgrader) limitStage() {
	if st := u.attempt.stage; st.timeout > 0 {
		st.deadline = time.Now().Add(st.timeout)
	}
	u.arm(machine.StageTimer)
}

func (u *Upgrader) answerStaged(waiters []*waiter) {
	for _, w := range waiters {
		w.finish(u.stagedResult())
	}
}

// stagedResult is the result of an upgrade that has got so far, and not further.
func (u *Upgrader) stagedResult() *control.Result {
	a := u.attempt
	r := u.begunResult(a)
	r.Outcome, r.Phase = control.OutcomeStaged, control.PhaseStaged
	return r
}

// health compares how the two generations of a staged upgrade have answered since
// the share was set.
func (v *view) health(number, own int) *control.Health {
	st := v.staged
	if st == nil {
		return nil
	}
	var s pulse.Sample
	switch number {
	case own:
		s = st.ourPage.Sample().Minus(st.ours)
	case st.number:
		s = st.theirPage.Sample().Minus(st.theirs)
	default:
		return nil
	}
	h := verdict.Health(s, time.Since(st.since))
	return &h
}

// stagedView is what status needs of a stage.
type stagedView struct {
	number             int
	share              *share
	since              time.Time
	ourPage, theirPage *pulse.Page
	ours, theirs       pulse.Sample
	progress           control.Stage
}

func (u *Upgrader) viewStage() *stagedView {
	a := u.attempt
	if a == nil || a.stage == nil || u.state.Candidate.Phase != machine.OnStage || a.stage.share == nil {
		return nil
	}
	st := a.stage
	v := &stagedView{
		number: a.number, share: st.share, since: st.since, ourPage: u.page, theirPage: u.pageOf(a.number),
		ours: st.ours, theirs: st.theirs,
		progress: control.Stage{Share: st.percent, Since: st.since, Deadline: st.deadline},
	}
	if st.auto != nil {
		v.progress.Auto = st.auto.describe(u.paused != nil)
	}
	return v
}

// progressStage is the stage of a status.
func (v *view) progressStage() *control.Stage {
	if v.staged == nil {
		return nil
	}
	p := v.staged.progress
	p.Passed, p.Kept = v.staged.share.counts()
	return &p
}

// Promote gives a staged generation more, or all.
func (b backend) Promote(ctx context.Context, req control.PromoteRequest, p controld.Peer, emit func(control.Event)) *control.Result {
	w := b.u.newWaiter(control.UpgradeRequest{Wait: req.Wait, Timeout: req.Timeout}, triggerOf(p, req.Via, req.Reason))
	return answerOf(b.u.await(ctx, w, func(w *waiter) { b.u.promote(w, req.Share) }, emit))
}

// promote is the request of w. The driver calls it.
func (u *Upgrader) promote(w *waiter, percent float64) {
	a := u.attempt
	switch s := u.state; {
	case !s.Main || s.Stopping || s.Life == machine.Exited:
		w.finish(u.notNow(w.trigger))
		return
	case a != nil && s.Candidate.Phase == machine.Probation && s.Candidate.Manual:
		// It has everything already; what is missing is the word that it stays so.
		w.begins(u.events.last())
		a.waiters = append(a.waiters, w)
		u.step(machine.Confirm{})
		return
	case a == nil || s.Candidate.Phase != machine.OnStage || a.stage.share == nil:
		e := control.Errorf(control.CodeNotStaged, "no staged upgrade is in progress").
			WithHint("begin one: hdctl upgrade --stage 5%% %s", u.name)
		if s.Candidate.Phase != machine.None {
			e = u.refusal(machine.InProgress, w.trigger).Error
		}
		w.finish(refused(w.trigger, u.number, e))
		return
	}
	w.begins(u.events.last())
	a.word = wordOf(w.trigger)
	if a.stage.auto != nil {
		// The operator decides now.
		a.stage.auto.stop()
		a.stage.auto = nil
		a.stage.timeout = u.set.stageTimeout
		u.limitStage()
	}
	if percent > 0 {
		u.answerStaged(a.waiters) // of an automatic one that is not any more
		a.waiters = nil
		u.setStage(percent)
		w.finish(u.stagedResult())
		return
	}
	a.waiters = append(a.waiters, w)
	u.step(machine.Promote{})
}

// wordOf is how an operator's word about an upgrade came: ", via hdctl: the reason".
func wordOf(t control.Trigger) string {
	text := ", via " + t.Via
	if t.Reason != "" {
		text += ": " + t.Reason
	}
	return text
}

// Rollback ends the upgrade in progress in favour of the old generation, or runs the
// previous version again.
func (b backend) Rollback(ctx context.Context, req control.RollbackRequest, p controld.Peer, emit func(control.Event)) *control.Result {
	w := b.u.newWaiter(control.UpgradeRequest{Wait: req.Wait, Timeout: req.Timeout, Reason: req.Reason}, triggerOf(p, req.Via, req.Reason))
	return answerOf(b.u.await(ctx, w, b.u.rollBack, emit))
}

// rollBack is the request of w. The driver calls it.
func (u *Upgrader) rollBack(w *waiter) {
	switch s := u.state; {
	case !s.Main || s.Stopping || s.Life == machine.Exited:
		w.finish(u.notNow(w.trigger))
	case s.Candidate.Phase == machine.None && u.attempt == nil:
		u.rollBackToPrevious(w)
	case u.decided():
		w.finish(u.refusal(machine.InProgress, w.trigger))
	default:
		u.attempt.waiters = append(u.attempt.waiters, w)
		w.begins(u.events.last())
		u.takeBackRequest(w.trigger)
	}
}

// decided tells whether it is decided what becomes of the upgrade in progress.
func (u *Upgrader) decided() bool {
	c := u.state.Candidate
	return u.attempt == nil || c.Doom != machine.Undecided || c.Stopped || c.Phase >= machine.Notifying
}

// takeBackRequest ends the upgrade in progress because somebody wants that, unless it
// is decided.
func (u *Upgrader) takeBackRequest(t control.Trigger) {
	if u.decided() {
		return
	}
	if a := u.attempt; a.problem == nil {
		text := "rolled back via " + t.Via
		if t.Reason != "" {
			text += ": " + t.Reason
		}
		a.problem = control.Errorf(control.CodeRolledBack, "%s", text)
	}
	u.step(machine.Rollback{})
}

// notNow is why this generation decides nothing.
func (u *Upgrader) notNow(t control.Trigger) *control.Result {
	if u.state.Stopping || u.state.Life == machine.Exited {
		return u.refusal(machine.Terminating, t)
	}
	return u.refusal(machine.NotMain, t)
}

// takeShare opens the way for the share of a staged generation, which is this one,
// and lets Ready return.
func (u *Upgrader) takeShare() {
	p := u.peers[u.state.Lead]
	if p == nil {
		return
	}
	if err := u.openTransfer(p); err != nil { // the predecessor waits, but not for ever
		u.log.LogAttrs(u.ctx, slog.LevelError, "the way for connections is not open", slog.Any("err", err))
		return
	}
	u.send(p.number, link.Staged{})
	u.reportOpen()
	u.log.LogAttrs(u.ctx, slog.LevelInfo, "staged", slog.Int("generation", u.number), slog.Int("pid", u.pid), slog.String("version", u.opts.Version))
	u.servedOnce.Do(func() { close(u.served) })
}

// stageExpired is why an upgrade on which nobody has decided is rolled back.
func (u *Upgrader) stageExpired() {
	if a := u.attempt; a != nil && a.stage != nil && a.problem == nil {
		a.problem = control.Errorf(control.CodeRolledBack, "nobody has promoted it within %v", a.stage.timeout).
			WithHint("a longer time: hdctl upgrade --stage-timeout, or HANDOFF_STAGE_TIMEOUT")
	}
}

// failedStage is why a staged upgrade has failed.
func failedStage(why string) *control.Error {
	return control.Errorf(control.CodeStartFailed, "the new generation cannot be staged: %s", why)
}

// answerOf makes the answer to who waits no longer.
func answerOf(r *control.Result, err error) *control.Result {
	if err != nil {
		return &control.Result{Outcome: control.OutcomeUnknown, Error: control.Errorf(control.CodeUnknown, "%v", err)}
	}
	return r
}
