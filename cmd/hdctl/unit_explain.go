package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/hdctl/handoff/units/lint"
)

// explainCmd is "hdctl unit explain".
type explainCmd struct {
	Rule string `arg:"" optional:"" help:"Id of the rule, as unit verify prints it. Default: a list of all."`
}

// Help is shown by hdctl unit explain --help.
func (explainCmd) Help() string {
	return `What a rule is about, what it rests on (a manual page, an issue of systemd, or a measurement), and what to write instead.

Example:

    hdctl unit explain
    hdctl unit explain kill-mode
    hdctl unit explain -o json | jq -r '.[].id'
`
}

// Run prints a rule, or a list of all.
func (c *explainCmd) Run(_ context.Context, a *app) error {
	if c.Rule == "" {
		return a.listRules()
	}
	r, ok := lint.Lookup(c.Rule)
	if !ok {
		return unknownRule("", c.Rule)
	}
	switch a.globals.Format {
	case "json", "jsonl":
		return a.printJSON(r, a.globals.Format == "json")
	}
	a.printf("%s (%s)\n\n%s\n\n%s\n\n", a.paint(bold, r.ID), a.paint(severityStyle(r.Severity), string(r.Severity)), r.Summary, r.Why)
	a.printf("source  %s\n", r.Source)
	if versions := versionsOf(r); versions != "" {
		a.printf("systemd %s\n", versions)
	}
	a.printf("fix     %s\n\n", r.Fix)
	a.printf("bad:\n%s\n\ngood:\n%s\n", indent(r.Bad), indent(r.Good))
	return nil
}

// listRules prints a table of all rules.
func (a *app) listRules() error {
	rules := lint.Rules()
	switch a.globals.Format {
	case "json":
		return a.printJSON(rules, true)
	case "jsonl":
		for _, r := range rules {
			if err := a.printJSON(r, false); err != nil {
				return err
			}
		}
		return nil
	}
	t := &table{columns: []column{left("RULE"), left("SEVERITY"), left("SYSTEMD"), left("SENTENCE")}}
	for _, r := range rules {
		t.add(text(r.ID), cell{string(r.Severity), severityStyle(r.Severity)}, text(versionsOf(r)), text(r.Summary))
	}
	t.print(&a.terminal, !a.globals.NoLegend)
	return nil
}

// unknownRule is the end of a verb that was given an id which is none.
func unknownRule(prefix, id string) error {
	return exitf(exitUsage, "%sthere is no rule %q", prefix, clean(id)).withHint("hdctl unit explain lists them")
}

// versionsOf are the versions of systemd that a rule is about; "" for all.
func versionsOf(r lint.Rule) string {
	switch {
	case r.Since > 0 && r.Until > 0:
		return fmt.Sprintf("%d to %d", r.Since, r.Until)
	case r.Since > 0:
		return fmt.Sprintf("%d and later", r.Since)
	case r.Until > 0:
		return fmt.Sprintf("up to %d", r.Until)
	}
	return ""
}

func indent(s string) string { return "    " + strings.ReplaceAll(s, "\n", "\n    ") }
