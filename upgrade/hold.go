package upgrade

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
	"github.com/hdctl/handoff/upgrade/internal/link"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/sdnotify"
)

// ask has the driver do something that somebody waits for.
func (u *Upgrader) ask(ctx context.Context, do func() error) error {
	answer := make(chan error, 1)
	if !u.box.post(func() { answer <- do() }) {
		return control.Errorf(control.CodeStopping, "the service is being stopped")
	}
	select {
	case err := <-answer:
		return err
	case <-u.ending:
		return control.Errorf(control.CodeStopping, "the service is being stopped")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Drain closes the door of this generation without an upgrade, or opens it again.
func (b backend) Drain(ctx context.Context, req control.DrainRequest, p controld.Peer) error {
	trigger := triggerOf(p, req.Via, req.Reason)
	return b.u.ask(ctx, func() error { return b.u.requestHold(req.Undo, trigger) })
}

// requestHold closes the door or opens it; to ask for what is already so is no
// mistake. The driver calls it.
func (u *Upgrader) requestHold(undo bool, trigger control.Trigger) error {
	s := u.state
	switch {
	case undo != s.Held:
		return nil
	case s.Stopping || s.Life == machine.Exited:
		return u.refusal(machine.Terminating, trigger).Error
	case !s.Main:
		return u.refusal(machine.NotMain, trigger).Error
	case s.Candidate.Phase != machine.None:
		return u.refusal(machine.InProgress, trigger).Error
	case s.Life != machine.Serving:
		return u.refusal(machine.NotServing, trigger).Error
	}
	if undo {
		u.step(machine.Release{})
		return nil
	}
	u.hold = &control.Hold{Since: time.Now(), Trigger: trigger}
	u.step(machine.Hold{})
	return nil
}

// holdDrain says goodbye to all, and stays.
func (u *Upgrader) holdDrain() {
	d := u.beginDrain()
	d.hold = true
	text := fmt.Sprintf("generation %d accepts nothing any more", u.number)
	if r := u.hold.Trigger.Reason; r != "" {
		text += ": " + r
	}
	u.events.add(control.Event{Phase: control.PhaseHeld, Generation: u.number, PID: u.pid, Message: text})
	u.systemd.notify(sdnotify.Status(text))
}

// endHold takes that back; the gate opens next.
func (u *Upgrader) endHold() {
	u.hold = nil
	d := u.drainage
	if d == nil || !d.hold {
		return
	}
	u.reopen()
	text := servingText(u.number, u.opts.Version)
	u.events.add(control.Event{Phase: control.PhaseServing, Generation: u.number, PID: u.pid, Message: text + ", the door is open again"})
	u.systemd.notify(sdnotify.Status(text))
}

// End ends the drains of old generations before their deadline.
func (b backend) End(ctx context.Context, req control.EndRequest, _ controld.Peer) (*control.EndResult, error) {
	var r *control.EndResult
	err := b.u.ask(ctx, func() (err error) {
		r, err = b.u.endDrains(req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (u *Upgrader) endDrains(req control.EndRequest) (*control.EndResult, error) {
	if !u.state.Main {
		return nil, u.refusal(machine.NotMain, control.Trigger{}).Error
	}
	grace := hurryTimeout
	switch {
	case req.Grace > 0:
		grace = durationOf(req.Grace)
	case req.Grace < 0:
		grace = 0
	}
	deadline := time.Now().Add(grace)
	r := &control.EndResult{Generations: []int{}}
	for _, number := range u.state.Drainers {
		p := u.peers[number]
		if p == nil || req.Generation != 0 && req.Generation != number {
			continue
		}
		if req.Kill {
			if err := p.kill(); err != nil {
				return nil, control.Errorf(control.CodeInternal, "kill generation %d (pid %d): %v", number, p.pid, err)
			}
		} else {
			u.send(number, link.Hurry{DeadlineUnixNano: deadline.UnixNano()})
		}
		r.Generations = append(r.Generations, number)
	}
	if req.Generation != 0 && len(r.Generations) == 0 {
		e := control.Errorf(control.CodeGeneration, "generation %d does not drain", req.Generation).
			WithHint("hdctl status %s lists those that do", u.name)
		if req.Generation == u.number {
			e = control.Errorf(control.CodeGeneration, "generation %d is the one that serves", req.Generation).
				WithHint("to end the service: systemctl stop; to close its door for a while: hdctl drain %s", u.name)
		}
		return nil, e
	}
	return r, nil
}

// kill sends SIGKILL to the process of p.
func (p *peer) kill() error {
	if p.pidfd == nil {
		return errors.New("its process is not known")
	}
	raw, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	sent := error(nil)
	if err := raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(sent, unix.ESRCH) {
		return nil // it has ended
	}
	return sent
}
