package upgrade

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/sdnotify"
)

// Reconfigure has the service read its configuration again.
func (b backend) Reconfigure(ctx context.Context, req control.ReconfigureRequest, p controld.Peer) (*control.ReconfigureResult, error) {
	return b.u.reconfigure(ctx, triggerOf(p, req.Via, req.Reason))
}

// reconfigure calls the function of the service. Calls do not overlap; a client that
// goes away ends neither the function nor the record of what it has done.
func (u *Upgrader) reconfigure(ctx context.Context, trigger control.Trigger) (*control.ReconfigureResult, error) {
	f := u.opts.Reconfigure
	switch s := u.view.Load().state; {
	case f == nil:
		return nil, control.Errorf(control.CodeUnsupported, "this service cannot read its configuration again without a new process").
			WithHint("start one: hdctl upgrade %s", u.name)
	case !s.Main:
		return nil, control.Errorf(control.CodeNotMain, "generation %d is not the main one", u.number)
	case s.Stopping:
		return nil, control.Errorf(control.CodeStopping, "the service is being stopped")
	case s.Candidate.Phase != machine.None:
		return nil, control.Errorf(control.CodeInProgress, "an upgrade is in progress; the new generation reads its configuration at its start").
			WithHint("wait until it has ended: hdctl status %s", u.name)
	}
	type answer struct {
		result *control.ReconfigureResult
		err    error
	}
	done := make(chan answer, 1)
	u.wg.Go(func() {
		u.reconfiguring.Lock()
		defer u.reconfiguring.Unlock()
		began := time.Now()
		err := u.callReconfigure(f)
		u.reconfigured(trigger, time.Since(began), err)
		if err != nil {
			done <- answer{err: control.Errorf(control.CodeReconfigure, "%v", err).WithHint("the old configuration is in force")}
			return
		}
		done <- answer{result: &control.ReconfigureResult{Took: time.Since(began).Seconds()}}
	})
	select {
	case a := <-done:
		return a.result, a.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-u.ending:
		return nil, control.Errorf(control.CodeStopping, "the service is being stopped")
	}
}

// callReconfigure calls f with a context that ends with the generation. Its panic is
// an error.
func (u *Upgrader) callReconfigure(f func(context.Context) error) (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-u.ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the service's function panicked: %v\n%s", v, debug.Stack())
		}
	}()
	return f(ctx)
}

// reconfigured tells what has come of it.
func (u *Upgrader) reconfigured(t control.Trigger, took time.Duration, err error) {
	text, level := fmt.Sprintf("the configuration was read again via %s, in %v", t.Via, round(took)), slog.LevelInfo
	if err != nil {
		text, level = fmt.Sprintf("the configuration was not changed: %v", err), slog.LevelError
	}
	u.events.add(control.Event{Phase: control.PhaseConfig, Generation: u.number, PID: u.pid, Message: text})
	u.log.LogAttrs(u.ctx, level, text)
	u.box.post(func() {
		if u.state.Main && u.state.Life == machine.Serving {
			u.systemd.notify(sdnotify.Status(servingText(u.number, u.opts.Version) + "; " + text))
		}
	})
}

// reconfigureBySignal is one that no client waits for; then is called at its end.
func (u *Upgrader) reconfigureBySignal(t control.Trigger, then func(error)) {
	u.wg.Go(func() {
		_, err := u.reconfigure(context.Background(), t)
		if e, ok := errors.AsType[*control.Error](err); ok && e.Code != control.CodeReconfigure { // which is told already
			u.log.LogAttrs(u.ctx, slog.LevelWarn, "reconfigure by signal refused", slog.Any("err", err))
		}
		then(err)
	})
}
