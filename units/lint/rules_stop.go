package lint

import (
	"path/filepath"
	"slices"
	"time"

	"github.com/hdctl/handoff/units"
)

// systemdTimeout is DefaultTimeoutStartSec= and DefaultTimeoutStopSec=.
const systemdTimeout = 90 * time.Second

// stopRules are about the end of processes, and about time limits.
func stopRules() []Rule {
	return []Rule{
		{
			ID: "kill-mode", Severity: Error,
			Summary: "KillMode= is not control-group: on stop, some generations are killed at once, or stay.",
			Why: `mixed: the main process of a service that was upgraded is not a child of systemd,
which does not wait for it; everything gets SIGKILL some 100 ms after SIGTERM.
process, none: old generations are left behind when the service has stopped.`,
			Source: "systemd.kill(5), KillMode=; teleport#4195; measured with 252, 257 and 262",
			Fix:    "KillMode=control-group",
			Bad:    "KillMode=mixed",
			Good:   "KillMode=control-group",
			check: onService(func(g *group, report report) {
				valid := func(v string) bool {
					return v == "control-group" || v == "process" || v == "mixed" || v == "none"
				}
				switch s, _ := g.service.last(valid, "Service", "KillMode"); s.Value {
				case "mixed":
					report(g.service, s.Position, "KillMode=mixed: on stop, all processes of a service that was upgraded get SIGKILL at once")
				case "process", "none":
					report(g.service, s.Position, "KillMode=%s: on stop, old generations are left behind", s.Value)
				}
			}),
		},
		{
			ID: "kill-signal", Severity: Error,
			Summary: "KillSignal= is not SIGTERM: the service does not take it for a stop.",
			Why: `The library stops on SIGTERM and SIGINT. SIGHUP would start an upgrade in each
generation, and most others end a process at once.`,
			Source: "systemd.kill(5), KillSignal=; handoff(7)",
			Fix:    "remove KillSignal=, or KillSignal=SIGTERM",
			Bad:    "KillSignal=SIGQUIT",
			Good:   "KillSignal=SIGTERM",
			check: onService(func(g *group, report report) {
				for _, name := range []string{"KillSignal", "RestartKillSignal"} {
					s, ok := g.service.last(nil, "Service", name)
					if !ok || isSignal(s.Value, "TERM", 15) || isSignal(s.Value, "INT", 2) {
						continue
					}
					if isSignal(s.Value, "QUIT", 3) && g.variables()["HANDOFF_SIGNALS"].Value == "nginx" {
						continue
					}
					report(g.service, s.Position, "%s=%s: the service stops on SIGTERM", name, s.Value)
				}
			}),
		},
		{
			ID: "send-sigkill", Severity: Warning,
			Summary: "SendSIGKILL=no: a process that hangs is left behind at a stop.",
			Why: `It keeps its duplicates of the sockets and its connections, and the next start runs
beside it.`,
			Source: "systemd.kill(5), SendSIGKILL=",
			Fix:    "remove SendSIGKILL=no",
			Bad:    "SendSIGKILL=no",
			Good:   "SendSIGKILL=yes",
			check: onService(func(g *group, report report) {
				s, ok := g.service.last(isBool, "Service", "SendSIGKILL")
				if on, _ := parseBool(s.Value); ok && !on {
					report(g.service, s.Position, "SendSIGKILL=%s: a process that hangs is left behind at a stop", s.Value)
				}
			}),
		},
		{
			ID: "exec-stop", Severity: Error,
			Summary: "There is no ExecStop=hdctl exec-stop: a service that was upgraded is killed at a stop.",
			Why: `systemd waits after SIGTERM only for a main process that it has started itself. That
of a service that was upgraded is its predecessor's child: if it is the only process,
SIGKILL follows at once, and its open connections are cut. systemd does wait for
ExecStop=, and so that one waits for the process.`,
			Source: "measured with 252, 257 and 262; hdctl(1)",
			Fix:    "ExecStop=/usr/bin/hdctl exec-stop",
			Bad:    "ExecStop=/bin/kill $MAINPID",
			Good:   "ExecStop=/usr/bin/hdctl exec-stop",
			check: onService(func(g *group, report report) {
				commands := g.service.commands("ExecStop")
				if slices.ContainsFunc(commands, func(c command) bool {
					return filepath.Base(c.argv[0]) == "hdctl" && slices.Contains(c.argv[1:], "exec-stop")
				}) {
					return
				}
				if len(commands) == 0 {
					report(g.service, g.service.at("Service"), "there is no ExecStop=: at a stop, systemd does not wait for the main process of a service that was upgraded")
					return
				}
				if slices.ContainsFunc(commands, mayWait) {
					return // who knows
				}
				report(g.service, commands[0].Position, "ExecStop= does not wait for the main process, and neither does systemd if the service was upgraded")
			}),
		},
		{
			ID: "timeout-start", Severity: Error,
			Summary: "TimeoutStartSec= is shorter than an upgrade may take.",
			Why: `It limits ExecReload=, too. systemd kills hdctl before the service has answered, and
the reload fails with "timeout" while the upgrade goes on. An upgrade may take
HANDOFF_READY_TIMEOUT, HANDOFF_PROBATION and 10 seconds.`,
			Source: "systemd.service(5), TimeoutStartSec=; systemd#37515; measured with 252 and 257",
			Fix:    "TimeoutStartSec= above HANDOFF_READY_TIMEOUT + HANDOFF_PROBATION + 10s; by default 90s is enough",
			Bad:    "TimeoutStartSec=30s",
			Good:   "TimeoutStartSec=90s",
			check: onService(func(g *group, report report) {
				limit, at, set := g.timeout("TimeoutStartSec")
				ready, probation := g.duration("HANDOFF_READY_TIMEOUT", 30*time.Second), g.duration("HANDOFF_PROBATION", 2*time.Second)
				switch {
				case limit == units.Infinity:
				case ready <= 0:
					v := g.variables()["HANDOFF_READY_TIMEOUT"]
					report(g.service, v.Position, "the service sets no limit for getting ready, and systemd kills ExecReload= after %v", limit)
				case limit > ready+max(probation, 0)+units.ConfirmMargin:
				case set:
					report(g.service, at, "%v are not more than an upgrade may take: %v to get ready, %v of probation and %v%s",
						limit, ready, max(probation, 0), units.ConfirmMargin, g.unless("HANDOFF_READY_TIMEOUT"))
				default:
					report(g.service, at, "there is no TimeoutStartSec=, and the default of %v is not more than an upgrade may take: %v to get ready, %v of probation and %v%s",
						limit, ready, max(probation, 0), units.ConfirmMargin, g.unless("HANDOFF_READY_TIMEOUT"))
				}
			}),
		},
		{
			ID: "timeout-stop", Severity: Error,
			Summary: "TimeoutStopSec= is shorter than the service may take to stop.",
			Why: `systemd sends SIGKILL when it has passed: in the middle of what clients were to
finish within HANDOFF_STOP_TIMEOUT (20 seconds by default).`,
			Source: "systemd.service(5), TimeoutStopSec=",
			Fix:    "TimeoutStopSec= some seconds above HANDOFF_STOP_TIMEOUT",
			Bad:    "TimeoutStopSec=10s",
			Good:   "TimeoutStopSec=25s",
			check: onService(func(g *group, report report) {
				limit, at, set := g.timeout("TimeoutStopSec")
				stop := g.duration("HANDOFF_STOP_TIMEOUT", 20*time.Second)
				switch {
				case limit > max(stop, 0):
				case set:
					report(g.service, at, "systemd kills after %v, and the service may take %v (HANDOFF_STOP_TIMEOUT)%s", limit, stop, g.unless("HANDOFF_STOP_TIMEOUT"))
				default:
					report(g.service, at, "there is no TimeoutStopSec=: systemd kills after %v, and the service may take %v (HANDOFF_STOP_TIMEOUT)%s", limit, stop, g.unless("HANDOFF_STOP_TIMEOUT"))
				}
			}),
		},
		{
			ID: "timeout-infinity", Severity: Warning,
			Summary: "A time limit is infinity (or 0, which is the same): what hangs is never ended.",
			Why: `Without TimeoutStartSec= a start or a reload that hangs blocks each later one;
without TimeoutStopSec= so does a stop, and a shutdown. Clients wait meanwhile.`,
			Source: "systemd.service(5), TimeoutStartSec=, TimeoutStopSec=",
			Fix:    "TimeoutStartSec=90s, TimeoutStopSec=25s",
			Bad:    "TimeoutStopSec=infinity",
			Good:   "TimeoutStopSec=25s",
			check: onService(func(g *group, report report) {
				start, at, set := g.timeout("TimeoutStartSec")
				if set && start == units.Infinity {
					report(g.service, at, "there is no limit for a start or a reload that hangs")
				}
				stop, other, set := g.timeout("TimeoutStopSec")
				if set && stop == units.Infinity && (other != at || start != units.Infinity) {
					report(g.service, other, "there is no limit for a stop that hangs")
				}
			}),
		},
		{
			ID: "runtime-max", Severity: Error,
			Summary: "RuntimeMaxSec= ends the service, with all its connections, so long after its start.",
			Why: `The time counts from when systemd started the service; upgrades do not begin it
anew. It ends as a failure (result "timeout").`,
			Source: "systemd.service(5), RuntimeMaxSec=; measured with 252",
			Fix:    "remove RuntimeMaxSec=; a timer that runs \"systemctl reload NAME\" renews the process without cutting anybody off",
			Bad:    "RuntimeMaxSec=1d",
			Good:   "RuntimeMaxSec=infinity",
			check: onService(func(g *group, report report) {
				s, ok := g.service.last(func(v string) bool { _, ok := parseTimeout(v); return ok }, "Service", "RuntimeMaxSec")
				if d, _ := parseTimeout(s.Value); ok && d != units.Infinity {
					report(g.service, s.Position, "RuntimeMaxSec=%s: systemd ends all generations that long after the start of the service, upgraded or not", s.Value)
				}
			}),
		},
	}
}

// timeout returns a time limit of the service, and where it is set.
func (g *group) timeout(name string) (limit time.Duration, at Position, set bool) {
	s, ok := g.service.last(func(v string) bool { _, ok := parseTimeout(v); return ok }, "Service", name, "TimeoutSec")
	if !ok {
		return systemdTimeout, g.service.at("Service"), false
	}
	limit, _ = parseTimeout(s.Value)
	return limit, s.Position, true
}
