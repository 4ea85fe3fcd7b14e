package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// jobs starts and stops units: systemd, by D-Bus.
type jobs interface {
	// unit looks at a unit. It need not exist.
	unit(ctx context.Context, name string) (*unitState, error)

	// start queues a job, stop one for each of the units, in one transaction: no job
	// begins before the last is queued. Their results come over the channel, "done" is
	// good; it must have room for them.
	start(ctx context.Context, name string, result chan<- string) error
	stop(ctx context.Context, names []string, result chan<- string) error

	close()
}

// jobsFunc connects to who does the jobs.
type jobsFunc func(ctx context.Context, user bool) (jobs, error)

// unitState is what start and stop want to know of a unit.
type unitState struct {
	Name        string   `json:"-"`
	LoadState   string   `json:"load_state"`
	ActiveState string   `json:"active_state"`
	SubState    string   `json:"sub_state"`
	Result      string   `json:"result"` // of a service or a socket
	TriggeredBy []string `json:"triggered_by"`
	Requires    []string `json:"requires"`
	DropIns     []string `json:"-"`
}

// up tells whether the unit runs, or is about to.
func (u *unitState) up() bool { return !u.down() }

// down tells whether nothing of the unit is left.
func (u *unitState) down() bool { return u.ActiveState == "inactive" || u.ActiveState == "failed" }

// state is the state as systemctl prints it.
func (u *unitState) state() string {
	v := systemdView{ActiveState: u.ActiveState, SubState: u.SubState, Result: u.Result}
	return v.state()
}

// sockets are the socket units that could start the service: those that say so, and
// those that it needs, which systemd may not have looked at yet.
func (u *unitState) sockets() []string {
	var names []string
	for _, name := range slices.Concat(u.TriggeredBy, u.Requires) {
		if strings.HasSuffix(name, ".socket") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// otherTriggers are units that could start the service, too, and are no sockets.
func (u *unitState) otherTriggers() []string {
	return slices.DeleteFunc(slices.Clone(u.TriggeredBy), func(name string) bool { return strings.HasSuffix(name, ".socket") })
}

// dbusJobs connects to systemd.
func (a *app) dbusJobs(ctx context.Context, user bool) (jobs, error) {
	conn, err := a.dbusConnect(ctx, user)
	if err != nil {
		return nil, fmt.Errorf("connect to systemd: %w", err)
	}
	return systemdJobs{conn, a.warnf}, nil
}

// systemdJobs are the real jobs.
type systemdJobs struct {
	conn  *dbus.Conn
	warnf func(format string, args ...any)
}

func (j systemdJobs) close() { j.conn.Close() }

func (j systemdJobs) unit(ctx context.Context, name string) (*unitState, error) {
	general, err := j.conn.GetUnitPropertiesContext(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("ask systemd for %s: %w", name, err)
	}
	u := &unitState{Name: name}
	u.LoadState, _ = general["LoadState"].(string)
	u.ActiveState, _ = general["ActiveState"].(string)
	u.SubState, _ = general["SubState"].(string)
	u.TriggeredBy, _ = general["TriggeredBy"].([]string)
	u.Requires, _ = general["Requires"].([]string)
	kind := "Service"
	if strings.HasSuffix(name, ".socket") {
		kind = "Socket"
	}
	if p, err := j.conn.GetUnitTypePropertyContext(ctx, name, kind, "Result"); err == nil {
		u.Result, _ = p.Value.Value().(string)
	}
	return u, nil
}

// replace is the mode of jobs: what somebody else has queued for the unit, and is not
// the same, is dropped.
const replace = "replace"

func (j systemdJobs) start(ctx context.Context, name string, result chan<- string) error {
	_, err := j.conn.StartUnitContext(ctx, name, replace, result)
	return jobError("start", name, err)
}

// stop makes one transaction of it. systemd takes one unit at a time; and jobs that
// come one after the other do not do: if the service ends before the last of its
// sockets has a stop job, that socket starts it again, which starts all sockets that
// the service requires, and drops their stop jobs. So a slice is started for a
// moment, without a process, that conflicts with all of them (Conflicts= in
// systemd.unit(5)).
//
// A rule of polkit(8) may allow to stop the units, and not to make one. Then they are
// stopped one by one after all, the sockets first: that fails only if clients connect
// while the service ends at once.
//
// If hdctl is killed before the slice is stopped, it stays until one of the units is
// started, and is in nobody's way.
func (j systemdJobs) stop(ctx context.Context, names []string, result chan<- string) error {
	// No other hdctl has this name, in whatever PID namespace it is.
	conflicting := "hdctlstop" + strings.ToLower(rand.Text()) + ".slice"
	started := make(chan string, 1)
	_, refused := j.conn.StartTransientUnitContext(ctx, conflicting, replace, []dbus.Property{
		dbus.PropDescription("Stops " + strings.Join(names, " ")),
		dbus.PropConflicts(names...),
		{Name: "DefaultDependencies", Value: godbus.MakeVariant(false)},
	}, started)
	if ctx.Err() != nil || refused == nil { // of the first it is not known
		defer j.end(ctx, conflicting)
	}
	if refused != nil {
		names = slices.Clone(names)
		slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(isService(a), isService(b)) })
	}
	for _, name := range names { // to hear of the jobs, which are queued already if all is well
		if _, err := j.conn.StopUnitContext(ctx, name, replace, result); err != nil {
			return jobError("stop", name, err)
		}
	}
	if refused != nil {
		j.warnf("systemd stops %s one by one, and a client may start the service again: %v", strings.Join(names, " "), cleanError{refused})
		return nil
	}
	select {
	case <-started:
	case <-ctx.Done():
	}
	return nil
}

// endLimit is how long systemd may take to queue a job, whatever the caller's context
// says.
const endLimit = 5 * time.Second

// end stops a unit that nobody else knows of. What is left of it, if that fails, does
// no harm.
func (j systemdJobs) end(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
	defer cancel()
	_, _ = j.conn.StopUnitContext(ctx, name, replace, nil)
}

// isService is 1 for a service, so that it comes last.
func isService(name string) int {
	if strings.HasSuffix(name, ".service") {
		return 1
	}
	return 0
}

func jobError(what, unit string, err error) error {
	if err == nil {
		return nil
	}
	e := exitf(exitFailed, "%s %s: %w", what, unit, cleanError{err})
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		e.code = exitUnknown // it may have been queued
	}
	reply, ok := errors.AsType[godbus.Error](err)
	if !ok {
		return e
	}
	switch reply.Name {
	case "org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired":
		e.code, e.hint = exitPermission, "try it with sudo"
	case "org.freedesktop.systemd1.NoSuchUnit":
		e.code = exitNoService
	case "org.freedesktop.systemd1.UnitMasked":
		e.hint = "systemctl unmask " + unit
	}
	return e
}

// journalLines are the last lines that a unit has in the journal since a moment; none
// if the caller may not read it.
func (a *app) journalLines(ctx context.Context, unit string, since time.Time) []string {
	ctx, cancel := context.WithTimeout(ctx, a.patience.status)
	defer cancel()
	which := "--unit="
	if a.globals.User {
		which = "--user-unit="
	}
	out, err := exec.CommandContext(ctx, "journalctl", which+unit, fmt.Sprintf("--since=@%d.%06d", since.Unix(), since.Nanosecond()/1000),
		"--lines=10", "--output=cat", "--no-pager", "--quiet").Output()
	if err != nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		lines = append(lines, clean(strings.TrimSuffix(line, "\n")))
	}
	return lines
}

// managed is a service that systemd manages, with its sockets.
type managed struct {
	jobs
	target  target
	service *unitState
	sockets []*unitState
}

// manage looks at a service that shall be started or stopped.
func (a *app) manage(ctx context.Context, unit, verb string) (*managed, error) {
	if a.globals.Socket != "" {
		return nil, exitf(exitUsage, "hdctl %s is for a unit, not for a control socket", verb)
	}
	t, err := a.target(unit)
	if err != nil {
		return nil, err
	}
	j, err := a.jobs(ctx, a.globals.User)
	if err != nil {
		return nil, exitf(exitUnknown, "%s: %w", t, err)
	}
	m := &managed{jobs: j, target: t}
	if err := a.lookAt(ctx, m, verb); err != nil {
		j.close()
		return nil, err
	}
	return m, nil
}

func (a *app) lookAt(ctx context.Context, m *managed, verb string) error {
	if err := m.look(ctx); err != nil {
		return exitf(exitUnknown, "%s: %w", m.target, err)
	}
	// What runs can be stopped, even if its unit is masked or removed by now.
	if m.service.LoadState == "loaded" || verb == "stop" && m.service.ActiveState != "" && m.service.up() {
		return nil
	}
	askCtx, cancel := context.WithTimeout(ctx, a.patience.status)
	defer cancel()
	s, err := a.client(m.target).Status(askCtx)
	switch {
	case err == nil:
		return exitf(exitRefused, "%s has no unit: it was started by hdctl run, or by hand", m.target).
			withHint("Ctrl-C there, or kill -TERM %d, stops it", mainPID(s))
	case m.service.LoadState == "not-found":
		e := exitf(exitNoService, "there is no service %s: no unit %s", m.target, m.target.unit())
		if !a.globals.User {
			e.hint = "for a service of the user: hdctl --user " + verb
		}
		return e
	case m.service.LoadState == "masked":
		return exitf(exitRefused, "%s is masked", m.target.unit()).withHint("systemctl %sunmask %s", a.userFlag(), m.target.unit())
	}
	return exitf(exitFailed, "%s cannot be loaded: %s", m.target.unit(), clean(m.service.LoadState)).
		withHint("systemctl %sstatus %s", a.userFlag(), m.target.unit())
}

// look asks systemd again.
func (m *managed) look(ctx context.Context) error {
	var err error
	if m.service, err = m.unit(ctx, m.target.unit()); err != nil {
		return err
	}
	m.sockets = nil
	for _, name := range m.service.sockets() {
		s, err := m.unit(ctx, name)
		if err != nil {
			return err
		}
		m.sockets = append(m.sockets, s)
	}
	return nil
}

// names are those of units for which a condition holds.
func names(units []*unitState, when func(*unitState) bool) []string {
	var out []string
	for _, u := range units {
		if when(u) {
			out = append(out, u.Name)
		}
	}
	return out
}
