package upgrade

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os/user"
	"strconv"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/statedir"
)

// records is what a service remembers beyond its restart. Nothing of it is needed for
// an upgrade, and no failure of it fails one: it is written by a worker, and status
// tells of the failure.
type records struct {
	worker
	dir *statedir.Dir // nil: nothing is kept
}

// openRecords opens the state directory, if there is one.
func (u *Upgrader) openRecords() {
	u.records.worker = newWorker()
	u.recordsFailed = make(map[string]error)
	path := stateDir(u.set, u.env, u.name)
	if path == "" {
		return
	}
	dir, err := statedir.Open(path)
	if err != nil {
		u.warn(fmt.Sprintf("no history of upgrades is kept: %v", err))
		return
	}
	u.records.dir, u.statePath = dir, path
}

// keep appends an upgrade that has ended to the history. The driver calls it.
func (u *Upgrader) keep(r control.Record) {
	u.appendHistory(control.Entry{Record: r})
}

// keepDrained appends that an old generation is done. The driver calls it.
func (u *Upgrader) keepDrained(p *peer) {
	now := time.Now()
	u.appendHistory(control.Entry{DrainEnded: now, Record: control.Record{
		Time: now, Result: control.Result{From: p.number, FromPID: p.pid, Migrated: p.report.Migrated, Cut: control.Counts(p.report.Cut)},
	}})
}

func (u *Upgrader) appendHistory(e control.Entry) {
	dir := u.records.dir
	if dir == nil {
		return
	}
	e.Service, e.Invocation = u.name, u.env.invocation
	u.records.do(func() {
		if e.Trigger.PID != 0 { // only then the client's credentials are known
			e.User = userName(e.Trigger.UID)
		}
		u.recordsResult("the history of upgrades is not kept", dir.Append(e))
	})
}

// recordsResult has status tell of a failure, until the same works again.
func (u *Upgrader) recordsResult(what string, err error) {
	if err != nil {
		u.log.LogAttrs(context.Background(), slog.LevelWarn, what, slog.Any("err", err))
	}
	u.box.post(func() {
		delete(u.recordsFailed, what)
		if err != nil {
			u.recordsFailed[what] = err
		}
		u.publish()
	})
}

// userName is the name of a user, or the number.
func userName(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// History lists what upgrades have ended, newest first.
func (b backend) History(_ context.Context, limit int, emit func(control.Entry) error) error {
	dir := b.u.records.dir
	if dir == nil {
		return control.Errorf(control.CodeUnsupported, "this service keeps no history: it has no state directory").
			WithHint("add StateDirectory=handoff/%s to the unit, and restart the service once", b.u.name)
	}
	lines, err := dir.Records(0)
	if err != nil {
		return fmt.Errorf("read the history: %w", err)
	}
	entries, _ := control.ReadHistory(func(yield func([]byte) bool) {
		for _, line := range lines {
			if !yield(line) {
				return
			}
		}
	}, limit)
	for _, e := range entries {
		if err := emit(e); err != nil {
			return err
		}
	}
	return nil
}

// pauseFile is where an operator's pause is kept.
const pauseFile = "pause.json"

// loadPause finds the pause that was in force when the service ended.
func (u *Upgrader) loadPause() {
	if p, known := u.records.pause(); known {
		u.paused = p
	}
}

// reloadPause finds the pause that was in force when main died, whose place we take.
// The driver calls it.
func (u *Upgrader) reloadPause() {
	was := u.paused
	u.records.do(func() {
		p, known := u.records.pause()
		u.box.post(func() {
			if known && u.paused == was { // nobody has said anything meanwhile
				u.paused = p
				u.publish()
			}
		})
	})
}

// pause reads the pause that is kept; nil if there is none. It is not known where
// nothing is kept, or cannot be read.
func (r *records) pause() (p *control.Pause, known bool) {
	if r.dir == nil {
		return nil, false
	}
	p = new(control.Pause)
	switch err := r.dir.Load(pauseFile, p); {
	case err == nil:
		return p, true
	case errors.Is(err, fs.ErrNotExist):
		return nil, true
	}
	return nil, false
}
