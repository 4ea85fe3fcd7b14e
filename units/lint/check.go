package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hdctl/handoff/upgrade/control"
)

// Options say what the units are for, and what is known besides.
type Options struct {
	// Systemd is the version that the units are for. 0 is each from 252 on: then a
	// unit must be right for all of them.
	Systemd int
	// UserManager says that they are for the service manager of a user.
	UserManager bool
	// Ignore are ids of rules that are not applied.
	Ignore []string
	// Needs is what the programs of services ask for, by the names of their units; see
	// [Ask]. What is not there is not known.
	Needs map[string]*control.Needs
	// Unclaimed are the names of sockets that the service, as it runs, was passed and
	// does not serve.
	Unclaimed []string
}

// Finding is a mistake in a unit. Its JSON is stable: fields are only added.
type Finding struct {
	Rule     string   `json:"rule"` // id of a [Rule]
	Severity Severity `json:"severity"`
	Unit     string   `json:"unit"`
	File     string   `json:"file"`
	Line     int      `json:"line"`    // from 1; 0: the file as a whole
	Message  string   `json:"message"` // a sentence
	Source   string   `json:"source"`
	Fix      string   `json:"fix"` // what to write
}

// Check returns what is wrong with units, in the order of their files and lines.
// Sockets and services among them that belong together are checked against each
// other.
func Check(units []*Unit, o Options) []Finding {
	var findings []Finding
	for _, g := range groups(units, o) {
		for _, r := range Rules() {
			if slices.Contains(o.Ignore, r.ID) || !r.concerns(o.Systemd) {
				continue
			}
			r.check(g, func(u *Unit, at Position, format string, args ...any) {
				if slices.ContainsFunc(u.ignored, func(d directive) bool { return d.rule == r.ID }) {
					return
				}
				findings = append(findings, Finding{
					Rule: r.ID, Severity: r.Severity, Unit: u.Name, File: at.File, Line: at.Line,
					Message: fmt.Sprintf(format, args...), Source: r.Source,
					Fix: strings.ReplaceAll(r.Fix, "NAME", g.name()),
				})
			})
		}
	}
	order := make(map[string]int) // of the files
	for _, u := range units {
		for _, file := range u.Files {
			order[file] = len(order)
		}
	}
	slices.SortStableFunc(findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(order[a.File], order[b.File]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Rule, b.Rule))
	})
	return slices.Compact(findings)
}

// group is a service with its sockets.
type group struct {
	service *Unit   // nil: it is not there
	sockets []*Unit // those that start it, and, of those it names, those that do not
	options Options
}

// groups puts units together that belong together.
func groups(units []*Unit, o Options) []*group {
	var list []*group
	taken := make(map[*Unit]bool)
	for _, u := range units {
		if !u.isService() {
			continue
		}
		g := &group{service: u, options: o}
		for _, s := range units {
			if s.isSocket() && (serviceOf(s) == u.Name || slices.Contains(socketsNamedBy(u), s.Name) && meantFor(u, s)) {
				g.sockets = append(g.sockets, s)
				taken[s] = true
			}
		}
		list = append(list, g)
	}
	alone := make(map[string]*group)
	for _, s := range units {
		if !s.isSocket() || taken[s] {
			continue
		}
		service := serviceOf(s)
		if alone[service] == nil {
			alone[service] = &group{options: o}
			list = append(list, alone[service])
		}
		alone[service].sockets = append(alone[service].sockets, s)
	}
	return list
}

// name is what the library calls the service: what is behind handoff/ in
// RuntimeDirectory=, or else the name of the unit.
func (g *group) name() string {
	switch {
	case g.service != nil:
		if s, ok := g.runtimeDirectory(); ok {
			return strings.TrimPrefix(s.Value, handoffDir)
		}
		return g.service.base()
	case len(g.sockets) > 0:
		return strings.TrimSuffix(serviceOf(g.sockets[0]), ".service")
	}
	return "NAME"
}

// handoffDir is where the directories of all services are, below /run and
// /var/lib.
const handoffDir = "handoff/"

// runtimeDirectory returns that of RuntimeDirectory= which has the control socket.
func (g *group) runtimeDirectory() (Setting, bool) { return g.directory("RuntimeDirectory") }

func (g *group) directory(setting string) (Setting, bool) {
	for _, s := range g.service.words("Service", setting) {
		s.Value, _, _ = strings.Cut(s.Value, ":") // a symbolic link to it
		if rest, ok := strings.CutPrefix(s.Value, handoffDir); ok && rest != "" && !strings.Contains(rest, "/") {
			return s, true
		}
	}
	return Setting{}, false
}

// own are the sockets that start the service of the group.
func (g *group) own() []*Unit {
	if g.service == nil {
		return g.sockets
	}
	var list []*Unit
	for _, s := range g.sockets {
		if serviceOf(s) == g.service.Name {
			list = append(list, s)
		}
	}
	return list
}
