package upgrade

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/preflight"
	"github.com/hdctl/handoff/upgrade/internal/pulse"
	"github.com/hdctl/handoff/upgrade/internal/sdnotify"
	"github.com/hdctl/handoff/upgrade/internal/spawn"
)

// attempt is an upgrade in progress. It belongs to the driver.
type attempt struct {
	number   int
	began    time.Time
	ended    time.Time // zero: not yet
	deadline time.Time // of the request; zero: none
	trigger  control.Trigger
	waiters  []*waiter

	ctx    context.Context // of the slow steps; ends with cancel
	cancel context.CancelFunc

	program program
	stage   *stage // nil: not staged
	word    string // of the operator who has promoted it, see wordOf
	beside  bool   // started by nginx's signal
	checks  []control.Check
	verdict *control.Verdict
	digest  string // of the file
	closing []*os.File

	file    fileID         // of what is being tried
	problem *control.Error // what went wrong, where more is known than how the process ended
	child   spawn.Child
	pid     int
	version string
	serving time.Duration // from began until it served
}

// outcomeGrace is how long a result waits for the exit status and the last lines
// of a process that is gone or was killed.
const outcomeGrace = 2 * time.Second

// openTimeout is how long a candidate that was told to accept may take to say
// that it does.
const openTimeout = 5 * time.Second

// goodbyeSlack is what a candidate that was stopped may take beyond StopTimeout.
const goodbyeSlack = 2 * time.Second

// check looks at the file, away from the driver: file systems can be slow.
func (u *Upgrader) check() {
	a := u.attempt
	a.digest = a.program.digest
	path, needed := a.program.path(u), u.needed(a.program)
	u.wg.Go(func() {
		id := identify(path)
		if needed.File != nil {
			id = fileID{} // what is at the path is something else
		}
		var checks []control.Check
		failed := u.checkContent(a.program)
		if failed == nil {
			checks = preflight.Run(a.ctx, needed)
			failed = checkFailed(checks)
		}
		u.box.post(func() {
			a.file = id
			if failed != nil && a.ctx.Err() == nil && a.problem == nil {
				a.problem = failed
				a.checks = slices.DeleteFunc(checks, func(c control.Check) bool { return c.Result == control.CheckOK })
			}
			u.step(machine.Checked{OK: failed == nil})
		})
		if failed == nil && needed.File == nil {
			digest := u.digestOf(path)
			u.box.post(func() { a.digest = digest })
		}
	})
}

// spawn starts the candidate's process.
func (u *Upgrader) spawn(number int) {
	a := u.attempt
	conn, child, err := u.prepareLink()
	if err != nil {
		a.problem = control.Errorf(control.CodeInternal, "%v", err).
			WithHint("the service has too few file descriptors left (LimitNOFILE=), see hdctl status")
		u.box.post(func() { u.step(machine.Spawned{}) })
		return
	}
	described, files := u.table.export()
	hello := u.hello()
	hello.Generation = number
	hello.Predecessor = &link.Peer{Generation: u.number, PID: u.pid, Version: u.opts.Version}
	hello.Notify, hello.Control, hello.Sockets = u.env.notify, u.controlPath, described
	hello.Totals = u.tally().encode()
	if a.program.File != nil {
		hello.Program = a.program.Path
	}
	hello.WatchdogUsec = uint64(u.env.watchdog.Microseconds())
	fd, err := rawFD(child)
	page := u.newPage()
	if err == nil {
		with := []*os.File{u.pidfd}
		if page != nil {
			with = append(with, page.File())
		}
		err = conn.Send(hello, with...) // the successor finds it when it looks
	}
	files = append(files, spawn.File{Name: keyLink, FD: fd})
	if u.controlFD >= 0 {
		files = append(files, spawn.File{Name: keyControl, FD: u.controlFD})
	}
	last := u.lastChild
	if last != nil && !isClosed(last.Exited()) {
		u.events.add(control.Event{
			Phase: control.PhaseStart, Generation: number,
			Message: fmt.Sprintf("waiting for the end of the process that was started before (pid %d)", last.PID()),
		})
	}
	u.wg.Go(func() {
		defer child.Close()
		var process spawn.Child
		if err == nil {
			u.awaitLast(a.ctx, last)
			process, err = u.spawner.Start(a.ctx, files, a.program.Program)
		}
		u.box.post(func() { u.spawned(a, conn, page, process, err) })
	})
}

// awaitLast waits until the process that was started last is gone: there can be one at
// a time. One that was killed takes a moment. One that was rolled back was told to
// hurry, and is killed if it does not.
func (u *Upgrader) awaitLast(ctx context.Context, last spawn.Child) {
	if last == nil {
		return
	}
	limit := hurryTimeout + goodbyeGrace + 2*cutGrace + lastWords
	if u.set.readyTimeout > 0 { // the new one needs some of it
		limit = min(limit, u.set.readyTimeout/2)
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-last.Exited():
		return
	case <-ctx.Done():
		return
	case <-timer.C:
	}
	u.log.LogAttrs(ctx, slog.LevelWarn, "the generation that was rolled back does not end; killing it", slog.Int("pid", last.PID()))
	if err := last.Kill(); err != nil {
		u.log.LogAttrs(ctx, slog.LevelError, "it was not killed", slog.Any("err", err))
	}
	select {
	case <-last.Exited():
	case <-ctx.Done():
	}
}

// newPage makes the page in which one sees what the successor does; nil if that
// fails: it is not watched as closely then.
func (u *Upgrader) newPage() *pulse.Page {
	page, err := pulse.New()
	if err != nil {
		u.log.LogAttrs(u.ctx, slog.LevelWarn, "a hang of the new generation cannot be seen", slog.Any("err", err))
		return nil
	}
	return page
}

func (u *Upgrader) prepareLink() (*link.Conn, *os.File, error) {
	ours, theirs, err := link.Pair()
	if err != nil {
		return nil, nil, err
	}
	conn, err := link.New(ours)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// rawFD returns the number of f, which stays f's, and stays non-blocking.
func rawFD(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}

func (u *Upgrader) spawned(a *attempt, conn *link.Conn, page *pulse.Page, process spawn.Child, err error) {
	if err != nil {
		_ = conn.Close()
		_ = page.Close()
		if a.problem == nil && a.ctx.Err() == nil {
			a.problem = control.Errorf(control.CodeStartFailed, "%v", err)
		}
		u.step(machine.Spawned{})
		return
	}
	a.child, a.pid = process, process.PID()
	u.lastChild = process
	u.addPeer(&peer{number: a.number, pid: a.pid, conn: conn, child: process, page: page})
	u.step(machine.Spawned{OK: true})
}

// greet is the hello of a neighbour: of the candidate, which we may refuse.
func (u *Upgrader) greet(p *peer, m link.Hello, files []*os.File) (keep bool) {
	a := u.attempt
	if a == nil || p.number != a.number || p.pidfd != nil {
		return false
	}
	if _, err := link.Negotiate(link.Supported(), m.Range()); err != nil {
		u.send(p.number, link.Refuse{Code: control.CodeIncompatible, Message: err.Error()})
		a.problem = control.Errorf(control.CodeIncompatible, "%v", err).
			WithHint("restart the service once to get over this: systemctl restart %s", u.name)
		u.step(machine.Greeted{})
		return false
	}
	if len(files) != 1 || m.PID != p.pid {
		a.problem = control.Errorf(control.CodeStartFailed,
			"the process that said hello has PID %d, the one that was started %d; the program must not fork", m.PID, p.pid)
		u.step(machine.Greeted{})
		return false
	}
	p.pidfd, p.version, a.version = files[0], m.Version, m.Version
	u.watch(p)
	u.step(machine.Greeted{OK: true})
	return true
}

// refused is a no of the candidate.
func (u *Upgrader) refused(p *peer, m link.Refuse) {
	u.log.LogAttrs(u.ctx, slog.LevelWarn, "refused by another generation", slog.Int("generation", p.number), slog.String("reason", m.Message))
	if a := u.attempt; a != nil && p.number == a.number && a.problem == nil {
		a.problem = control.Errorf(m.Code, "%s", m.Message)
		u.step(machine.Greeted{})
	}
}

func (u *Upgrader) candidateReady(p *peer) {
	a := u.attempt
	if a == nil || p.number != a.number {
		return
	}
	late := a.stage == nil && // otherwise its probation is not what is asked for
		!a.deadline.IsZero() && time.Until(a.deadline) < u.set.probation
	if late {
		a.problem = control.Errorf(control.CodeTimedOut,
			"it was ready after %v, too late for the deadline of the request with %v of probation to come",
			round(time.Since(a.began)), u.set.probation).WithHint("give it more time: --timeout")
	}
	u.step(machine.CandidateReady{Late: late})
}

func (u *Upgrader) candidateServing(p *peer) {
	if a := u.attempt; a != nil && p.number == a.number {
		a.serving = time.Since(a.began)
		u.step(machine.CandidateServing{})
	}
}

// report ends the upgrade request, or refuses one.
func (u *Upgrader) report(e machine.Report) {
	if e.Number == 0 {
		if w := u.asking; w != nil {
			u.asking = nil
			w.finish(u.refusal(e.Outcome, w.trigger))
		}
		return
	}
	a := u.attempt
	if a == nil || a.number != e.Number {
		return
	}
	u.attempt, u.quitLater = nil, false
	closeFiles(a.closing)
	a.cancel()
	if e.Outcome == machine.Confirmed || livesOn(e) {
		u.finishAttempt(a, e)
		return
	}
	// The rest of the story comes with the end of the process.
	u.wg.Go(func() {
		if a.child != nil {
			timer := time.NewTimer(outcomeGrace)
			defer timer.Stop()
			select {
			case <-a.child.Exited():
			case <-timer.C:
			case <-u.ending:
			}
		}
		if !u.box.post(func() { u.finishAttempt(a, e) }) {
			for _, w := range a.waiters {
				w.answer(u.result(a, e))
			}
		}
	})
}

// livesOn tells whether the new process has been told to finish what its clients have
// open, as one that was rolled back is.
func livesOn(e machine.Report) bool {
	return e.Outcome == machine.RolledBack && e.At >= machine.OnStage
}

// begunResult is what there is to say of an upgrade whatever becomes of it.
func (u *Upgrader) begunResult(a *attempt) *control.Result {
	r := &control.Result{
		From: u.number, To: a.number, FromPID: u.pid, ToPID: a.pid, FromVersion: u.opts.Version,
		Version: a.version, Trigger: a.trigger, Serving: a.serving.Seconds(), Total: time.Since(a.began).Seconds(),
		FromDigest: u.ownDigest, ToDigest: a.digest, Rollback: a.program.rollback, Verdict: a.verdict,
	}
	if a.program.Path != "" {
		r.Binary = a.program.Path
	}
	return r
}

// cause is how a process has ended.
type cause struct {
	text     string
	ExitCode *int
	Signal   string
}

// causeOf says how the process of an attempt has ended.
func (u *Upgrader) causeOf(a *attempt) (c cause) {
	if a.child == nil {
		return c
	}
	select {
	case <-a.child.Exited():
		exit := a.child.Exit()
		switch {
		case exit.Err != nil:
			c.text = exit.Err.Error()
		case exit.Signal != 0:
			c.Signal = unix.SignalName(exit.Signal)
			c.text = "killed by " + c.Signal
		default:
			c.ExitCode = &exit.Code
			c.text = fmt.Sprintf("exit status %d", exit.Code)
		}
	default:
		c.text = "it was killed, but is not gone yet"
	}
	return c
}

// result puts together what there is to say of an upgrade that has ended.
func (u *Upgrader) result(a *attempt, e machine.Report) *control.Result {
	r := u.begunResult(a)
	if e.Outcome == machine.Confirmed {
		r.Outcome, r.Confirmed = control.OutcomeConfirmed, r.Total
		return r
	}
	r.Phase, r.Checks = phaseName(e.At), a.checks
	if a.child != nil {
		r.Output = a.child.Output()
	}
	var ended cause
	if !livesOn(e) {
		ended = u.causeOf(a)
	}
	r.ExitCode, r.Signal = ended.ExitCode, ended.Signal
	text, code, hint := ended.text, control.CodeStartFailed, ""
	switch e.Outcome {
	case machine.TimedOut:
		r.Outcome, code = control.OutcomeTimedOut, control.CodeTimedOut
		text = fmt.Sprintf("not %s within %v; it was killed", goalOf(e.At), round(time.Since(a.began)))
		hint = "if it needs more time, raise HANDOFF_READY_TIMEOUT (and TimeoutStartSec= with it)"
	case machine.FellBack:
		r.Outcome, code = control.OutcomeFellBack, control.CodeFellBack
		hint = fmt.Sprintf("what it printed once it was ready is in the journal: journalctl _PID=%d", a.pid)
	case machine.RolledBack:
		r.Outcome, code, text = control.OutcomeRolledBack, control.CodeRolledBack, "rolled back"
		if a.problem != nil && a.problem.Code == control.CodeInconclusive {
			r.Outcome = control.OutcomeInconclusive
		}
		if a.problem != nil && a.problem.Code == control.CodeStartFailed { // it could not be staged
			r.Outcome = control.OutcomeFailed
		}
	case machine.Stopped:
		r.Outcome, code, text = control.OutcomeStopped, control.CodeStopping, "the service is being stopped"
	case machine.Unnotified:
		r.Outcome, code, text = control.OutcomeFailed, control.CodeNotify, "systemd could not be told of the new main process"
	default:
		r.Outcome = control.OutcomeFailed
		switch {
		case e.At == machine.Probation: // any other end there is one to fall back from
			text = "it was told to stop (SIGTERM)"
		case r.ExitCode != nil && *r.ExitCode == 0 && e.At != machine.OnStage:
			text += " before it served"
		}
	}
	r.Error = a.problem
	if r.Error == nil {
		r.Error = &control.Error{Code: code, Message: text, Hint: hint}
	}
	return r
}

// goalOf is what a candidate that ran out of time had not done.
func goalOf(p machine.Phase) string {
	switch p {
	case machine.Preflight:
		return "checked"
	case machine.Spawning:
		return "started"
	case machine.Staging, machine.Opening:
		return "accepting"
	}
	return "ready"
}

// phaseName translates a phase of the machine for the API.
func phaseName(p machine.Phase) string {
	switch p {
	case machine.Preflight:
		return control.PhasePreflight
	case machine.Spawning, machine.Greeting:
		return control.PhaseStart
	case machine.Preparing, machine.Staging, machine.Opening:
		return control.PhaseReady
	case machine.OnStage:
		return control.PhaseStaged
	case machine.Probation:
		return control.PhaseProbation
	case machine.Notifying, machine.Reclaiming, machine.Restoring:
		return control.PhaseConfirm
	}
	return p.String()
}

// finishAttempt tells everybody how an upgrade ended.
func (u *Upgrader) finishAttempt(a *attempt, e machine.Report) {
	r := u.result(a, e)
	if a.ended.IsZero() {
		a.ended = time.Now()
	}
	u.settle(control.Record{Time: a.ended, Result: *r}, a.file)
	confirmed := r.Outcome == control.OutcomeConfirmed
	for _, w := range a.waiters {
		switch {
		case confirmed && w.req.Wait == control.WaitDrained:
			w.confirmed = r
			u.awaitDrain = append(u.awaitDrain, w)
		case confirmed && w.trigger.Via == control.ViaSystemctl:
			w.confirmed = r
			u.reloads = append(u.reloads, w)
		default:
			w.finish(r)
		}
	}
	if len(u.reloads) > 0 {
		u.after(reloadDelay, u.endReloads)
	}
}

// reloadDelay is how long systemd has to wait for the end of a reload whose upgrade is
// confirmed. At that end it looks at the main process, and ends the service if that is
// dead; of which it does not hear otherwise, as long as we live and can take back. A
// version that dies as soon as it is main does so within this time, and we have told
// systemd better by then.
const reloadDelay = 150 * time.Millisecond

// endReloads lets reloads end, whose upgrade is confirmed. The driver calls it.
func (u *Upgrader) endReloads() {
	for _, w := range u.reloads {
		w.finish(w.confirmed)
	}
	u.reloads = nil
}

// settle puts an upgrade that has ended, with file, on record: in status, events,
// log, journal, history, and systemd's status text.
func (u *Upgrader) settle(record control.Record, file fileID) {
	u.last = &record
	r := &record.Result
	u.totals = countUpgrade(u.totals, r)
	u.tellTotals() // before anybody can see it
	confirmed := r.Outcome == control.OutcomeConfirmed
	phase, level := control.PhaseFailed, slog.LevelError
	u.failedFile = file
	switch {
	case confirmed:
		phase, level = control.PhaseConfirmed, slog.LevelInfo
		u.failedFile, u.confirmedFile = fileID{}, file
	case r.Outcome == control.OutcomeFellBack && r.Phase == control.PhaseDraining:
		phase = control.PhaseFellBack
	case r.Outcome == control.OutcomeStopped:
		level = slog.LevelInfo
	case r.Outcome == control.OutcomeRolledBack, r.Outcome == control.OutcomeInconclusive:
		phase, level = control.PhaseRollback, slog.LevelWarn
	}
	u.events.add(control.Event{Phase: phase, Generation: r.To, PID: r.ToPID, Message: describeResult(r)})
	u.log.LogAttrs(u.ctx, level, "upgrade ended", slog.String("outcome", r.Outcome), slog.Int("from", r.From), slog.Int("to", r.To),
		slog.Int("pid", r.ToPID), slog.Duration("elapsed", durationOf(r.Total)), slog.Any("err", r.Error))
	u.record(r)
	u.keep(*u.last)
	if !confirmed && u.state.Main && !u.state.Stopping { // of a confirmed one it came with MAINPID=
		u.systemd.notify(sdnotify.Status(servingText(u.number, u.opts.Version) + "; " + describeResult(r)))
	}
	u.publish()
}

// describeResult says in one line how an upgrade ended.
func describeResult(r *control.Result) string {
	switch r.Outcome {
	case control.OutcomeConfirmed:
		verb := "upgraded"
		if r.Rollback {
			verb = "rolled back"
		}
		return fmt.Sprintf("%s %d -> %d (%s), serving in %v, confirmed in %v", verb, r.From, r.To, r.Version, seconds(r.Serving), seconds(r.Confirmed))
	case control.OutcomeRefused:
		return "upgrade refused: " + r.Error.Message
	}
	pid := ""
	if r.ToPID != 0 {
		pid = fmt.Sprintf(" (pid %d)", r.ToPID)
	}
	message := r.Error.Message
	if r.Outcome == control.OutcomeRolledBack {
		message = strings.TrimPrefix(message, "rolled back ") // as that it was
	}
	outcome := strings.ReplaceAll(r.Outcome, "-", " ") // "fell back in probation"
	return fmt.Sprintf("upgrade to generation %d%s %s in %s: %s", r.To, pid, outcome, r.Phase, message)
}

// durationOf is a duration of the API, where they are in seconds; seconds is one for
// people.
func durationOf(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func seconds(s float64) time.Duration { return round(durationOf(s)) }

// round shortens a duration for people.
func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Millisecond)
}
