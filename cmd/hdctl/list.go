package main

import (
	"context"
	"strconv"

	"github.com/hdctl/handoff/upgrade/control"
)

// listCmd is "hdctl list".
type listCmd struct{}

// Help is shown by hdctl list --help.
func (listCmd) Help() string {
	return `Example:

    hdctl list
    hdctl list --no-legend | awk '{print $1}'
`
}

// listEntry is what "hdctl list -o json" prints for a service.
type listEntry struct {
	Service   string        `json:"service"`
	Socket    string        `json:"control_socket"`
	Condition string        `json:"condition"` // as in status
	Main      int           `json:"main,omitempty"`
	MainPID   int           `json:"main_pid,omitempty"`
	Version   string        `json:"version,omitempty"`
	State     control.State `json:"state,omitempty"`
	Draining  int           `json:"draining"`
	Unit      string        `json:"unit,omitempty"`
}

// Run lists the services. One that does not answer is listed, too.
func (c *listCmd) Run(ctx context.Context, a *app) error {
	targets, err := a.several(nil)
	if err != nil {
		return err
	}
	entries := []listEntry{} // not null in JSON
	for _, r := range a.reports(ctx, targets) {
		e := listEntry{Service: r.Service, Socket: r.Path, Condition: r.Condition}
		if s := r.Status; s != nil {
			e.Main, e.MainPID, e.State = s.Main, mainPID(s), s.State
			e.Unit = unitOf(e.MainPID)
			for _, g := range s.Generations {
				if g.Number == s.Main {
					e.Version = g.Version
				}
				if g.State == control.StateDraining {
					e.Draining++
				}
			}
		}
		entries = append(entries, e)
	}
	switch a.globals.Format {
	case "json":
		return a.printJSON(entries, true)
	case "jsonl":
		for _, e := range entries {
			if err := a.printJSON(e, false); err != nil {
				return err
			}
		}
		return nil
	}
	c.table(entries).print(&a.terminal, !a.globals.NoLegend)
	return nil
}

func (*listCmd) table(entries []listEntry) *table {
	t := &table{columns: []column{
		left("NAME"), right("MAIN PID"), right("GEN"), left("VERSION"), left("STATE"), right("DRAINING"), left("UNIT"),
	}}
	for _, e := range entries {
		if e.Main == 0 {
			t.add(text(e.Service), text(""), text(""), text(""), cell{e.Condition, red}, text(""), text(e.Unit))
			continue
		}
		t.add(text(e.Service), text(strconv.Itoa(e.MainPID)), text(strconv.Itoa(e.Main)), text(e.Version),
			cell{clean(string(e.State)), stateStyle(e.State)}, text(strconv.Itoa(e.Draining)), text(e.Unit))
	}
	return t
}
