package lint

import (
	"slices"
	"strings"
)

// sandboxRules are about settings that take away what an upgrade needs.
func sandboxRules() []Rule {
	return []Rule{
		{
			ID: "private-pids", Severity: Error, Since: 257,
			Summary: "PrivatePIDs=yes: the new generation dies with the old one, and systemd does not know its PID.",
			Why: `The first generation is PID 1 of a namespace: at its end the kernel kills everything
in it. MAINPID= has a number that means nothing outside, and is refused.`,
			Source: "systemd.exec(5), PrivatePIDs=; measured with 257 and 262",
			Fix:    "remove PrivatePIDs=yes",
			Bad:    "PrivatePIDs=yes",
			Good:   "PrivatePIDs=no",
			check: onService(func(g *group, report report) {
				if s, on := g.service.is("Service", "PrivatePIDs"); on {
					report(g.service, s.Position, "PrivatePIDs=%s: at the end of the first generation the kernel kills the others", s.Value)
				}
			}),
		},
		{
			ID: "restrict-address-families", Severity: Error,
			Summary: "RestrictAddressFamilies= does not allow AF_UNIX: the service cannot talk to systemd or hdctl.",
			Why: `READY=1, the control socket and the link between two generations are unix sockets. The
start fails with a timeout: "address family not supported by protocol".`,
			Source: "systemd.exec(5), RestrictAddressFamilies=; measured with 252",
			Fix:    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
			Bad:    "RestrictAddressFamilies=AF_INET AF_INET6",
			Good:   "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
			check: onService(func(g *group, report report) {
				set := filterOf(g.service.list("Service", "RestrictAddressFamilies"))
				if set.given && !set.allows("AF_UNIX", "AF_LOCAL") {
					report(g.service, set.at, "unix sockets are not allowed (AF_UNIX): the service can tell systemd nothing, and hdctl cannot reach it")
				}
			}),
		},
		{
			ID: "system-call-filter", Severity: Error,
			Summary: "SystemCallFilter= does not allow the service to start a process.",
			Why: `An upgrade starts the new version as a child: fork, exec, pidfds. With a filter
that denies @process, or that allows only what was named without it, each upgrade is
refused, or ends the service (SIGSYS).`,
			Source: "systemd.exec(5), SystemCallFilter=; measured with 252",
			Fix:    "SystemCallFilter=@system-service, and nothing that takes away @process",
			Bad:    "SystemCallFilter=@system-service\nSystemCallFilter=~@process",
			Good:   "SystemCallFilter=@system-service\nSystemCallFilter=~@privileged",
			check: onService(func(g *group, report report) {
				set := filterOf(g.service.list("Service", "SystemCallFilter"))
				if set.given && !set.allows("@system-service", "@process", "clone", "@known") {
					report(g.service, set.at, "the system calls to start a process are not allowed (@process), and so each upgrade fails")
				}
			}),
		},
	}
}

// filter is a list of names that are allowed or, with a "~" in front of the list, not.
type filter struct {
	given bool
	allow bool // the names are allowed, all else is not
	names []string
	at    Position // what has decided last
}

// filterOf puts a filter together. The first list says whether it is one of what
// is allowed or of what is not; the others add to it, or take away.
func filterOf(list []Setting) filter {
	var f filter
	for _, s := range list {
		value, inverted := strings.CutPrefix(s.Value, "~")
		if !f.given {
			f.given, f.allow, f.at = true, !inverted, s.Position
		}
		for _, name := range words(value) {
			name, _, _ = strings.Cut(name, ":") // the errno of a system call
			if inverted != f.allow {
				f.names = slices.DeleteFunc(f.names, func(n string) bool { return n == "~"+name }) // allowed again
				if !slices.Contains(f.names, name) {
					f.names = append(f.names, name)
				}
				continue
			}
			if i := slices.Index(f.names, name); i >= 0 {
				f.names = slices.Delete(f.names, i, i+1)
			} else if inverted {
				// Taken out of a group that was allowed.
				f.names = append(f.names, "~"+name)
			}
			f.at = s.Position
		}
	}
	return f
}

// allows tells whether something is allowed that has several names, or is in
// several groups: for a list of what is allowed, if one of the names is in it and
// none was taken out again.
func (f filter) allows(names ...string) bool {
	if !f.allow {
		return !slices.ContainsFunc(names, func(n string) bool { return slices.Contains(f.names, n) })
	}
	return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(f.names, n) }) &&
		!slices.ContainsFunc(names, func(n string) bool { return slices.Contains(f.names, "~"+n) })
}
