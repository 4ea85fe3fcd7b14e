package lint

import (
	"slices"
)

// Severity says how bad a finding is.
type Severity string

// The severities.
const (
	// Error: an upgrade, a reload or a stop would not do what it should, or clients
	// would be refused or cut off.
	Error Severity = "error"
	// Warning: it works, and would hurt one day.
	Warning Severity = "warning"
)

// oldest is the oldest version of systemd that units are checked for.
const oldest = 252

// Rule is something that can be wrong with the units of a service. Its JSON is
// stable: fields are only added.
type Rule struct {
	ID       string   `json:"id"` // never changes: letters and hyphens
	Severity Severity `json:"severity"`
	Summary  string   `json:"summary"` // one sentence
	Why      string   `json:"why"`     // some more, that say what happens
	// Source is where that is written: a manual page, an issue of systemd
	// ("systemd#15633"), or "measured" with the versions.
	Source string `json:"source"`
	Fix    string `json:"fix"` // what to write; NAME is that of the service
	// Since and Until are the versions of systemd that it is about; 0: all.
	Since int `json:"since,omitempty"`
	Until int `json:"until,omitempty"`
	// Bad and Good are lines of a unit.
	Bad  string `json:"bad"`
	Good string `json:"good"`

	check func(g *group, report report)
}

// report takes a finding: in which unit, where, and a sentence.
type report func(u *Unit, at Position, format string, args ...any)

// concerns tells whether the rule is about a version of systemd; 0 stands for all
// from the oldest on.
func (r Rule) concerns(systemd int) bool {
	if systemd == 0 {
		return r.Until == 0 || r.Until >= oldest
	}
	return r.Since <= systemd && (r.Until == 0 || systemd <= r.Until)
}

// Rules returns all rules: those of services first, then those of sockets, then
// those of both.
func Rules() []Rule {
	return slices.Concat(
		formRules(), startRules(), programRules(), reloadRules(), stopRules(), restartRules(),
		directoryRules(), sandboxRules(), environmentRules(),
		socketRules(), pairRules(), needsRules(),
	)
}

// Lookup returns the rule with an id.
func Lookup(id string) (Rule, bool) {
	rules := Rules()
	i := slices.IndexFunc(rules, func(r Rule) bool { return r.ID == id })
	if i < 0 {
		return Rule{}, false
	}
	return rules[i], true
}
