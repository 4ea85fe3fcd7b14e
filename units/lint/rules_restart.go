package lint

import (
	"strconv"
	"time"

	"github.com/hdctl/handoff/units"
)

const (
	longRestart   = 5 * time.Second // clients begin to give up
	shortWatchdog = time.Second
)

// restartRules are about what systemd does when a process has ended or hangs.
func restartRules() []Rule {
	return []Rule{
		{
			ID: "restart-always", Severity: Error,
			Summary: "Restart= is not always: after an upgrade, a crash can leave the service down.",
			Why: `The death of a main process that systemd has not started goes unnoticed while its
predecessor lives; when that ends, too, the result is "success", and on-failure
restarts nothing.`,
			Source: "systemd.service(5), Restart=; measured with 252, 257 and 262",
			Fix:    "Restart=always",
			Bad:    "Restart=on-failure",
			Good:   "Restart=always",
			check: onService(func(g *group, report report) {
				valid := func(v string) bool {
					switch v {
					case "no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always":
						return true
					}
					return false
				}
				s, ok := g.service.last(valid, "Service", "Restart")
				switch {
				case !ok:
					report(g.service, g.service.at("Service"), "there is no Restart=: nothing starts the service again but the next client")
				case s.Value != "always":
					report(g.service, s.Position, "Restart=%s: when a new main process dies while the old one drains, the result is success, and nothing is restarted", s.Value)
				}
			}),
		},
		{
			ID: "restart-sec", Severity: Warning,
			Summary: "RestartSec= is long: clients wait for all that time.",
			Why: `After a crash new connections wait in the socket until the service is there again,
and most clients wait for a few seconds only.`,
			Source: "systemd.service(5), RestartSec=",
			Fix:    "RestartSec=100ms",
			Bad:    "RestartSec=30s",
			Good:   "RestartSec=100ms",
			check: onService(func(g *group, report report) {
				s, ok := g.service.last(isSpan, "Service", "RestartSec")
				if d, _ := units.ParseSpan(s.Value); ok && d > longRestart {
					report(g.service, s.Position, "RestartSec=%s: after a crash clients wait for that long", s.Value)
				}
			}),
		},
		{
			ID: "restart-prevent", Severity: Warning,
			Summary: "RestartPreventExitStatus= keeps systemd from starting the service again.",
			Why: `With one of these exit statuses the service stays down in spite of Restart=always,
and systemd keeps its sockets: the next client starts it anyway, and if it fails again,
again, until a limit closes the socket.`,
			Source: "systemd.service(5), RestartPreventExitStatus=; measured with 252",
			Fix:    "remove RestartPreventExitStatus=",
			Bad:    "RestartPreventExitStatus=1",
			Good:   "Restart=always",
			check: onService(func(g *group, report report) {
				if list := g.service.list("Service", "RestartPreventExitStatus"); len(list) > 0 {
					report(g.service, list[0].Position, "after exit status %s systemd does not start the service again", list[0].Value)
				}
			}),
		},
		{
			ID: "remain-after-exit", Severity: Error,
			Summary: "RemainAfterExit=yes: when the service has ended, systemd takes it for active.",
			Why: `After exit status 0 the unit is "active (exited)": Restart=always does nothing, and no
connection starts it, since it counts as running. Clients wait for ever.`,
			Source: "systemd.service(5), RemainAfterExit=; measured with 252",
			Fix:    "remove RemainAfterExit=yes",
			Bad:    "RemainAfterExit=yes",
			Good:   "RemainAfterExit=no",
			check: onService(func(g *group, report report) {
				if s, on := g.service.is("Service", "RemainAfterExit"); on {
					report(g.service, s.Position, "RemainAfterExit=%s: after its end the service counts as active, and nothing starts it again", s.Value)
				}
			}),
		},
		{
			ID: "start-limit", Severity: Error,
			Summary: "The start limit closes the sockets: StartLimitIntervalSec= is not 0.",
			Why: `After five starts in ten seconds (the default) systemd gives up: the service fails,
and so do its sockets, with result "service-start-limit-hit". They are closed, clients
are refused, and that stays so until somebody comes. Without a limit they wait, and the
service is started again and again.`,
			Source: "systemd.unit(5), StartLimitIntervalSec=; systemd#3167; measured with 252, 257 and 262",
			Fix:    "StartLimitIntervalSec=0 in [Unit]",
			Bad:    "StartLimitIntervalSec=1min\nStartLimitBurst=3",
			Good:   "StartLimitIntervalSec=0",
			check: onService(func(g *group, report report) {
				u := g.service
				s, ok := u.last(isSpan, "Unit", "StartLimitIntervalSec", "StartLimitInterval")
				if old, found := u.last(isSpan, "Service", "StartLimitInterval"); found && !ok {
					s, ok = old, true
				}
				if d, _ := units.ParseSpan(s.Value); ok && d == 0 {
					return
				}
				burst, found := u.last(isNumber, "Unit", "StartLimitBurst")
				if !found {
					burst, found = u.last(isNumber, "Service", "StartLimitBurst")
				}
				switch {
				case found && isZero(burst.Value):
				case ok:
					report(u, s.Position, "%s=%s: at the limit systemd closes the sockets, too", s.Name, s.Value)
				default:
					report(u, u.at("Unit"), "there is no StartLimitIntervalSec=0: after five starts in 10s systemd closes the sockets, too")
				}
			}),
		},
		{
			ID: "oom-policy", Severity: Warning,
			Summary: "OOMPolicy= is not continue: one generation without memory takes all others with it.",
			Why: `With stop (the default) the kernel's kill of a generation that drains stops the whole
service, the new one included. After an upgrade there are two processes where there was
one, so this is the moment at which memory gets short.`,
			Source: "systemd.service(5), OOMPolicy=; systemd#39187",
			Fix:    "OOMPolicy=continue",
			Bad:    "OOMPolicy=stop",
			Good:   "OOMPolicy=continue",
			check: onService(func(g *group, report report) {
				valid := func(v string) bool { return v == "continue" || v == "stop" || v == "kill" }
				s, ok := g.service.last(valid, "Service", "OOMPolicy")
				switch {
				case !ok:
					if _, delegated := g.service.is("Service", "Delegate"); delegated {
						return // then the default is continue
					}
					report(g.service, g.service.at("Service"), "there is no OOMPolicy=, which means stop: when the kernel kills an old generation, the new one is stopped, too")
				case s.Value != "continue":
					report(g.service, s.Position, "OOMPolicy=%s: when the kernel kills an old generation, the new one goes, too", s.Value)
				}
			}),
		},
		{
			ID: "watchdog-short", Severity: Warning,
			Summary: "WatchdogSec= is below a second: a pause of the machine kills the service.",
			Why: `The watchdog ends all generations. A garbage collection, a machine that is migrated,
or a disk that hangs takes that long without anything being wrong.`,
			Source: "systemd.service(5), WatchdogSec=",
			Fix:    "WatchdogSec=10s",
			Bad:    "WatchdogSec=200ms",
			Good:   "WatchdogSec=10s",
			check: onService(func(g *group, report report) {
				s, ok := g.service.last(isSpan, "Service", "WatchdogSec")
				if d, _ := units.ParseSpan(s.Value); ok && d > 0 && d < shortWatchdog {
					report(g.service, s.Position, "WatchdogSec=%s: a pause of that length kills all generations", s.Value)
				}
			}),
		},
	}
}

func isSpan(s string) bool { _, ok := units.ParseSpan(s); return ok }

func isNumber(s string) bool { _, err := strconv.ParseUint(s, 10, 32); return err == nil }

func isZero(s string) bool { n, err := strconv.ParseUint(s, 10, 32); return err == nil && n == 0 }
