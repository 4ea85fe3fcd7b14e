package main

import (
	"fmt"
	"io"
)

// summary is the table of the README, of what has been measured in this run.
type summary struct {
	tracking   *comparison
	migrations []migrationSummary
	upgrades   []noticed
	kept       int
}

type migrationSummary struct {
	conns                int
	took, before, during series
	late, requests       int // over the limit, of those that met a migration
	failed               int
}

func (s *summary) print(w io.Writer) {
	if s.tracking == nil || s.migrations == nil || s.upgrades == nil {
		return
	}
	t := new(table)
	head := []string{"an upgrade under load"}
	for _, way := range ways {
		head = append(head, way.name)
	}
	t.row(head...)
	add := func(name string, cell func(n noticed) string) {
		row := []string{name}
		for _, n := range s.upgrades {
			row = append(row, cell(n))
		}
		t.row(row...)
	}
	add("failed requests", func(n noticed) string { return tenths(n.failed.median()) })
	add(fmt.Sprintf("connections made again, of %d", s.kept), func(n noticed) string { return plain(n.reconnects.median()) })
	add("longest wait of a request", func(n noticed) string { return millis(n.longest.max()) })
	add("new version answers after (p50)", func(n noticed) string { return millis(n.answers.median()) })
	add("old version is gone after (p50)", func(n noticed) string { return millis(n.gone.median()) })
	add("CPU of the upgrade itself", func(n noticed) string { return millis(n.cpu.median()) })
	for _, m := range s.migrations {
		t.row(fmt.Sprintf("%s idle connections move in", grouped(float64(m.conns))), "-", "-", millis(m.took.median()))
		t.row("and a request waits meanwhile at most", "-", "-", millis(m.during.median()))
	}
	t.print(w, "### Summary: upgrades")

	t = new(table)
	t.row("a tracked listener, compared with a plain one", "ratio or difference", "noise")
	for _, l := range s.tracking.lines {
		if l.summary {
			t.row(l.name, l.change(sideTracked, false), l.change(sideControl, false))
		}
	}
	t.print(w, "### Summary: tracking")
}
