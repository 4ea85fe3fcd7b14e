package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hdctl/handoff/units"
)

// unitReport is what "hdctl unit generate" prints with --output and --install.
// Fields are only added.
type unitReport struct {
	Changed bool         `json:"changed"` // a file, or what systemd has of it
	Files   []unitFile   `json:"files"`
	Actions []string     `json:"actions,omitempty"` // what was done besides, as a command line
	Needed  []unitNeeded `json:"needed,omitempty"`  // what is left to do
}

// unitNeeded is what a daemon-reload does not bring into force.
type unitNeeded struct {
	Unit    string `json:"unit"`
	Why     string `json:"why"`
	Command string `json:"command"`
}

func (r *unitReport) filesChanged() bool {
	return slices.ContainsFunc(r.Files, func(f unitFile) bool { return f.Result != unitUnchanged })
}

// printUnitReport prints what was done.
func (a *app) printUnitReport(r *unitReport) {
	r.Changed = r.filesChanged() || len(r.Actions) > 0
	switch a.globals.Format {
	case "json", "jsonl":
		if err := a.printJSON(r, a.globals.Format == "json"); err != nil {
			a.warnf("print the result: %v", err)
		}
		return
	}
	if a.quiet {
		return
	}
	for _, f := range r.Files {
		a.printf("%-9s %s\n", f.Result, f.Path)
	}
	for _, action := range r.Actions {
		a.printf("done      %s\n", action)
	}
	for _, n := range r.Needed {
		a.warnf("%s: %s; to apply it: %s", n.Unit, n.Why, n.Command)
	}
}

// installation is one run of "hdctl unit generate --install".
type installation struct {
	*app
	service units.Service
	root    string // of an image; "" for the system that runs

	report unitReport
}

// run writes the units and brings them into force, as far as that is possible
// without a restart. When nothing is to do, nothing is done.
func (in *installation) run(ctx context.Context, files map[string][]byte) error {
	dir := unitPlace{root: in.root}.dirOr(in.app)
	// First, so that nothing is written where systemd cannot be told of it.
	before, err := in.look(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return in.forbidden(exitf(exitFailed, "make the directory of the units: %w", err))
	}
	if in.report.Files, err = writeUnits(dir, files); err != nil {
		return in.forbidden(err)
	}
	for _, f := range in.report.Files {
		if was := before[f.Unit].path; f.Result == unitCreated && was != f.Path && before[f.Unit].values["LoadState"] == "loaded" {
			in.warnf("%s takes the place of %s", f.Path, was)
		}
	}
	if in.root != "" {
		err = in.enableInImage(ctx)
	} else {
		err = in.activate(ctx, before)
	}
	in.printUnitReport(&in.report)
	in.warnMissing()
	for _, path := range staleSockets(dir, in.service) {
		in.warnf("%s is a socket of %s that is not asked for any more; systemctl %sdisable --now %s, and remove the file",
			path, in.service.UnitName(), in.userFlag(), filepath.Base(path))
	}
	return err
}

// unitNames are the units of the service, its sockets first.
func unitNames(s units.Service) []string {
	var names []string
	for i := range s.Sockets {
		names = append(names, s.SocketUnitName(i))
	}
	return append(names, s.UnitName())
}

// look asks systemd about the units. Without an answer nothing can be said of them:
// not even that there is nothing to do.
func (in *installation) look(ctx context.Context) (map[string]installedUnit, error) {
	found := make(map[string]installedUnit)
	if in.root != "" {
		return found, nil
	}
	for _, unit := range unitNames(in.service) {
		u, err := unitPlace{}.ask(ctx, in.app, unit)
		if err != nil {
			hint := "where systemd does not run, --install --root=/ writes and enables the units"
			if in.globals.User {
				hint = "is your service manager running, and XDG_RUNTIME_DIR set?"
			}
			return nil, exitf(exitFailed, "ask systemd about %s: %w", unit, cleanError{err}).withHint("%s", hint)
		}
		found[unit] = u
	}
	return found, nil
}

// activate has systemd load, enable and start the units, as far as it has not done
// so already. A service that is stopped is started if this run enables it, or if it
// has failed: one that somebody has stopped stays so.
func (in *installation) activate(ctx context.Context, before map[string]installedUnit) error {
	all, service := unitNames(in.service), in.service.UnitName()
	reload := in.report.filesChanged()
	for _, unit := range all {
		was := before[unit].values
		// Not loaded: a run before this one wrote the file, and got no further.
		reload = reload || was["NeedDaemonReload"] == "yes" || was["LoadState"] == "not-found"
	}
	if reload {
		if err := in.systemctl(ctx, "daemon-reload"); err != nil {
			return err
		}
	}
	now, err := in.look(ctx)
	if err != nil {
		return err
	}
	state := func(unit, property string) string { return now[unit].values[property] }
	fresh := state(service, "UnitFileState") != "enabled"
	if slices.ContainsFunc(all, func(unit string) bool { return state(unit, "UnitFileState") != "enabled" }) {
		if err := in.systemctl(ctx, append([]string{"enable"}, all...)...); err != nil {
			return err
		}
	}
	switch state(service, "ActiveState") {
	case "inactive", "failed", "":
	default:
		in.findNeeded(state)
		return nil
	}
	// Sockets whose settings changed while nobody has them are opened anew.
	var anew []string
	for _, f := range in.report.Files {
		if f.Result == unitChanged && f.Unit != service && state(f.Unit, "ActiveState") == "active" && in.applies(f) != "" {
			anew = append(anew, f.Unit)
		}
	}
	if anew != nil {
		if err := in.systemctl(ctx, append([]string{"stop"}, anew...)...); err != nil {
			return err
		}
	}
	failed := slices.ContainsFunc(all, func(unit string) bool { return state(unit, "ActiveState") == "failed" })
	switch {
	case fresh || failed:
		return in.systemctl(ctx, append([]string{"start"}, all...)...)
	case anew != nil:
		if err := in.systemctl(ctx, append([]string{"start"}, anew...)...); err != nil {
			return err
		}
	}
	in.need(service, "it is stopped, and stays so", "systemctl "+in.userFlag()+"start "+service)
	return nil
}

// warnMissing names the programs of the units that are not there, or cannot be
// executed: systemd says so only when it needs them.
func (in *installation) warnMissing() {
	warn := func(program, what, hint string) {
		// Of an image, a symbolic link can only be followed in the image.
		stat := os.Stat
		if in.root != "" {
			stat = os.Lstat
		}
		info, err := stat(in.root + program)
		switch {
		case errors.Is(err, os.ErrNotExist):
			in.warnf("%s is not there: %s%s", program, what, hint)
		case err == nil && info.Mode().Type() != os.ModeSymlink && (!info.Mode().IsRegular() || info.Mode()&0o111 == 0):
			in.warnf("%s is not executable: %s%s", program, what, hint)
		}
	}
	warn(in.service.Exec, "the service cannot start", "")
	hint := ""
	if self, err := os.Executable(); err == nil {
		hint = "; this hdctl is " + clean(self) + ": install it there, or say where it is with --hdctl=PATH"
	}
	what := "a stop cuts connections, and each reload fails"
	if in.service.NotifyReload {
		what = "a stop cuts connections"
	}
	warn(cmp.Or(in.service.Hdctl, units.DefaultHdctl), what, hint)
}

// findNeeded says what of the units is not in force in a service that runs.
func (in *installation) findNeeded(state func(unit, property string) string) {
	ctl, service := "systemctl "+in.userFlag(), in.service.UnitName()
	for _, f := range in.report.Files {
		switch what := in.applies(f); {
		case f.Unit == service && what != "":
			in.need(f.Unit, what+" changed, which an upgrade inherits from the version that runs", ctl+"restart "+service)
		case f.Unit == service:
		case state(f.Unit, "ActiveState") != "active":
			in.need(f.Unit, "the service runs without this socket", ctl+"restart "+service)
		case what != "":
			in.need(f.Unit, what+" changed, and the socket is open as it was; clients are refused while it is opened anew",
				fmt.Sprintf("%sstop %s %s && %sstart %s", ctl, service, f.Unit, ctl, service))
		}
	}
}

func (in *installation) need(unit, why, command string) {
	in.report.Needed = append(in.report.Needed, unitNeeded{unit, why, command})
}

// applies returns the settings of a file that was changed which only apply to what
// is started anew, in words; "" if there are none.
func (in *installation) applies(f unitFile) string {
	if f.Result != unitChanged {
		return ""
	}
	names, err := units.RestartFor(f.before, f.after)
	if err != nil {
		return "its content" // it was no unit before
	}
	return strings.Join(names, ", ")
}

// enableInImage enables the units in a file system that is not the running one.
func (in *installation) enableInImage(ctx context.Context) error {
	root := "--root=" + in.root
	args := []string{root}
	if in.globals.User {
		args = append(args, "--global")
	}
	enabled := true
	for _, unit := range unitNames(in.service) {
		out, _ := exec.CommandContext(ctx, "systemctl", append(args, "is-enabled", unit)...).Output()
		enabled = enabled && strings.TrimSpace(string(out)) == "enabled"
	}
	if enabled {
		return nil
	}
	return in.command(ctx, append(append(args, "enable"), unitNames(in.service)...)...)
}

// systemctl runs systemctl for the manager of the service.
func (in *installation) systemctl(ctx context.Context, args ...string) error {
	if in.globals.User {
		args = append([]string{"--user"}, args...)
	}
	return in.command(ctx, args...)
}

// command runs systemctl and notes it.
func (in *installation) command(ctx context.Context, args ...string) error {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	cmd.Stderr = &stderr
	line := "systemctl " + strings.Join(args, " ")
	if err := cmd.Run(); err != nil {
		e := exitf(exitFailed, "%s: %w", line, err).withHint("the files are written, and a second run goes on from here; systemctl %sstatus %s", in.userFlag(), in.service.UnitName())
		for text := range strings.Lines(strings.TrimSpace(stderr.String())) {
			e.more = append(e.more, clean(strings.TrimSuffix(text, "\n")))
		}
		return e
	}
	in.report.Actions = append(in.report.Actions, line)
	return nil
}

// forbidden gives an error that root would not have got its exit status.
func (in *installation) forbidden(err error) error {
	if !errors.Is(err, os.ErrPermission) || in.globals.User {
		return err
	}
	return exitf(exitPermission, "%w", err).withHint("as root; or --user, for your own service manager")
}

// staleSockets returns the files of sockets in the directory that are the service's
// and that it does not ask for.
func staleSockets(dir string, s units.Service) []string {
	var stale []string
	candidates, _ := filepath.Glob(unitPath(dir, s.Name+"*.socket")) // a name has no special characters
	wanted := unitNames(s)
	for _, path := range candidates {
		name := filepath.Base(path)
		if slices.Contains(wanted, name) || name != s.Name+".socket" && !strings.HasPrefix(name, s.Name+"-") {
			continue
		}
		content, err := os.ReadFile(path)
		if err == nil && slices.Contains(strings.Split(string(content), "\n"), "Service="+s.UnitName()) {
			stale = append(stale, path)
		}
	}
	return stale
}
