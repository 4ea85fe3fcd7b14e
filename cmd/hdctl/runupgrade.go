package main

import (
	"context"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
)

// change brings what is on disk into force: an upgrade, or for a program that knows
// of none, another process in its place.
func (r *runner) change(ctx context.Context, why string) {
	switch {
	case r.stopping:
	case r.busy || r.next != nil:
		r.again = why
	case r.current == nil:
		r.timer.Stop()
		r.notef("%s", r.text("%s", why))
		r.startAgain()
	case r.current.again: // it is about to be started anew
	default:
		r.notef("%s", r.text("%s: upgrade", why))
		r.busy = true
		i := r.current
		r.helpers.Go(func() {
			u := r.upgrade(ctx, why)
			u.of = i
			r.upgraded <- u
		})
	}
}

// upgrade asks the service. It runs beside the runner.
func (r *runner) upgrade(ctx context.Context, why string) (u upgraded) {
	askCtx, cancel := context.WithTimeout(ctx, r.patience.before)
	u.before, u.err = r.client.Status(askCtx)
	cancel()
	if u.err != nil || u.before.State == control.StateStarting {
		return u
	}
	limit := r.confirmLimit(u.before.Options)
	if limit > 0 {
		ctx, cancel = context.WithTimeout(ctx, limit+r.patience.slack)
		defer cancel()
	}
	u.result, u.err = r.client.Upgrade(ctx, control.UpgradeRequest{
		Wait: control.WaitConfirmed, Queue: true, Reason: why, Via: control.ViaHdctl, Timeout: r.globals.Timeout.Seconds(),
	}, nil)
	return u
}

// hasUpgraded tells how it went.
func (r *runner) hasUpgraded(u upgraded) {
	r.busy = false
	switch {
	case u.of != r.current || r.stopping:
		// It has ended meanwhile, or will.
	case notRunning(u.err):
		r.replaceSoon()
	case u.err != nil && u.result == nil:
		r.app.exit(apiError(r.target, u.err))
	case u.result == nil: // it is still starting: nothing that would be worth keeping
		r.notef("%s", r.text("it is not ready yet, and is started anew"))
		u.of.again = true
		r.signal(u.of, unix.SIGTERM)
	case u.result.Outcome == control.OutcomeConfirmed:
		r.notef("%s", r.text("%s", successText(u.result)))
	default:
		at := &attempt{target: r.target, client: r.client, before: u.before, what: anUpgrade, wait: control.WaitConfirmed}
		r.app.exit(r.failed(at, u.result))
	}
}

// replaceSoon starts a process beside the one that runs: both accept, until the new
// one has shown that it lives.
func (r *runner) replaceSoon() {
	r.warnf("%s", r.text("it has no control socket, so there is no handoff: a new process is started, then the old one is stopped, and ends its connections as it does at any stop"))
	next, err := r.launch()
	if err != nil {
		r.errorf("%s", r.text("%v; the old program goes on", err))
		return
	}
	r.next = next
	r.timer.Reset(proofTime)
}

// replace stops the old process: the new one lives.
func (r *runner) replace() {
	r.timer.Stop()
	old := r.current
	r.current, r.next = r.next, nil
	r.notef("%s", r.text("replaced: process %d instead of %d", r.current.MainPID(), old.MainPID()))
	r.leaving = append(r.leaving, old)
	r.signal(old, unix.SIGTERM)
}
