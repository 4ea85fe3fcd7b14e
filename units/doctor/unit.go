package doctor

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/units/lint"
	"github.com/hdctl/handoff/upgrade/control"
)

// unitProperties are the properties of a service that the doctor needs.
func unitProperties() []string {
	return []string{
		"Id", "LoadState", "ActiveState", "ExecReload", "ExecStop", "TimeoutStartUSec", "TimeoutStopUSec", "WatchdogUSec",
		"TriggeredBy", "TasksMax", "TasksCurrent", "MemoryMax", "MemoryHigh",
	}
}

// unit returns what systemd has loaded, or nil and why there is nothing.
func (s System) unit(ctx context.Context, unit string, st *control.Status) (map[string]string, []control.Check) {
	const name = "unit"
	if unit == "" {
		return nil, []control.Check{warn(
			name, "hdctl unit generate writes units for it",
			"systemd has not started the service: nobody holds its sockets when it stops",
		)}
	}
	if s.Show == nil {
		return nil, []control.Check{warn(name, "", "systemd was not asked about %s", unit)}
	}
	values, err := s.Show(ctx, unit, unitProperties()...)
	if err != nil {
		return nil, []control.Check{s.unanswered(name, err)}
	}
	switch state := values["LoadState"]; {
	case state == "not-found":
		return nil, []control.Check{fail(name, "is it installed, and systemd told of it (systemctl daemon-reload)?", "there is no %s: a restart is impossible", unit)}
	case state != "loaded" && state != "":
		return nil, []control.Check{fail(name, "systemctl status "+unit+"; systemd-analyze verify "+unit, "%s is not loaded: %s", unit, state)}
	case st == nil && values["ActiveState"] == "active":
		return values, []control.Check{warn(
			name, "ask as root, or as one whom the control socket lets in (hdctl unit generate --operator-group)",
			"%s runs, but nothing is known of it: only the unit was looked at", unit,
		)}
	case st == nil:
		return values, []control.Check{warn(name, "systemctl start "+unit, "%s is %s: only the unit was looked at", unit, values["ActiveState"])}
	}
	return values, nil
}

// unitFiles applies the rules of package lint to the installed files of a service and
// of its sockets, drop-ins included.
func (s System) unitFiles(ctx context.Context, unit string) []control.Check {
	const name = "unit-files"
	list, err := lint.LoadInstalled(ctx, unit, s.rootedShow)
	if err != nil {
		return []control.Check{unseen(name, s.shorten(err))}
	}
	files := 0
	for _, u := range list {
		files += len(u.Files)
	}
	var checks []control.Check
	version, _, _ := units.SystemdVersion(ctx, s.Show) // 0: for all of them
	for _, f := range lint.Check(list, lint.Options{Systemd: version, UserManager: s.User}) {
		hint := f.Fix + "; hdctl unit explain " + f.Rule
		if f.Severity == lint.Error {
			checks = append(checks, fail(f.Rule, hint, "%s: %s", filepath.Base(f.File), f.Message))
		} else {
			checks = append(checks, warn(f.Rule, hint, "%s: %s", filepath.Base(f.File), f.Message))
		}
	}
	if len(checks) == 0 {
		checks = append(checks, good(name, "no mistake in the %d files of %s and of its sockets", files, unit))
	}
	return checks
}

// rootedShow is Show, with the paths of files below the root.
func (s System) rootedShow(ctx context.Context, unit string, properties ...string) (map[string]string, error) {
	values, err := s.Show(ctx, unit, properties...)
	if err != nil || s.Root == "" {
		return values, err
	}
	rooted := make(map[string]string, len(values))
	for key, value := range values {
		if (key == "FragmentPath" || key == "DropInPaths") && value != "" {
			paths := strings.Fields(value)
			for i := range paths {
				paths[i] = s.path(paths[i])
			}
			value = strings.Join(paths, " ")
		}
		rooted[key] = value
	}
	return rooted, nil
}

// socketUnits looks whether systemd holds the sockets.
func (s System) socketUnits(ctx context.Context, v map[string]string) []control.Check {
	const name = "socket-units"
	var checks []control.Check
	var sockets []string
	for _, unit := range strings.Fields(v["TriggeredBy"]) {
		if !strings.HasSuffix(unit, ".socket") {
			continue
		}
		sockets = append(sockets, unit)
		p, err := s.Show(ctx, unit, "ActiveState")
		switch {
		case err != nil:
			checks = append(checks, s.unanswered(name, err))
		case p["ActiveState"] != "active":
			checks = append(checks, fail(
				name, "systemctl start "+unit+", after a stop of "+v["Id"],
				"%s is %s: systemd does not hold that socket, and a service that starts again does not get it", unit, p["ActiveState"],
			))
		}
	}
	switch {
	case sockets == nil:
		checks = append(checks, warn(
			name, "hdctl unit generate writes matching units",
			"no .socket unit belongs to %s: while it restarts, nobody holds its sockets", v["Id"],
		))
	case len(checks) == 0:
		checks = append(checks, good(name, "systemd holds the sockets of %s", strings.Join(sockets, ", ")))
	}
	return checks
}
