package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/sdnotify"
)

// Pause has upgrades refused, or not any more.
func (b backend) Pause(ctx context.Context, req control.PauseRequest, p controld.Peer) error {
	trigger := triggerOf(p, req.Via, req.Reason)
	user := userName(p.UID) // not in the driver: it may ask a directory service
	if err := b.u.ask(ctx, func() error { return b.u.requestPause(req.Undo, trigger, user) }); err != nil {
		return err
	}
	b.u.records.wait(lastWords) // who is told yes relies on it
	return nil
}

// requestPause is executed by the driver. To allow what is allowed is no mistake; a
// second pause replaces the first.
func (u *Upgrader) requestPause(undo bool, trigger control.Trigger, user string) error {
	switch s := u.state; {
	case s.Stopping || s.Life == machine.Exited:
		return u.refusal(machine.Terminating, trigger).Error
	case !s.Main:
		return u.refusal(machine.NotMain, trigger).Error
	case undo && u.paused == nil:
		return nil
	}
	text := "upgrades are allowed again"
	u.paused = nil
	if !undo {
		u.paused = &control.Pause{Since: time.Now(), Trigger: trigger, User: user}
		text = "upgrades are paused: " + describePause(u.paused)
	}
	u.events.add(control.Event{Phase: control.PhasePaused, Generation: u.number, PID: u.pid, Message: text})
	u.log.LogAttrs(u.ctx, slog.LevelInfo, text)
	u.systemd.notify(sdnotify.Status(servingText(u.number, u.opts.Version) + "; " + text))
	u.savePause()
	u.publish()
	return nil
}

// savePause has the pause survive a restart, or the end of it.
func (u *Upgrader) savePause() {
	dir, p := u.records.dir, u.paused
	if dir == nil {
		return
	}
	u.records.do(func() {
		var err error
		if p != nil {
			err = dir.Save(pauseFile, p)
		} else if err = dir.Remove(pauseFile); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		u.recordsResult("the pause of upgrades does not survive a restart", err)
	})
}

// pausedResult refuses an upgrade, nil if it is none that a pause is about.
func (u *Upgrader) pausedResult(w *waiter) *control.Result {
	if u.paused == nil || w.program.rollback { // who rolls back has a reason to
		return nil
	}
	return refused(w.trigger, u.number, control.Errorf(control.CodePaused, "upgrades are paused: %s", describePause(u.paused)).
		WithHint("to allow them again: hdctl resume %s", u.name))
}

// describePause says who, when and why.
func describePause(p *control.Pause) string {
	who := p.User
	if who == "" {
		who = "somebody"
	}
	text := fmt.Sprintf("by %s via %s on %s", who, p.Trigger.Via, p.Since.UTC().Format("2006-01-02 15:04:05 MST"))
	if p.Trigger.Reason != "" {
		text += ": " + p.Trigger.Reason
	}
	return text
}

// encodePause and adoptPause carry it over an upgrade.
func encodePause(p *control.Pause) json.RawMessage {
	if p == nil {
		return nil
	}
	data, err := json.Marshal(p)
	if err != nil {
		return nil
	}
	return data
}

func (u *Upgrader) adoptPause(data json.RawMessage) {
	var p control.Pause
	if len(data) == 0 || json.Unmarshal(data, &p) != nil {
		u.paused = nil
		return
	}
	u.paused = &p
}
