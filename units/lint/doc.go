// Package lint finds mistakes in the units of a handoff service: what would break an
// upgrade, a reload or a stop, or lose requests, and what would hurt one day.
//
//	units, err := lint.LoadSite("/etc/systemd/system/app.service")
//	if err != nil {
//		return err
//	}
//	for _, f := range lint.Check(units, lint.Options{}) {
//		fmt.Printf("%s:%d: %s: %s\n", f.File, f.Line, f.Rule, f.Message)
//	}
//
// "hdctl unit verify" is a thin layer above it.
//
// # Rules
//
// [Rules] are the rules. Each says something about systemd, or about this library,
// that is either in a manual page or was measured; the tests of this package
// demonstrate it with a real systemd where that is possible. The id of a rule does
// not change.
//
// It looks for what matters to a handoff, and leaves the rest to "systemd-analyze
// verify" (what systemd does not understand) and "systemd-analyze security". What
// package units renders has no findings.
//
// # What it knows of systemd
//
// Settings mean what they mean to systemd: drop-ins come after the unit file, the
// last value counts, lists grow, an empty value takes back what was before, a value
// that systemd cannot parse is as if it were not there. Of the specifiers only those
// for the name of the unit are replaced. Files of EnvironmentFile= are not read.
//
// # Exceptions
//
// A comment in a unit turns off rules for this unit:
//
//	# hdctl: ignore oom-policy -- the cache is in the same process
package lint
