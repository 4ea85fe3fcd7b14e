package upgrade

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/preflight"
	"github.com/hdctl/handoff/upgrade/internal/spawn"
)

// program is what an attempt runs: by default the path that the service was started
// with, as it leads now.
type program struct {
	spawn.Program
	digest   string // of a file that ran before
	rollback bool
}

// path is where its file is, or was.
func (p program) path(u *Upgrader) string {
	if p.Path != "" {
		return p.Path
	}
	return u.spawner.Path()
}

// previous is the version that ran before this one. Its file is kept open, so that
// it can be run again whatever has become of its path.
type previous struct {
	control.Program
	file *os.File
}

// openExecutable opens the file that this process runs, so that a successor can go
// back to it.
func openExecutable() (*os.File, error) {
	f, err := os.Open(ownExecutable)
	if err == nil {
		return f, nil
	}
	fd, pathErr := unix.Open(ownExecutable, unix.O_PATH|unix.O_CLOEXEC, 0) // executable, but not readable
	if pathErr != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), ownExecutable), nil
}

// ownProgram describes what this process runs.
func (u *Upgrader) ownProgram() control.Program {
	path := u.programPath
	if path == "" {
		path = strings.TrimSuffix(executable(u.pid), " (deleted)")
	}
	return control.Program{Generation: u.number, Version: u.opts.Version, Digest: u.ownDigest, Path: path}
}

// adoptPrevious takes what the predecessor has been.
func (u *Upgrader) adoptPrevious(data json.RawMessage, files []*os.File) (keep bool) {
	var p control.Program
	if len(files) != 1 || json.Unmarshal(data, &p) != nil {
		return false
	}
	u.previous = &previous{Program: p, file: files[0]}
	u.copyPrevious(u.previous)
	return true
}

// rollBackToPrevious is an upgrade to what ran before. The driver calls it.
func (u *Upgrader) rollBackToPrevious(w *waiter) {
	if u.previous == nil {
		w.finish(refused(w.trigger, u.number, control.Errorf(control.CodeNoPrevious,
			"generation %d has no predecessor since systemd started the service: there is nothing to roll back to", u.number).
			WithHint("install the version that you want and upgrade to it: hdctl upgrade %s", u.name)))
		return
	}
	p := u.previous
	w.program = program{Program: spawn.Program{Path: p.Path, File: p.file}, digest: p.Digest, rollback: true}
	u.submit(w)
}

// digestOf returns the SHA-256 of a file in hexadecimal; "" if it cannot be read.
func (u *Upgrader) digestOf(path string) string {
	id := identify(path)
	if id == (fileID{}) {
		return ""
	}
	sum, err := u.disk.digest(path, id)
	if err != nil {
		return ""
	}
	return hex.EncodeToString(sum[:])
}

// needed is what the preflight wants to know.
func (u *Upgrader) needed(p program) preflight.Config {
	return preflight.Config{
		Path: p.path(u), File: p.File, Command: u.set.check, Env: os.Environ(),
		MemoryNeeded: u.rss(), Files: len(u.table.all()),
	}
}

// checkFailed is the error of a preflight, nil if all is well.
func checkFailed(checks []control.Check) *control.Error {
	c := preflight.Failed(checks)
	if c == nil {
		return nil
	}
	code := control.CodeStartFailed
	if c.Name == preflight.NameCommand {
		code = control.CodeCheckFailed
	}
	// It is one line, of what a command has printed the first: all of that is in
	// the checks.
	message, output, printed := strings.Cut(c.Message, "\n")
	if line, _, _ := strings.Cut(output, "\n"); printed {
		message += ": " + line
	}
	return &control.Error{Code: code, Message: message, Hint: c.Hint}
}

// checkContent makes sure that the open file of a version that ran before has what it
// had then: who writes into a file in place, once nobody runs it, writes into all
// that have it open.
func (u *Upgrader) checkContent(p program) *control.Error {
	if p.File == nil || p.digest == "" {
		return nil
	}
	fd, err := rawFD(p.File)
	if err != nil {
		return control.Errorf(control.CodeInternal, "the file of the previous version: %v", err)
	}
	if u.digestOf(fmt.Sprintf("/proc/self/fd/%d", fd)) == p.digest {
		return nil
	}
	return control.Errorf(control.CodeNoPrevious, "the file of the previous version (%s) was changed in place since it ran: it is another one, or none", p.Path).
		WithHint("install the version that you want and upgrade to it: hdctl upgrade %s", u.name)
}

// dryRun does the first step of an upgrade, and no more.
func (u *Upgrader) dryRun(ctx context.Context, w *waiter) *control.Result {
	if u.set.readyTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, u.set.readyTimeout)
		defer cancel()
	}
	r := &control.Result{Outcome: control.OutcomeChecked, From: u.number, FromPID: u.pid, FromVersion: u.opts.Version, Trigger: w.trigger, Phase: control.PhasePreflight}
	if w.program.Path != "" {
		r.Binary = w.program.Path
	}
	r.Checks = preflight.Run(ctx, u.needed(w.program))
	if r.Error = checkFailed(r.Checks); r.Error != nil {
		r.Outcome = control.OutcomeFailed
	}
	return r
}

// unchanged is the result of a request that is none if nothing has changed, where
// that is so.
func (u *Upgrader) unchanged(w *waiter) *control.Result {
	path := w.program.path(u)
	there := identify(path)
	same := there != fileID{} && there == identify(ownExecutable)
	if !same {
		digest := u.digestOf(path)
		same = digest != "" && digest == u.digestOf(ownExecutable)
	}
	if !same {
		return nil
	}
	return &control.Result{
		Outcome: control.OutcomeUnchanged, From: u.number, FromPID: u.pid, Version: u.opts.Version, FromVersion: u.opts.Version, Trigger: w.trigger,
	}
}

// otherBinary checks a request for another program.
func (u *Upgrader) otherBinary(path string) *control.Error {
	switch {
	case !u.set.allowBinary:
		return control.Errorf(control.CodeBinary, "this service runs no other program than %s", u.spawner.Path()).
			WithHint("to allow it set HANDOFF_ALLOW_BINARY=on in the unit and restart the service")
	case !filepath.IsAbs(path):
		return control.Errorf(control.CodeBadRequest, "the path %q is not absolute", path)
	}
	return nil
}

// describeProgram says what an attempt runs, where that is not the usual.
func (u *Upgrader) describeProgram(a *attempt) string {
	switch {
	case a.program.rollback:
		return fmt.Sprintf("the previous version (%s)", a.program.Path)
	case a.program.Path != "":
		return a.program.Path
	}
	return u.spawner.Path()
}
