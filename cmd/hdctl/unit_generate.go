package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/hdctl/handoff/units"
)

// generateCmd is "hdctl unit generate".
type generateCmd struct {
	Name string `arg:"" name:"name" help:"Name of the service."`

	unitFlags `embed:""`

	Output  string `placeholder:"DIR" xor:"where" help:"Write the files there, if they are not there as they should be. Default: print the files."`
	Install bool   `xor:"where" help:"Write the files to where systemd looks for them, have it load them, and enable the service and its sockets, and start it when it is enabled. What runs is not restarted, and what somebody has stopped is not started."`
	Root    string `placeholder:"DIR" help:"With --install: into the file system below DIR, as of an image; nothing is started."`
}

// Help is shown by hdctl unit generate --help.
func (generateCmd) Help() string {
	return `The files are for the system; with --user, for the service manager of a user.
The service unit has the command line noted in it. Without any flag of the units,
such as --exec, it is taken from the installed one: to write the files anew after an
update of hdctl.

Example:

    hdctl unit generate app --listen http=8080 --exec /usr/bin/app --profile strict
    hdctl unit generate app --listen http=80 --listen dns=udp:53 --listen admin=/run/app.sock,mode=0660,group=adm --exec /usr/bin/app --arg=--verbose --run-as app --install
    hdctl unit generate app --install
`
}

// Run renders the units and prints, writes or installs them.
func (c *generateCmd) Run(ctx context.Context, a *app) error {
	if c.Root != "" && !c.Install {
		return exitf(exitUsage, "--root is for --install").withHint("hdctl unit generate --help")
	}
	place := unitPlace{root: c.Root, dir: c.Output, install: c.Install}
	s, err := c.unitFlags.resolve(ctx, a, c.Name, place)
	if err != nil {
		return err
	}
	files, err := renderUnits(s, "generate")
	if err != nil {
		return err
	}
	switch {
	case c.Install:
		in := &installation{app: a, service: s, root: c.Root}
		return in.run(ctx, files)
	case c.Output != "":
		written, err := writeUnits(c.Output, files)
		if err != nil {
			return err
		}
		r := &unitReport{Files: written}
		a.printUnitReport(r)
		if r.filesChanged() {
			ctl := "systemctl " + a.userFlag()
			// That enables and starts the sockets, too.
			a.notef("next: %sdaemon-reload && %senable --now %s", ctl, ctl, s.UnitName())
		}
		return nil
	}
	return a.printUnits(files)
}

// printUnits prints the files.
func (a *app) printUnits(files map[string][]byte) error {
	if a.globals.Format == "json" || a.globals.Format == "jsonl" {
		text := make(map[string]string)
		for name, content := range files {
			text[name] = string(content)
		}
		return a.printJSON(text, a.globals.Format == "json")
	}
	for i, name := range slices.Sorted(maps.Keys(files)) {
		if i > 0 {
			a.printf("\n")
		}
		a.printf("# ----- %s -----\n%s", name, files[name])
	}
	return nil
}

// renderUnits renders the units of s for a verb.
func renderUnits(s units.Service, verb string) (map[string][]byte, error) {
	files, err := s.Render()
	if err != nil {
		// Validate joins all that is wrong, a line each.
		return nil, exitf(exitUsage, "%s", strings.ReplaceAll(err.Error(), "\n", "; ")).withHint("hdctl unit %s --help", verb)
	}
	return files, nil
}

// resolve returns the service that the flags describe. If there are none, they are
// those that are noted in the installed unit.
func (c *unitFlags) resolve(ctx context.Context, a *app, name string, place unitPlace) (units.Service, error) {
	flags := *c
	if reflect.ValueOf(flags).IsZero() {
		unit := name + ".service"
		path := place.find(ctx, a, unit).path
		content, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return units.Service{}, exitf(exitUsage, "missing flags: --exec=PATH, --listen=NAME=ADDR: there is no %s from which they could be taken", path).
				withHint("hdctl unit generate --help")
		}
		if err == nil {
			flags, err = recordedFlags(content, name, a.globals.User)
		}
		if err != nil {
			return units.Service{}, exitf(exitUsage, "take the flags from %s: %w", path, err).
				withHint("give them: hdctl unit generate --help")
		}
	}
	if flags.Hdctl == "" && place.install {
		flags.Hdctl = place.hdctl()
	}
	s, err := flags.service(name, a.globals.User)
	if err != nil {
		return s, exitf(exitUsage, "%w", err).withHint("hdctl unit generate --help")
	}
	return s, nil
}

// localHdctl is where "make install" has put hdctl by default.
const localHdctl = "/usr/local/bin/hdctl"

// hdctl returns the path of hdctl for units that are installed in this place; "" is
// the default, which is that of the packages. Only these two are looked for: where
// else this hdctl is, in a home directory or in that of a build, is no place for a
// service to depend on.
func (p unitPlace) hdctl() string {
	there := func(path string) bool {
		info, err := os.Lstat(p.root + path) // a link of an image leads to somewhere in it
		return err == nil && !info.IsDir()
	}
	if !there(units.DefaultHdctl) && there(localHdctl) {
		return localHdctl
	}
	return ""
}

// unitPlace is where units are looked for: in a directory, below the root of an
// image, or where systemd has them from.
type unitPlace struct {
	root, dir string
	install   bool // units are for the machine, or the image, that is looked at
}

// installedUnit is what is known of a unit that may be installed.
type installedUnit struct {
	path    string // of its file, which need not be there
	dropIns []string
	values  map[string]string // what systemd says; nil if it was not asked or knows nothing
}

// find looks for a unit.
func (p unitPlace) find(ctx context.Context, a *app, unit string) installedUnit {
	if p.dir != "" || p.root != "" {
		return installedUnit{path: unitPath(p.dirOr(a), unit)}
	}
	found, err := p.ask(ctx, a, unit)
	if err != nil {
		a.warnOnce("systemd cannot be asked, so %s is looked for in its directory only: %v", unit, cleanError{err})
	}
	return found
}

// ask asks systemd about a unit. With an error, what is returned has the path where
// the unit would be.
func (p unitPlace) ask(ctx context.Context, a *app, unit string) (installedUnit, error) {
	found := installedUnit{path: unitPath(p.dirOr(a), unit)}
	values, err := a.show(a.patience.before)(ctx, unit, "LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload", "FragmentPath", "DropInPaths")
	if err != nil {
		return found, err
	}
	found.values = values
	found.dropIns = strings.Fields(values["DropInPaths"])
	if path := values["FragmentPath"]; path != "" {
		found.path = path
	}
	return found, nil
}

// dirOr returns the directory; without one that is where an administrator's units are.
func (p unitPlace) dirOr(a *app) string {
	switch {
	case p.dir != "":
		return p.dir
	case a.globals.User:
		config := a.env["XDG_CONFIG_HOME"]
		if config == "" {
			config = fmt.Sprintf("%s/.config", a.env["HOME"])
		}
		return filepath.Join(p.root, config, "systemd/user")
	}
	return filepath.Join(cmp.Or(p.root, "/"), "etc/systemd/system")
}
