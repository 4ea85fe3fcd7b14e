package main

import (
	"cmp"
	"context"
	"os"
	"os/user"

	"github.com/hdctl/handoff/units/doctor"
	"github.com/hdctl/handoff/upgrade/control"
)

// doctorCmd is "hdctl doctor".
type doctorCmd struct {
	Unit string `arg:"" optional:"" name:"unit" help:"Look at this service only. Default: the host, and all services."`
}

// Help is shown by hdctl doctor --help.
func (doctorCmd) Help() string {
	return `Looks at the host (kernel, systemd, SELinux and AppArmor, tools that restart services by themselves) and at services (what they say of themselves, what systemd has loaded of their units, limits, sockets that the program has bound by itself, versions of the library). It changes nothing, and works for every user; what you may not see, it says.

Exit status: 0 if nothing would break a handoff (there may be warnings), 1 if something would.

Example:

    hdctl doctor
    sudo hdctl doctor app
    hdctl doctor -o jsonl | jq -r 'select(.result != "ok") | "\(.service // "host"): \(.message)"'
`
}

// diagnosis is what "hdctl doctor -o json" prints.
type diagnosis struct {
	Host     []control.Check `json:"host,omitempty"` // not if a service was asked for
	Services []patient       `json:"services"`
}

// patient is a service, and what there is to say about it.
type patient struct {
	Service string          `json:"service"`
	Unit    string          `json:"unit,omitempty"`
	Checks  []control.Check `json:"checks"`
}

// finding is a line of "hdctl doctor -o jsonl": of the host if it has no service.
type finding struct {
	Service string `json:"service,omitempty"`
	control.Check
}

// Run looks, and changes nothing.
func (c *doctorCmd) Run(ctx context.Context, a *app) error {
	d := diagnosis{Services: []patient{}}
	s := a.doctor()
	var targets []target
	if c.Unit == "" && a.globals.Socket == "" {
		// Services of which there is no socket are no reason not to look at the host.
		all, err := a.several(nil)
		if err != nil {
			return err
		}
		targets = all
		d.Host = s.Host(ctx)
	} else {
		t, err := a.target(c.Unit)
		if err != nil {
			return err
		}
		targets = []target{t}
	}
	for _, r := range a.reports(ctx, targets) {
		if c.Unit != "" && r.Condition == condNoService {
			return exitf(r.exit, "%s", clean(r.Error.Message)).withHint("%s", clean(r.Error.Hint))
		}
		d.Services = append(d.Services, diagnose(ctx, s, r))
	}
	return a.printDiagnosis(d)
}

// doctor returns the system to look at.
func (a *app) doctor() doctor.System {
	s := a.examine
	s.User = a.globals.User
	s.Drift = func(ctx context.Context, unit string, pid int) ([]control.Check, error) {
		return a.drift(ctx, unit, pid, a.globals.User)
	}
	if s.Root == "" {
		s.RunDir = a.dir()
		s.Version = buildVersion()
		s.Hdctl, _ = os.Executable()
	}
	if s.Show == nil {
		s.Show = a.show(a.patience.before)
	}
	if u, err := user.Current(); err == nil {
		s.UserName = u.Username
	}
	return s
}

// diagnose looks at a service, whether it answers or not.
func diagnose(ctx context.Context, s doctor.System, r *statusReport) patient {
	p := patient{Service: r.Service, Unit: r.Unit}
	unit := r.Unit
	if r.Status != nil && r.Status.Invocation == "" {
		p.Unit, unit = "", ""
	}
	switch r.Condition {
	case condServing, condNotServing, condNotRunning:
	default:
		p.Checks = append(p.Checks, control.Check{
			Name: "state", Result: control.CheckFailed, Message: r.Error.Message,
			Hint: cmp.Or(r.Error.Hint, r.target.command("status")),
		})
		if r.Condition == condNoPermission {
			p.Checks[0].Result = control.CheckWarning
		}
	}
	for _, text := range r.Mismatch {
		p.Checks = append(p.Checks, control.Check{Name: "state", Result: control.CheckFailed, Message: text, Hint: r.target.command("status")})
	}
	p.Checks = append(p.Checks, s.Service(ctx, unit, r.Status)...)
	return p
}

// printDiagnosis prints what was found, and returns the exit status.
func (a *app) printDiagnosis(d diagnosis) error {
	groups := []patient{{Checks: d.Host}}
	groups = append(groups, d.Services...)
	failed := 0
	for _, g := range groups {
		for _, c := range g.Checks {
			if c.Result == control.CheckFailed {
				failed++
			}
		}
	}
	switch a.globals.Format {
	case "json":
		if err := a.printJSON(d, true); err != nil {
			return err
		}
	case "jsonl":
		for _, g := range groups {
			for _, c := range g.Checks {
				if err := a.printJSON(finding{Service: g.Service, Check: c}, false); err != nil {
					return err
				}
			}
		}
	default:
		a.printPatients(groups)
	}
	if failed > 0 {
		return exitf(exitFailed, "%s would break a handoff", count(failed, "finding"))
	}
	return nil
}

// printPatients prints a table for the host, and one for each service.
func (a *app) printPatients(groups []patient) {
	if a.quiet {
		return
	}
	first := true
	for _, g := range groups {
		if len(g.Checks) == 0 {
			continue
		}
		if !first {
			a.printf("\n")
		}
		first = false
		a.printf("%s\n", clean(cmp.Or(g.Unit, g.Service, "host")))
		a.printChecks(g.Checks)
	}
}
