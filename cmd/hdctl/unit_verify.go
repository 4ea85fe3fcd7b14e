package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/units/lint"
	"github.com/hdctl/handoff/upgrade/control"
)

// verifyCmd is "hdctl unit verify".
type verifyCmd struct {
	Units   []string `arg:"" name:"file|name" help:"Unit files, directories with unit files, or the name of a service that is installed."`
	Systemd int      `placeholder:"VERSION" help:"The version of systemd that the units are for (that of this machine; without systemd: all from 252 on)."`
	Ignore  []string `placeholder:"RULE" help:"Leave out a rule; repeat it for more."`
	Strict  bool     `help:"Warnings are errors, too: for the exit status."`
	Execute bool     `name:"run" help:"Execute the program of the service, to have it say which sockets it asks for."`
}

// Help is shown by hdctl unit verify --help.
func (verifyCmd) Help() string {
	return `Sockets and the service that belong together are checked against each other; what is not named is looked for beside the files. With the name of a service, the files are those that systemd uses, drop-ins included; if it runs, it is asked which of its sockets it does not serve.

A comment in a unit leaves out a rule for this unit: # hdctl: ignore RULE -- why.

--run executes the program of ExecStart= as the user nobody, if it is written with the handoff library; it prints what it asks for and ends.

Exit status: 0 no errors, 1 errors (--strict: or warnings).

Example:

    hdctl unit verify app
    hdctl unit verify --systemd 252 --strict debian/app.service debian/app.socket
    hdctl unit verify app -o jsonl | jq -r .rule | sort | uniq -c
    hdctl unit explain kill-mode
`
}

// verifyReport is the JSON of verify.
type verifyReport struct {
	Units    []string       `json:"units"` // the files that were read
	Systemd  int            `json:"systemd"`
	Errors   int            `json:"errors"`
	Warnings int            `json:"warnings"`
	Findings []lint.Finding `json:"findings"`
}

// Run checks units, and prints what is wrong with them.
func (c *verifyCmd) Run(ctx context.Context, a *app) error {
	o := lint.Options{Systemd: c.Systemd, UserManager: a.globals.User, Ignore: c.Ignore}
	for _, id := range c.Ignore {
		if _, ok := lint.Lookup(id); !ok {
			return unknownRule("--ignore: ", id)
		}
	}
	if o.Systemd == 0 {
		o.Systemd, _, _ = units.SystemdVersion(ctx, a.show(a.patience.systemd)) // 0: for all of them
	}
	report := verifyReport{Systemd: o.Systemd, Findings: []lint.Finding{}, Units: []string{}}
	sites, err := c.sites(ctx, a)
	if err != nil {
		return err
	}
	for _, s := range sites {
		o.Unclaimed, o.Needs = s.unclaimed, nil
		if c.Execute {
			if o.Needs, err = s.needs(ctx); err != nil {
				return exitf(exitFailed, "%w", cleanError{err}).withHint("without --run, no program is executed")
			}
		}
		for _, u := range s.units {
			report.Units = append(report.Units, u.Files...)
		}
		report.Findings = append(report.Findings, lint.Check(s.units, o)...)
	}
	for _, f := range report.Findings {
		if f.Severity == lint.Error {
			report.Errors++
		} else {
			report.Warnings++
		}
	}
	return c.print(a, report)
}

// site are units that are checked together.
type site struct {
	units     []*lint.Unit
	unclaimed []string // sockets that the service, as it runs, does not serve
}

// sites reads the units: all files are one site, and each service another.
func (c *verifyCmd) sites(ctx context.Context, a *app) ([]site, error) {
	var files []string
	var sites []site
	for _, arg := range c.Units {
		if isFile(arg) {
			files = append(files, arg)
			continue
		}
		s, err := installedSite(ctx, a, arg)
		if err != nil {
			return nil, err
		}
		sites = append(sites, s)
	}
	if files == nil {
		return sites, nil
	}
	list, err := lint.LoadSite(files...)
	if errors.Is(err, os.ErrPermission) {
		return nil, exitf(exitPermission, "%w", err)
	}
	if err != nil {
		return nil, exitf(exitUsage, "%w", err)
	}
	if list == nil {
		return nil, exitf(exitUsage, "there are no unit files in %s", strings.Join(files, ", "))
	}
	return append([]site{{units: list}}, sites...), nil
}

// isFile tells a file from the name of a service: it has a slash, or is a unit file
// in this directory.
func isFile(arg string) bool {
	if strings.Contains(arg, "/") || arg == "." || arg == ".." {
		return true
	}
	info, err := os.Stat(arg)
	ext := filepath.Ext(arg)
	return err == nil && info.Mode().IsRegular() && (ext == ".service" || ext == ".socket")
}

// installedSite are the units of an installed service.
func installedSite(ctx context.Context, a *app, name string) (site, error) {
	t, err := a.target(name)
	if err != nil {
		return site{}, err
	}
	list, err := lint.LoadInstalled(ctx, t.unit(), a.show(a.patience.before))
	switch {
	case errors.Is(err, lint.ErrNoUnit):
		return site{}, exitf(exitNoService, "%w", err).withHint("for a file, write its path: ./%s", t.unit())
	case errors.Is(err, os.ErrPermission):
		return site{}, exitf(exitPermission, "%w", err)
	case err != nil:
		// What systemctl has said can have several lines.
		return site{}, exitf(exitFailed, "%s", clean(strings.ReplaceAll(err.Error(), "\n", " "))).withHint("for a file, write its path: ./%s", t.unit())
	}
	s := site{units: list}
	ctx, cancel := context.WithTimeout(ctx, a.patience.status)
	defer cancel()
	// It may well not run: then there is nothing to add.
	if status, err := a.client(t).Status(ctx); err == nil {
		for _, socket := range status.Sockets {
			if !socket.Claimed {
				s.unclaimed = append(s.unclaimed, socket.Name)
			}
		}
	}
	return s, nil
}

// print prints the report, and says how it ends.
func (c *verifyCmd) print(a *app, r verifyReport) error {
	switch a.globals.Format {
	case "json":
		if err := a.printJSON(r, true); err != nil {
			return err
		}
	case "jsonl":
		for _, f := range r.Findings {
			if err := a.printJSON(f, false); err != nil {
				return err
			}
		}
	default:
		a.printFindings(r.Findings)
	}
	if r.Errors == 0 && (r.Warnings == 0 || !c.Strict) {
		return nil
	}
	return exitf(exitFailed, "%s, %s", count(r.Errors, "error"), count(r.Warnings, "warning")).
		withHint("hdctl unit explain RULE says why, and what to write instead")
}

// printFindings prints a table; what to do about each is below it.
func (a *app) printFindings(findings []lint.Finding) {
	t := &table{columns: []column{left("WHERE"), left("SEVERITY"), left("RULE"), left("FINDING")}}
	for _, f := range findings {
		where := f.File
		if f.Line > 0 {
			where = fmt.Sprintf("%s:%d", f.File, f.Line)
		}
		t.add(text(where), cell{string(f.Severity), severityStyle(f.Severity)}, text(f.Rule), text(f.Message))
		t.add(cell{}, cell{}, cell{}, cell{text: "fix: " + clean(f.Fix)})
	}
	t.print(&a.terminal, !a.globals.NoLegend)
}

func severityStyle(s lint.Severity) style {
	if s == lint.Error {
		return red
	}
	return yellow
}

// needs has the programs of the services say which sockets they ask for.
func (s site) needs(ctx context.Context) (map[string]*control.Needs, error) {
	needs := make(map[string]*control.Needs)
	for _, u := range s.units {
		if !strings.HasSuffix(u.Name, ".service") {
			continue
		}
		n, err := lint.Ask(ctx, u)
		if err != nil {
			return nil, err
		}
		needs[u.Name] = n
	}
	if len(needs) == 0 {
		return nil, errors.New("there is no service whose program could be executed")
	}
	return needs, nil
}
