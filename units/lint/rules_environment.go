package lint

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// environmentRules are about the variables of the service.
func environmentRules() []Rule {
	return []Rule{
		{
			ID: "unset-environment", Severity: Error,
			Summary: "UnsetEnvironment= takes away a variable by which systemd talks to the service.",
			Why: `It is applied last, also to what systemd sets by itself: without NOTIFY_SOCKET the
service never gets ready, without LISTEN_FDS it has no sockets, without
RUNTIME_DIRECTORY no control socket.`,
			Source: "systemd.exec(5), UnsetEnvironment=; measured with 252",
			Fix:    "UnsetEnvironment= without that variable; the library removes them from the environment itself, once it has read them",
			Bad:    "UnsetEnvironment=NOTIFY_SOCKET",
			Good:   "UnsetEnvironment=LANG",
			check: onService(func(g *group, report report) {
				for _, s := range g.service.words("Service", "UnsetEnvironment") {
					if name, _, exact := strings.Cut(s.Value, "="); !exact && slices.Contains(bySystemd, name) {
						report(g.service, s.Position, "without %s systemd and the service do not find to each other", name)
					}
				}
			}),
		},
		{
			ID: "handoff-variable", Severity: Warning,
			Summary: "A variable HANDOFF_... is none of this library: it is misspelt, and has no effect.",
			Why: `The library uses its default instead. What is in force, "hdctl status -o json" says
("options").`,
			Source: "handoff(7)",
			Fix:    "the name as handoff(7) has it",
			Bad:    "Environment=HANDOFF_DRAIN_TIMEOT=5m",
			Good:   "Environment=HANDOFF_DRAIN_TIMEOUT=5m",
			check: onService(func(g *group, report report) {
				for _, v := range g.assignments() {
					if _, known := variables[v.Name]; known || !strings.HasPrefix(v.Name, "HANDOFF_") {
						continue
					}
					report(g.service, v.Position, "there is no variable %s%s", v.Name, didYouMean(v.Name))
				}
			}),
		},
		{
			ID: "handoff-value", Severity: Error,
			Summary: "A variable HANDOFF_... has a value that the library refuses: the service does not start.",
			Why: `Durations are written as Go does: 90s, 1m30s, 10m; -1s is none. systemd's "1min 30s"
and "90" are not understood. The service ends with an error at its start.`,
			Source: "handoff(7)",
			Fix:    "a duration as 90s or 10m, a number from 1, on or off: see handoff(7)",
			Bad:    "Environment=HANDOFF_DRAIN_TIMEOUT=5min",
			Good:   "Environment=HANDOFF_DRAIN_TIMEOUT=5m",
			check: onService(func(g *group, report report) {
				for _, v := range g.assignments() {
					kind := variables[v.Name]
					if kind.valid == nil || v.Value == "" || kind.valid(v.Value) || strings.Contains(v.Value, "%") {
						continue
					}
					report(g.service, v.Position, "%s=%s: not %s", v.Name, v.Value, kind.what)
				}
			}),
		},
	}
}

// bySystemd are the variables without which the library does not work.
var bySystemd = []string{
	"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "RUNTIME_DIRECTORY", "STATE_DIRECTORY",
	"WATCHDOG_USEC", "WATCHDOG_PID", "MAINPID",
}

// kind is what a variable can be.
type kind struct {
	what  string
	valid func(string) bool // nil: anything
}

var (
	duration = kind{"a duration, as 90s or 10m", func(s string) bool { _, err := time.ParseDuration(s); return err == nil }}
	number   = kind{"a number from 1", func(s string) bool { n, err := strconv.Atoi(s); return err == nil && n >= 1 }}
	onOff    = kind{"on or off", func(s string) bool { return s == "on" || s == "off" }}
	anything kind
)

// variables are those that package upgrade reads; see upgrade.Options.
var variables = map[string]kind{
	"HANDOFF_READY_TIMEOUT":   duration,
	"HANDOFF_PROBATION":       duration,
	"HANDOFF_DRAIN_TIMEOUT":   duration,
	"HANDOFF_STOP_TIMEOUT":    duration,
	"HANDOFF_DRAIN_DELAY":     duration,
	"HANDOFF_DRAIN_SPREAD":    duration,
	"HANDOFF_HANG_TIMEOUT":    duration,
	"HANDOFF_STOPPED_TIMEOUT": duration,
	"HANDOFF_STAGE_TIMEOUT":   duration,
	"HANDOFF_MAX_DRAINING":    number,
	"HANDOFF_OVERFLOW":        {"hurry-oldest or refuse", func(s string) bool { return s == "hurry-oldest" || s == "refuse" }},
	"HANDOFF_SIGNALS":         {"nginx", func(s string) bool { return s == "nginx" }},
	"HANDOFF_SIGHUP":          onOff,
	"HANDOFF_NOTIFY_RELOAD":   onOff,
	"HANDOFF_MIGRATE":         onOff,
	"HANDOFF_ALLOW_BINARY":    onOff,
	"HANDOFF_CONTROL":         anything,
	"HANDOFF_OPERATOR_GROUP":  anything,
	"HANDOFF_STATE_DIR":       anything,
	"HANDOFF_PID_FILE":        anything,
	"HANDOFF_CHECK":           anything,
	"HANDOFF_PACKAGE_UPGRADE": anything, // of the scripts of packages
}

// assignments are the variables of Environment=, in their order: Name and Value are
// those of the variable.
func (g *group) assignments() []Setting {
	var list []Setting
	for _, s := range g.service.words("Service", "Environment") {
		if name, value, ok := strings.Cut(s.Value, "="); ok {
			s.Name, s.Value = name, value
			list = append(list, s)
		}
	}
	return list
}

// variables are the same by name: the last one counts.
func (g *group) variables() map[string]Setting {
	m := make(map[string]Setting)
	for _, s := range g.assignments() {
		m[s.Name] = s
	}
	return m
}

// unknown tells whether a variable may have another value than Environment= says: from
// a file, which is not read, or from the service manager.
func (g *group) unknown(name string) bool {
	return len(g.service.list("Service", "EnvironmentFile")) > 0 ||
		slices.ContainsFunc(g.service.words("Service", "PassEnvironment"), func(s Setting) bool { return s.Value == name })
}

// unless is the end of a sentence that is wrong if a variable has another value than
// is known here.
func (g *group) unless(name string) string {
	if !g.unknown(name) {
		return ""
	}
	return ", unless EnvironmentFile= or PassEnvironment= sets " + name
}

// duration returns the value of a variable that has a duration: -1 is none. With one
// that the library refuses it is the default.
func (g *group) duration(name string, byDefault time.Duration) time.Duration {
	d, err := time.ParseDuration(g.variables()[name].Value)
	switch {
	case err != nil:
		return byDefault
	case d <= 0:
		return -1
	}
	return d
}

// didYouMean is " (did you mean ...?)" with the name that is most like an unknown
// one, if any is.
func didYouMean(name string) string {
	best, least := "", 4
	for known := range variables {
		if d := distance(name, known); d < least || d == least && known < best {
			best, least = known, d
		}
	}
	if best == "" {
		return ""
	}
	return ": did you mean " + best + "?"
}

// distance is the number of characters to insert, remove or replace to make one of
// a and b the other (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(row[j+1]+1, row[j]+1, replace)
		}
	}
	return row[len(b)]
}
