package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// report prints the table, and what needs a look. It tells whether nothing has failed.
func report(w io.Writer, results []result) (ok bool) {
	ok = true
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	row := func(cells ...any) {
		_, _ = fmt.Fprintf(table, strings.Repeat("| %v\t", len(cells))+"|\n", cells...)
	}
	row("Debian", "systemd", "tests", "passed", "flaky", "failed", "skipped", "time")
	row("---", "---", "---", "---", "---", "---", "---", "---")
	for _, r := range results {
		total := len(r.passed) + len(r.flaky) + len(r.failed) + len(r.skipped)
		row(r.suite+" "+r.debian, r.systemd, total, len(r.passed), len(r.flaky), len(r.failed), len(r.skipped), r.took.Round(time.Second))
		ok = ok && len(r.failed) == 0 && total > len(r.skipped)
	}
	_ = table.Flush()
	fmt.Fprintln(w)
	for _, r := range results {
		list(w, r.suite+": failed", r.failed)
		list(w, r.suite+": flaky", r.flaky)
		list(w, r.suite+": skipped", r.skipped)
	}
	return ok
}

func list(w io.Writer, title string, tests []string) {
	for _, t := range tests {
		fmt.Fprintf(w, "%s: %s\n", title, t)
	}
}
