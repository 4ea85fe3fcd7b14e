package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hdctl/handoff/upgrade/control"
)

// connsCmd is "hdctl conns".
type connsCmd struct {
	Unit       string `arg:"" optional:"" name:"unit" help:"The service. May be left out if there is only one."`
	Generation int    `placeholder:"N" help:"Only those of this generation."`
	State      string `enum:"new,active,idle,stream,hijacked," default:"" placeholder:"STATE" help:"Only those in this state: new, active, idle, stream, hijacked."`
	Listener   string `placeholder:"NAME" help:"Only those of the socket with this name."`
	watching
}

// Help is shown by hdctl conns --help.
func (connsCmd) Help() string {
	return `Exit status: 0 if the list is complete, 9 if the connections of a generation are missing.

Example:

    hdctl conns app
    hdctl conns app --generation 5 -o wide
    hdctl conns app --state hijacked -o json | jq -r '.[].peer'
`
}

// Run lists the connections, once or until the context ends.
func (c *connsCmd) Run(ctx context.Context, a *app) error {
	if c.Generation < 0 {
		return exitf(exitUsage, "--generation: %d is no generation: they are numbered from 1", c.Generation)
	}
	t, err := a.only(c.Unit)
	if err != nil {
		return err
	}
	return c.run(ctx, a, func(ctx context.Context) (func(int) error, int, error) {
		list, err := c.look(ctx, a, t)
		if err != nil {
			return nil, 0, err
		}
		return func(lines int) error { return list.show(a, lines) }, list.exit(), nil
	})
}

// connList is what a service says about its connections.
type connList struct {
	target target
	conns  []control.Conn // oldest first
	end    *control.ConnsEnd
}

// look asks for the list. It is printed when it is complete: the service lists
// one generation after the other, and does not wait for whoever reads slowly.
func (c *connsCmd) look(ctx context.Context, a *app, t target) (*connList, error) {
	list := &connList{target: t}
	filter := control.ConnFilter{Generation: c.Generation, State: c.State, Listener: c.Listener}
	err := a.call(ctx, t, a.patience.before, func(ctx context.Context, client *control.Client) (err error) {
		list.end, err = client.Conns(ctx, filter, func(conn control.Conn) {
			list.conns = append(list.conns, conn)
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list.conns, func(x, y control.Conn) int {
		if c := cmp.Compare(y.Age, x.Age); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(x.Generation, y.Generation), strings.Compare(x.Peer, y.Peer))
	})
	return list, nil
}

// exit is the exit status: a list that is not complete is not the truth.
func (l *connList) exit() int {
	if len(l.end.Missing) > 0 {
		return exitUnknown
	}
	return exitOK
}

// show prints the list in the format that was asked for. If it has more lines
// than so many, and they are not 0, it prints the oldest connections.
func (l *connList) show(a *app, lines int) error {
	if err := l.print(a, lines); err != nil {
		return err
	}
	for _, m := range l.end.Missing {
		a.warnf("%s: the connections of generation %d are missing: %s", l.target, m.Generation, clean(m.Reason))
	}
	return nil
}

func (l *connList) print(a *app, lines int) error {
	switch a.globals.Format {
	case "json":
		return l.printJSON(a, "[\n", ",\n", "\n]\n")
	case "jsonl":
		return l.printJSON(a, "", "\n", "\n")
	}
	legend := !a.globals.NoLegend
	room := len(l.conns)
	if lines > 0 {
		room = lines - len(l.end.Missing)
		if legend {
			room -= 3 // header, empty line, summary
		}
	}
	shown := l.conns[:min(len(l.conns), max(room, 1))]
	connTable(shown, a.globals.Format == "wide").print(&a.terminal, legend)
	if !legend {
		return nil
	}
	if len(shown) > 0 {
		a.printf("\n")
	}
	a.printf("%s\n", l.summary(len(shown)))
	return nil
}

// printJSON prints the connections, one a line: a list of this kind is for
// programs, and for grep.
func (l *connList) printJSON(a *app, begin, between, end string) error {
	a.endProgress()
	if len(l.conns) == 0 {
		if begin != "" {
			a.printf("[]\n")
		}
		return nil
	}
	w := bufio.NewWriterSize(a.stdout, 64<<10) // it keeps the first error
	var line bytes.Buffer
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false) // as printJSON
	for i := range l.conns {
		line.Reset()
		if err := e.Encode(&l.conns[i]); err != nil {
			return err
		}
		_, _ = w.WriteString(begin)
		_, _ = w.Write(bytes.TrimSuffix(line.Bytes(), []byte("\n")))
		begin = between
	}
	_, _ = w.WriteString(end)
	return w.Flush()
}

// summary is "38 connections: 35 of generation 6, 3 of generation 5".
func (l *connList) summary(shown int) string {
	var b strings.Builder
	if shown < len(l.conns) {
		fmt.Fprintf(&b, "the oldest %d of ", shown)
	}
	b.WriteString(count(len(l.conns), "connection"))
	of := make(map[int]int)
	for _, c := range l.conns {
		of[c.Generation]++
	}
	generations := make([]int, 0, len(of))
	for n := range of {
		generations = append(generations, n)
	}
	slices.SortFunc(generations, func(x, y int) int { return y - x }) // as in the status
	if len(generations) == 1 {
		fmt.Fprintf(&b, ", all of generation %d", generations[0])
		return b.String()
	}
	for i, n := range generations {
		fmt.Fprintf(&b, "%s%d of generation %d", []string{": ", ", "}[min(i, 1)], of[n], n)
	}
	return b.String()
}

func connTable(conns []control.Conn, wide bool) *table {
	t := &table{columns: []column{right("GEN")}, rows: make([][]cell, 0, len(conns))}
	if wide {
		t.columns = append(t.columns, right("PID"))
	}
	t.columns = append(t.columns, left("LISTENER"), left("STATE"), right("AGE"), right("QUIET"),
		right("IN"), right("OUT"), left("PEER"), left("DOING"))
	cells := make([]cell, 0, len(conns)*len(t.columns)) // of all rows
	for i := range conns {
		c := &conns[i]
		row := len(cells)
		cells = append(cells, cell{text: strconv.Itoa(c.Generation)})
		if wide {
			cells = append(cells, cell{text: strconv.Itoa(c.PID)})
		}
		cells = append(cells, text(c.Listener), text(c.State),
			cell{text: age(seconds(c.Age))}, cell{text: age(seconds(c.Quiet))},
			cell{text: size(c.In)}, cell{text: size(c.Out)},
			text(c.Peer), text(c.Doing))
		t.add(cells[row:]...)
	}
	return t
}
