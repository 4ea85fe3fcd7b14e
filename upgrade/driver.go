package upgrade

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/sdnotify"
)

// drive is the driver: the one goroutine that owns the state of this generation.
// It executes what is posted to it, and never waits for a peer, for systemd, for
// a file system, or for code of the service.
func (u *Upgrader) drive() {
	for {
		<-u.box.wake
		for _, f := range u.box.take() {
			f()
			if u.ended {
				u.box.close()
				return
			}
		}
	}
}

// after has the driver call f later, unless the timer is stopped or the
// generation is over.
func (u *Upgrader) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { u.box.post(f) })
}

// step gives an event to the machine and executes what follows from it.
func (u *Upgrader) step(e machine.Event) {
	before := u.state
	next, effects := machine.Step(before, e)
	u.state = next
	if _, told := e.(machine.Promoted); next.Main && !before.Main && !told {
		u.inherit(u.heard) // of a main that cannot tell any more
	}
	if before.Life != next.Life || before.Main != next.Main || before.Candidate.Phase != next.Candidate.Phase {
		u.log.LogAttrs(u.ctx, slog.LevelDebug, "step", slog.String("event", fmt.Sprintf("%T%+v", e, e)),
			slog.String("life", next.Life.String()), slog.Bool("main", next.Main), slog.String("candidate", next.Candidate.Phase.String()))
	}
	if before.Life != next.Life {
		u.since = time.Now()
	}
	u.publish() // before the effects: who is told by one may look at once
	u.announce(before.Candidate, next.Candidate)
	for _, effect := range effects {
		u.execute(effect)
	}
	if before.Life != machine.Serving && next.Life == machine.Serving {
		u.tellServing()
	}
	if _, told := e.(machine.Promoted); next.Main && !before.Main && !told {
		u.reloadPause() // the one that was main cannot tell any more
		u.tellSuccession(before)
	}
	if next.Main && next.Life == machine.Serving && !next.Held {
		u.adoptFrom(next.Drainers)
	}
	if before.Candidate.Phase != machine.OnStage && next.Candidate.Phase == machine.OnStage {
		u.onStage()
	}
	u.updateWatch()
	u.writePIDs()
	u.publish()
	if u.quitLater && next.Candidate.Phase == machine.Probation {
		u.quitLater = false
		u.box.post(u.quit)
	}
	u.nextInQueue()
	if next.Main && !before.Main {
		u.reloadIfAsked()
	}
}

// tellSuccession says why this generation is main although nobody has confirmed it:
// the one before it has died. One that takes over again tells more (takeBack).
func (u *Upgrader) tellSuccession(before machine.State) {
	was := "on probation"
	switch before.Life {
	case machine.Staged:
		was = "staged"
	case machine.Draining:
		return
	}
	text := fmt.Sprintf("generation %d died while generation %d (%s) was %s, which serves all now", before.Lead, u.number, u.opts.Version, was)
	u.events.add(control.Event{Phase: control.PhaseServing, Generation: u.number, PID: u.pid, Message: text})
	u.log.LogAttrs(u.ctx, slog.LevelError, text)
}

// announce tells those who watch how far an upgrade is.
func (u *Upgrader) announce(before, now machine.Candidate) {
	if before.Phase == now.Phase || u.attempt == nil {
		return
	}
	a := u.attempt
	e := control.Event{Phase: phaseName(now.Phase), Generation: now.Number, PID: a.pid}
	switch now.Phase {
	case machine.Preflight:
		e.Message = "checking " + u.describeProgram(a)
	case machine.Spawning:
		e.Message = fmt.Sprintf("starting generation %d", now.Number)
	case machine.Greeting:
		e.Message = fmt.Sprintf("generation %d runs as pid %d", now.Number, a.pid)
	case machine.Preparing:
		e.Message = fmt.Sprintf("generation %d (%s) said hello, waiting until it is ready", now.Number, a.version)
	case machine.Opening:
		if before.Phase != machine.OnStage {
			return
		}
		e.Phase = control.PhaseStaged // the last word of it
		e.Message = fmt.Sprintf("generation %d (%s) is promoted and gets everything%s", now.Number, a.version, a.word)
	case machine.Probation:
		if now.Manual {
			e.Message = fmt.Sprintf("generation %d serves, and generation %d stands by until it is told to quit or to take back", now.Number, u.number)
			break
		}
		e.Message = fmt.Sprintf("generation %d serves since %v after the start, on probation for %v", now.Number, round(a.serving), u.set.probation)
	case machine.Notifying:
		e.Message = "telling systemd of the new main process"
	default:
		return
	}
	u.events.add(e)
}

// timerLength is how long a timer of the machine runs; 0 is for ever.
func (u *Upgrader) timerLength(t machine.Timer) time.Duration {
	switch t {
	case machine.ReadyTimer:
		return u.set.readyTimeout
	case machine.RequestTimer:
		if a := u.attempt; a != nil && !a.deadline.IsZero() {
			return max(time.Until(a.deadline), time.Nanosecond)
		}
		return 0
	case machine.OpenTimer:
		return openTimeout
	case machine.ProbationTimer:
		return max(u.set.probation, time.Nanosecond)
	case machine.KillTimer:
		return outcomeGrace
	case machine.GoodbyeTimer:
		return u.set.stopTimeout + goodbyeSlack
	case machine.StageTimer:
		if a := u.attempt; a != nil && a.stage != nil {
			return a.stage.timeout
		}
	case machine.RetireTimer:
		return retireTimeout
	}
	return 0
}

func (u *Upgrader) arm(t machine.Timer) {
	u.disarm(t)
	length := u.timerLength(t)
	if length == 0 {
		return
	}
	var timer *time.Timer
	timer = u.after(length, func() {
		if u.timers[t] == timer { // not stopped in the meantime
			delete(u.timers, t)
			if t == machine.StageTimer {
				u.stageExpired()
			}
			u.step(machine.Fired{Timer: t})
		}
	})
	u.timers[t] = timer
}

func (u *Upgrader) disarm(t machine.Timer) {
	if timer := u.timers[t]; timer != nil {
		timer.Stop()
		delete(u.timers, t)
	}
}

// execute does what the machine wants done.
func (u *Upgrader) execute(effect machine.Effect) {
	switch e := effect.(type) {
	case machine.OpenGate:
		u.openGates()
	case machine.CloseGate:
		u.closeGates()
	case machine.Lead:
		u.lead()
	case machine.Yield:
		u.yield()
	case machine.Drain:
		u.drain(e.Stop)
	case machine.Hasten:
		u.limitDrain(u.hurriedUntil)
	case machine.HoldDrain:
		u.holdDrain()
	case machine.EndHold:
		u.endHold()
	case machine.TakeBack:
		u.takeBack(e.Number)
	case machine.Share:
		u.startSharing()
	case machine.EndShare:
		u.endSharing()
	case machine.Exit:
		u.exit(e)
	case machine.Arm:
		u.arm(e.Timer)
	case machine.Disarm:
		u.disarm(e.Timer)

	case machine.NotifyReady:
		u.systemd.notify(sdnotify.Ready, sdnotify.Status(servingText(u.number, u.opts.Version)))
	case machine.NotifyMain:
		u.notifyMain(e.Number)
	case machine.NotifyStopping:
		u.systemd.stopping(u.notified.begun > 0)

	case machine.Check:
		u.check()
	case machine.Spawn:
		u.spawn(e.Number)
	case machine.Cancel:
		if u.attempt != nil {
			u.attempt.cancel()
		}
	case machine.Kill:
		u.kill(e.Number)
	case machine.TellReady:
		u.send(u.state.Lead, link.Ready{Claimed: u.claimedNames()})
	case machine.TellServing:
		u.send(u.state.Lead, link.Serving{})
		u.reportOpen()
	case machine.TellStage:
		u.send(e.Number, link.Stage{})
	case machine.TellStaged:
		u.takeShare()
	case machine.TellRetire:
		u.send(e.Number, link.Retire{})
	case machine.TellServe:
		u.send(e.Number, link.Serve{})
	case machine.TellPromoted:
		u.tellPromoted(e.Number)
	case machine.TellNumbers:
		u.send(e.Number, link.Numbers{Next: e.Next, Covered: e.Covered, Totals: u.tally().encode()})
	case machine.TellStopping:
		u.tellStopping()
	case machine.TellHurry:
		u.send(e.Number, link.Hurry{DeadlineUnixNano: time.Now().Add(hurryTimeout).UnixNano()})
	case machine.Introduce:
		u.introduce(e.Drainer, e.Main)
	case machine.Report:
		u.report(e)
	}
}

func (u *Upgrader) openGates() {
	u.mu.Lock()
	listeners, packets := u.listeners, u.packets
	u.mu.Unlock()
	serving := func() bool { return u.state.Life == machine.Serving && !u.state.Held }
	for _, l := range listeners {
		u.openGate(l.open, serving)
	}
	for _, p := range packets {
		u.openGate(p.gate.Open, serving)
	}
}

func (u *Upgrader) closeGates() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, l := range u.listeners {
		l.pause()
	}
	for _, p := range u.packets {
		p.gate.Pause()
	}
}

// servingText is systemd's status text while a generation serves.
func servingText(number int, version string) string {
	return fmt.Sprintf("generation %d (%s) serving", number, version)
}

// tellServing lets Ready return, and says that this generation serves.
func (u *Upgrader) tellServing() {
	u.log.LogAttrs(u.ctx, slog.LevelInfo, "serving", slog.Int("generation", u.number), slog.Int("pid", u.pid), slog.String("version", u.opts.Version))
	if u.state.Main { // the first one, or one that serves again, after its successor failed
		u.events.add(control.Event{Phase: control.PhaseServing, Generation: u.number, PID: u.pid, Message: servingText(u.number, u.opts.Version)})
	}
	u.systemd.do(func() { u.servedOnce.Do(func() { close(u.served) }) }) // after READY=1
}

// notifyMain tells systemd of the new main process: the candidate, or, if that
// died in the meantime, this one again.
func (u *Upgrader) notifyMain(number int) {
	pid, version := u.pid, u.opts.Version
	if p := u.peers[number]; p != nil {
		pid, version = p.pid, p.version
	}
	endReload := u.set.notifyReload && pid == u.pid // we take over from one that is gone
	u.systemd.handOver(pid, servingText(number, version), endReload, func(ok bool) {
		u.box.post(func() { u.step(machine.Notified{Number: number, OK: ok, Gone: u.hasEnded(number)}) })
	})
}

// hasEnded tells whether the process of a generation has ended, which its peer
// may not have been heard of yet: what it said last comes first.
func (u *Upgrader) hasEnded(number int) bool {
	if number == u.number {
		return false
	}
	p := u.peers[number]
	return p == nil || p.pidfd != nil && ended(p.pidfd)
}

func (u *Upgrader) kill(number int) {
	p := u.peers[number]
	if p == nil || p.child == nil {
		return
	}
	if err := p.child.Kill(); err != nil {
		u.log.LogAttrs(u.ctx, slog.LevelError, "new generation not killed", slog.Int("generation", number), slog.Int("pid", p.pid), slog.Any("err", err))
	}
}

// retireTimeout is how long a candidate that was rolled back may take to say that it
// drains.
const retireTimeout = 5 * time.Second

// eventsLimit leaves room for the rest of a frame of 64 KiB.
const eventsLimit = 40 << 10

func (u *Upgrader) tellPromoted(number int) {
	m := link.Confirmed{Next: number + 1, Events: u.events.export(eventsLimit), Pause: encodePause(u.paused)}
	counted := u.tally()
	var files []*os.File
	if data, err := json.Marshal(u.ownProgram()); err == nil && u.exe != nil {
		m.Previous = data
		files = append(files, u.exe)
	}
	if a := u.attempt; a != nil {
		a.ended = time.Now() // so that both tell of the same moment
		r := u.result(a, machine.Report{Outcome: machine.Confirmed, Number: number})
		m.Last = encodeRecord(control.Record{Time: a.ended, Result: *r})
		counted.Settled = countUpgrade(counted.Settled, r)
	}
	m.Totals, u.heard = counted.encode(), &counted
	// Our first report comes before, so that its very first status knows of us.
	r := u.newReport()
	r.Since = time.Now().UnixNano()
	if u.set.drainTimeout > 0 {
		r.Deadline = time.Now().Add(u.set.drainTimeout).UnixNano()
	}
	u.send(number, r)
	u.send(number, m, files...)
}

func (u *Upgrader) tellStopping() {
	u.log.LogAttrs(u.ctx, slog.LevelInfo, "stopping", slog.Int("generation", u.number))
	if u.state.Main {
		u.events.add(control.Event{Phase: control.PhaseStopping, Generation: u.number, PID: u.pid, Message: "the service is being stopped"})
	}
	deadline := time.Now().Add(u.set.stopTimeout)
	for number := range u.peers {
		u.send(number, link.Stopping{Reason: "stop", DeadlineUnixNano: deadline.UnixNano()})
	}
}

// confirmed is the end of our probation, with what the predecessor remembers.
func (u *Upgrader) confirmed(m link.Confirmed, files []*os.File) (keep bool) {
	keep = u.adoptPrevious(m.Previous, files)
	u.adoptPause(m.Pause)
	u.adoptTotals(m)
	for _, p := range u.peers { // connections come by another way from now on
		u.closeReceiver(p)
	}
	u.events.adopt(m.Events)
	u.last = decodeRecord(m.Last)
	if u.last != nil {
		u.events.add(control.Event{Phase: control.PhaseConfirmed, Generation: u.number, PID: u.pid, Message: describeResult(&u.last.Result)})
	}
	u.step(machine.Promoted{})
	return keep
}

func (u *Upgrader) claimedNames() []string {
	var names []string
	for _, s := range u.table.all() {
		if s.claimed {
			names = append(names, s.name)
		}
	}
	return names
}
