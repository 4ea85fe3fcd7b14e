package main

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hdctl/handoff/upgrade/control"
)

// target is a service to talk to.
type target struct {
	name   string // of the service; "" if only the socket is known
	socket string
	flags  string // what to add to a command, so that it means the same service
}

// String names the target in messages.
func (t target) String() string {
	if t.name == "" {
		return t.socket
	}
	return t.name
}

// unit is the name of its unit. It is right for services that are called as
// their units, which is the default.
func (t target) unit() string {
	if t.name == "" {
		return ""
	}
	return t.name + ".service"
}

// command is a command line for hints.
func (t target) command(verb string) string {
	words := []string{"hdctl"}
	if t.flags != "" {
		words = append(words, t.flags)
	}
	words = append(words, verb)
	if t.name != "" {
		words = append(words, t.name)
	}
	return strings.Join(words, " ")
}

// dir is where the control sockets are.
func (a *app) dir() string {
	if a.globals.User {
		return control.UserRunDir(a.env["XDG_RUNTIME_DIR"])
	}
	return a.runDir
}

// target returns the target for a UNIT: the name of a service, with or without
// ".service". It need not exist.
func (a *app) target(unit string) (target, error) {
	var t target
	if a.globals.User {
		t.flags = "--user"
	}
	if unit != "" {
		t.name = strings.TrimSuffix(unit, ".service")
		if err := a.checkUnit(unit, t.name); err != nil {
			return target{}, err
		}
	}
	if a.globals.Socket != "" {
		t.socket, t.flags = a.globals.Socket, "--socket "+a.globals.Socket
		return t, nil
	}
	t.socket = control.SocketIn(a.dir(), t.name)
	return t, nil
}

func (a *app) checkUnit(unit, name string) error {
	switch ext := path.Ext(unit); {
	case strings.Contains(unit, "/"):
		return exitf(exitUsage, "%q is not the name of a unit", unit).
			withHint("for the path of a control socket there is --socket PATH")
	case slices.Contains([]string{".socket", ".target", ".timer", ".path", ".mount"}, ext):
		return exitf(exitUsage, "%q is not a service", unit).
			withHint("the service is probably %s", strings.TrimSuffix(unit, ext))
	}
	if err := control.CheckName(name); err != nil {
		return exitf(exitUsage, "%w", err)
	}
	return nil
}

// only returns the target for a UNIT that may be left out if there is only one
// service.
func (a *app) only(unit string) (target, error) {
	if unit != "" || a.globals.Socket != "" {
		return a.target(unit)
	}
	names, err := control.Services(a.dir())
	if err != nil {
		return target{}, exitf(exitUnknown, "%w", err)
	}
	switch len(names) {
	case 0:
		return target{}, a.noServices()
	case 1:
		return a.target(names[0])
	}
	return target{}, exitf(exitUsage, "which service? There is more than one").
		withHint("one of: %s", strings.Join(names, ", "))
}

// several returns the targets for the UNITs of a verb that only reads: names
// and patterns; none means all there are.
func (a *app) several(units []string) ([]target, error) {
	if a.globals.Socket != "" {
		if len(units) > 1 {
			return nil, exitf(exitUsage, "--socket is for one service, not for %d", len(units))
		}
		t, err := a.target(strings.Join(units, ""))
		return []target{t}, err
	}
	existing, err := control.Services(a.dir())
	if err != nil {
		return nil, exitf(exitUnknown, "%w", err)
	}
	var names []string
	for _, unit := range units {
		if !strings.ContainsAny(unit, "*?[") {
			names = append(names, unit)
			continue
		}
		pattern := strings.TrimSuffix(unit, ".service")
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, exitf(exitUsage, "pattern %q: %w", unit, err)
		}
		for _, name := range existing {
			if ok, _ := path.Match(pattern, name); ok {
				names = append(names, name)
			}
		}
	}
	if len(units) == 0 {
		names = existing
	}
	var targets []target
	for _, name := range names {
		t, err := a.target(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(targets, t) {
			targets = append(targets, t)
		}
	}
	return targets, nil
}

// askAll asks the targets, not more than a few at the same time, and returns the
// answers in their order.
func askAll[T any](targets []target, ask func(target) T) []T {
	answers := make([]T, len(targets))
	slots := make(chan struct{}, 16)
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			answers[i] = ask(t)
		})
	}
	wg.Wait()
	return answers
}

// noServices is the error where no service was found.
func (a *app) noServices() *exitError {
	e := exitf(exitNoService, "there is no service with a control socket in %s", a.dir())
	if a.globals.User {
		return e
	}
	if names, err := control.Services(control.UserRunDir(a.env["XDG_RUNTIME_DIR"])); err == nil && len(names) > 0 {
		return e.withHint("there are services of the user: hdctl --user ...")
	}
	return e
}

// absent tells a service that does not run from one that does not exist, after
// a connect has failed with err: the exit status is 3 or 4, or 9 if systemd says
// that it runs.
func (a *app) absent(ctx context.Context, t target, err error) *exitError {
	if t.name == "" || a.globals.Socket != "" {
		return apiError(t, err)
	}
	view, viewErr := a.askSystemd(ctx, t.unit())
	return a.absence(t, view, viewErr, err)
}

// absence is absent with what systemd says.
func (a *app) absence(t target, view *systemdView, viewErr, err error) *exitError {
	known := false // there is such a service
	if _, statErr := os.Lstat(filepath.Dir(t.socket)); statErr == nil {
		known = true
	}
	switch {
	case viewErr == nil && view.exists() && view.running():
		return exitf(exitUnknown, "%s: %s is %s, but it has no control socket: %w", t, t.unit(), view.state(), cleanError{err}).
			withHint("its unit needs RuntimeDirectory=handoff/%s, and it must not run with HANDOFF_CONTROL=-", t.name)
	case viewErr == nil && view.exists():
		return exitf(exitNotRunning, "%s is not running: %s is %s", t, t.unit(), view.state()).
			withHint("systemctl %sstart %s", a.userFlag(), t.unit())
	case known:
		return exitf(exitNotRunning, "%s: %w", t, cleanError{err})
	}
	e := exitf(exitNoService, "there is no service %s: no %s, and no unit %s", t, t.socket, t.unit())
	if viewErr != nil {
		e = exitf(exitNoService, "there is no service %s: no %s", t, t.socket)
	}
	if names, err := control.Services(a.dir()); err == nil && len(names) > 0 {
		return e.withHint("there is: %s", strings.Join(names, ", "))
	}
	if !a.globals.User {
		user := control.SocketIn(control.UserRunDir(a.env["XDG_RUNTIME_DIR"]), t.name)
		if _, err := os.Lstat(user); err == nil {
			return e.withHint("there is one of the user: hdctl --user ...")
		}
	}
	return e
}

// userFlag is what systemctl needs to find the unit.
func (a *app) userFlag() string {
	if a.globals.User {
		return "--user "
	}
	return ""
}

// notRunning tells whether err says that nobody listens.
func notRunning(err error) bool {
	e, ok := errors.AsType[*control.Error](err)
	return ok && e.Code == control.CodeNotRunning
}
