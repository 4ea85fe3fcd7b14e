package upgrade

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/sdnotify"
)

// Type=notify-reload (systemd 253, systemd.service(5)): systemd sends SIGHUP to the
// main process, and waits for RELOADING=1, which has to be later than the signal, and
// then for READY=1. It takes nothing else for an end: without RELOADING=1 the reload
// fails after TimeoutStartSec=, and without READY=1 after it the unit is reloading for
// ever (systemd 257). So every SIGHUP gets both answers, from the generation that is
// main when it is done, whatever has become of what was asked for. There is no answer
// that makes a reload fail: STATUS= tells.
//
// RELOADING=1 is said when the upgrade begins, and not while the request waits in the
// queue: MAINPID= and READY=1 of the upgrade before would be the end of the reload
// otherwise, and the version that the operator has just installed would not run.

// reloads is how far the answers to SIGHUP are. It belongs to the driver.
type reloads struct {
	begun int  // that systemd was told of, and whose end it was not told
	early bool // a SIGHUP has come before we were told that we are main
}

// lateSignal is for how long after its end as the main one a generation passes a SIGHUP
// on, and lives to do so. systemd has sent that before it knew of the new main process;
// it does now, so what has not arrived yet is on its way through the kernel, which
// interrupts a thread of ours for it when it has a CPU for that.
const lateSignal = 500 * time.Millisecond

// reloadSignal is SIGHUP where systemd waits for the answer. The driver calls it.
func (u *Upgrader) reloadSignal(a Action, trigger control.Trigger) {
	switch s := u.state; {
	case s.Main && a == ActionUpgrade:
		u.requestReload()
	case s.Main && a == ActionReconfigure:
		u.beginReload()
		u.reconfigureBySignal(trigger, func(err error) {
			text := "" // what has come of it was told already
			if e, ok := errors.AsType[*control.Error](err); ok && e.Code != control.CodeReconfigure {
				text = err.Error()
			}
			u.box.post(func() { u.endReload(text) })
		})
	case s.Main: // nothing that has an end to wait for
		u.beginReload()
		u.doAction(a, trigger)
		u.endReload("SIGHUP: " + a.String())
	case s.Life == machine.Serving:
		// On probation: nobody else would have systemd send it to us, so it knows
		// already that we are main, and we do in a moment.
		u.notified.early = true
	case s.Life == machine.Draining && time.Since(u.since) < lateSignal:
		u.passReloadOn()
	}
}

// requestReload is an upgrade that systemd waits for.
func (u *Upgrader) requestReload() {
	if slices.ContainsFunc(u.queue, func(w *waiter) bool { return w.reload }) {
		return // whose answer is the answer to this one, too
	}
	w := u.newWaiter(control.UpgradeRequest{Queue: true}, control.Trigger{Via: control.ViaSignal})
	w.reload = true
	w.then = func(r *control.Result) { u.reloaded(w, r) }
	u.submit(w)
}

// reloaded is the end of an upgrade that systemd waits for, or of the wait for it. It is
// not posted to the driver: one that has handed over, and has no connections, ends in
// the same step.
func (u *Upgrader) reloaded(w *waiter, r *control.Result) {
	if !w.told && !u.state.Main {
		u.passReloadOn() // another upgrade was confirmed meanwhile
		return
	}
	if r.Outcome == control.OutcomeRefused {
		u.log.LogAttrs(u.ctx, slog.LevelWarn, "upgrade by signal refused", slog.Any("err", r.Error))
	}
	if !w.told {
		u.beginReload()
	}
	u.endReload(describeResult(r))
}

// beginReload says that it begins.
func (u *Upgrader) beginReload() {
	u.notified.begun++
	if u.mayReload() {
		u.systemd.notify(sdnotify.Reloading())
	}
}

// endReload says that it has ended, unless the end of another one is to come. Of a
// confirmed upgrade the end came with MAINPID=, and we are not main any more. text is
// for systemctl status, if there is something to say.
func (u *Upgrader) endReload(text string) {
	if u.notified.begun--; u.notified.begun > 0 || !u.mayReload() {
		return
	}
	lines := []string{sdnotify.Ready}
	if text != "" {
		lines = append(lines, sdnotify.Status(servingText(u.number, u.opts.Version)+"; "+text))
	}
	u.systemd.notify(lines...)
}

// awaitLateSignals holds up the end of a generation that has nothing left to do.
func (u *Upgrader) awaitLateSignals(ctx context.Context, d *drainage) {
	if !u.set.notifyReload {
		return
	}
	timer := time.NewTimer(lateSignal)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.stop:
	case <-ctx.Done():
	}
}

// mayReload tells whether systemd may be told of a reload: READY=1 of a generation
// that starts would be the end of that, and after STOPPING=1 nothing else counts.
func (u *Upgrader) mayReload() bool {
	return u.state.Main && !u.state.Stopping && u.state.Life != machine.Starting
}

// reloadsBegin says for those of waiters who are systemd that their upgrade begins.
func (u *Upgrader) reloadsBegin(waiters []*waiter) {
	for _, w := range waiters {
		if w.reload {
			w.told = true
			u.beginReload()
		}
	}
}

// reloadIfAsked starts the upgrade for which systemd has sent us a signal before we
// knew that we are main.
func (u *Upgrader) reloadIfAsked() {
	if u.notified.early {
		u.notified.early = false
		u.act(u.set.signalTable()[syscall.SIGHUP], syscall.SIGHUP)
	}
}

// passReloadOn gives a signal of systemd to the generation that is main now. If that
// is gone, and we are to take over again, our own word ends the reload (systemd.handOver).
func (u *Upgrader) passReloadOn() {
	p := u.peers[u.state.Lead]
	if p == nil || p.pidfd == nil || u.state.Stopping {
		return
	}
	fd, err := rawFD(p.pidfd)
	if err == nil {
		err = os.NewSyscallError("pidfd_send_signal", unix.PidfdSendSignal(fd, unix.SIGHUP, nil, 0))
	}
	if err != nil {
		u.log.LogAttrs(u.ctx, slog.LevelWarn, "SIGHUP not passed on to the main generation", slog.Int("generation", p.number), slog.Int("pid", p.pid), slog.Any("err", err))
	}
}
