package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/hdctl/handoff/units/lint"
	"github.com/hdctl/handoff/upgrade/control"
)

// value returns what the value of a flag or an argument can be. what is the word
// that stands for it in the help: PATH, DIR, unit.
func (p *cursor) value(ctx context.Context, a *app, v *kong.Value, what, word string) ([]candidate, directive) {
	if v.Enum != "" {
		var out []candidate
		for _, text := range v.EnumSlice() {
			if text != "" {
				out = append(out, candidate{text: text})
			}
		}
		return out, noDirective
	}
	switch v.Name {
	case "unit":
		return p.units(a), noDirective
	case "file|name": // a word that begins no unit is a path
		installed := p.units(a)
		installed = slices.DeleteFunc(installed, func(c candidate) bool { return !strings.HasPrefix(c.text, word) })
		if len(installed) == 0 {
			return nil, files
		}
		return installed, noDirective
	case "rule", "ignore":
		return rules(), noDirective
	case "for":
		return p.goals(ctx, a, word), noDirective
	case "generation":
		return p.generations(ctx, a), noDirective
	case "listener":
		return p.sockets(ctx, a), noDirective
	}
	if v.Flag == nil && v.Name == "name" {
		return p.units(a), noDirective
	}
	switch strings.ToLower(what) {
	case "path", "file", "files":
		return nil, files
	case "dir":
		return nil, directories
	}
	return nil, noDirective
}

// units are the services that have a control socket and are not on the line yet. For
// verbs about services that do not run, they are also those that have left a history.
func (p *cursor) units(a *app) []candidate {
	names, err := control.Services(a.dir())
	if err != nil {
		return nil
	}
	if p.node.Name == "start" || p.node.Name == "history" {
		left, _ := os.ReadDir(filepath.Dir(a.stateOf(target{name: "any"}))) // there may be none
		for _, e := range left {
			names = append(names, e.Name())
		}
		slices.Sort(names)
	}
	var out []candidate
	for _, name := range slices.Compact(names) {
		// What is no name of a service is somebody's directory.
		if control.CheckName(name) == nil && !slices.Contains(p.args, name) {
			out = append(out, candidate{text: name})
		}
	}
	return out
}

// rules are what "unit verify" knows of.
func rules() []candidate {
	var out []candidate
	for _, r := range lint.Rules() {
		out = append(out, candidate{r.ID, firstSentence(r.Summary)})
	}
	return out
}

// status asks the service that the line is about. It returns nil if it does not
// answer soon, or if there is no such service.
func (p *cursor) status(ctx context.Context, a *app) *control.Status {
	unit := ""
	if len(p.args) > 0 {
		unit = p.args[0]
	}
	t, err := a.only(unit)
	if err != nil {
		return nil
	}
	s, err := a.client(t).Status(ctx)
	if err != nil {
		return nil
	}
	return s
}

// goals are what can be waited for. The generations are asked for when it comes to
// that: a generation that an upgrade is making, or that the next one will make.
func (p *cursor) goals(ctx context.Context, a *app, word string) []candidate {
	const byNumber = "generation="
	if !strings.HasPrefix(word, byNumber) {
		return []candidate{
			{string(goalReady), "the main generation serves"},
			{string(goalDrained), "no old generation drains"},
			{byNumber, "this generation, or a later one, serves"},
		}
	}
	s := p.status(ctx, a)
	if s == nil {
		return nil
	}
	next := candidate{byNumber + strconv.Itoa(s.Main+1), "after the next upgrade"}
	if s.Upgrade != nil && s.Upgrade.To > 0 {
		next = candidate{byNumber + strconv.Itoa(s.Upgrade.To), "after the upgrade in progress"}
	}
	return []candidate{{byNumber + strconv.Itoa(s.Main), "the main generation"}, next}
}

// generations are the numbers of those that live; for "end", of those that drain.
func (p *cursor) generations(ctx context.Context, a *app) []candidate {
	s := p.status(ctx, a)
	if s == nil {
		return nil
	}
	var out []candidate
	for _, g := range s.Generations {
		if p.node.Name != "end" || g.State == control.StateDraining {
			out = append(out, candidate{strconv.Itoa(g.Number), clean(strings.TrimSpace(string(g.State) + " " + g.Version))})
		}
	}
	return out
}

// sockets are the names of the service's sockets.
func (p *cursor) sockets(ctx context.Context, a *app) []candidate {
	s := p.status(ctx, a)
	if s == nil {
		return nil
	}
	var out []candidate
	for _, sock := range s.Sockets {
		c := candidate{clean(sock.Name), clean(sock.Network + " " + sock.Address)}
		if sock.Name != "" && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}
