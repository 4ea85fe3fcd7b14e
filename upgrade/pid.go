package upgrade

import (
	"context"
	"log/slog"

	"github.com/hdctl/handoff/upgrade/internal/machine"
	"github.com/hdctl/handoff/upgrade/internal/pidfile"
)

// oldPIDSuffix is what nginx puts behind the name of the old generation's PID file.
const oldPIDSuffix = ".oldbin"

// writePIDs makes the PID files say what is so: PIDFile names the main generation,
// or, beside which a new one was started by a signal, the new one, as nginx has it.
// The driver calls it after each step; it writes only what has changed.
func (u *Upgrader) writePIDs() {
	path := u.set.pidFile
	if path == "" || u.state.Life == machine.Exited || !u.state.Main && u.pidsWritten == (pids{}) {
		return
	}
	want := pids{}
	switch a := u.attempt; {
	case u.state.Main && a != nil && a.beside && u.state.Candidate.Phase >= machine.OnStage && u.state.Candidate.Phase <= machine.Notifying:
		want = pids{a.pid, u.pid}
	case u.state.Main:
		want.main = u.pid
	case u.pidsWritten.old == u.pid: // until we are gone
		want.old = u.pid
	}
	was := u.pidsWritten
	if want == was {
		return
	}
	u.pidsWritten = want
	u.records.do(func() {
		var err error
		if want.main != 0 && want.main != was.main {
			err = pidfile.Write(path, want.main)
		}
		switch {
		case err != nil:
		case want.old != 0 && want.old != was.old:
			err = pidfile.Write(path+oldPIDSuffix, want.old)
		case want.old == 0 && was.old != 0:
			err = pidfile.Remove(path+oldPIDSuffix, was.old)
		}
		u.pidResult(err)
	})
}

// removePIDs removes those that name us: this generation ends.
func (u *Upgrader) removePIDs() {
	path, was := u.set.pidFile, u.pidsWritten
	if path == "" || was == (pids{}) {
		return
	}
	u.pidsWritten = pids{}
	u.records.do(func() {
		if was.main == u.pid {
			u.pidResult(pidfile.Remove(path, u.pid))
		}
		if was.old == u.pid {
			u.pidResult(pidfile.Remove(path+oldPIDSuffix, u.pid))
		}
	})
}

func (u *Upgrader) pidResult(err error) {
	if err != nil {
		u.log.LogAttrs(context.Background(), slog.LevelError, "PID file", slog.Any("err", err))
	}
}

// pids are what the PID files say; 0 is no file.
type pids struct{ main, old int }
