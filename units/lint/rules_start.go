package lint

import (
	"strconv"
	"strings"
)

// formRules are about units as such.
func formRules() []Rule {
	return []Rule{
		{
			ID: "syntax", Severity: Error,
			Summary: "A line is ignored by systemd, since it does not understand it.",
			Why: `systemd warns of such a line in the journal, where nobody looks, and goes on
without it: the setting has its default.`,
			Source: "systemd.syntax(7)",
			Fix:    "a header like [Service] before the setting, and NAME=VALUE, each on a line of its own",
			Bad:    "[Service]\nKillMode: control-group",
			Good:   "[Service]\nKillMode=control-group",
			check: func(g *group, report report) {
				for _, u := range g.all() {
					for _, p := range u.broken {
						report(u, p.Position, "%s: systemd ignores the line", p.message)
					}
				}
			},
		},
		{
			ID: "wrong-section", Severity: Error,
			Summary: "A setting is in a section that does not know it, and is ignored.",
			Why: `A favourite is StartLimitIntervalSec= in [Service], where it was long ago (without
"Sec"). systemd says "Unknown key name ... in section ..., ignoring" in the journal,
and the setting has its default.`,
			Source: "systemd.unit(5)",
			Fix:    "move it to the section that the message names",
			Bad:    "[Service]\nStartLimitIntervalSec=0",
			Good:   "[Unit]\nStartLimitIntervalSec=0",
			check: func(g *group, report report) {
				for _, u := range g.all() {
					for _, s := range u.Settings {
						if home := home(s.Name); home != "" && home != s.Section {
							report(u, s.Position, "%s= is a setting of [%s], and is ignored in [%s]", s.Name, home, s.Section)
						}
					}
				}
			},
		},
		{
			ID: "unknown-ignore", Severity: Warning,
			Summary: `A comment "hdctl: ignore" names no rule.`,
			Why: `So it turns off nothing: the rule is misspelt, or this hdctl is older than the
one that the comment was written for.`,
			Source: "hdctl(1)",
			Fix:    "# hdctl: ignore RULE -- why; hdctl unit explain lists the rules",
			Bad:    "# hdctl: ignore killmode",
			Good:   "# hdctl: ignore kill-mode -- why that is right here",
			check: func(g *group, report report) {
				for _, u := range g.all() {
					for _, d := range u.ignored {
						if _, ok := Lookup(d.rule); !ok {
							report(u, d.Position, "there is no rule %q to ignore", d.rule)
						}
					}
				}
			},
		},
		{
			ID: "template-unit", Severity: Error,
			Summary: "The service is a template unit.",
			Why: `The name of a service is that of its control socket and of its directories. This
library and hdctl do not accept an "@" in it.`,
			Source: "handoff(7)",
			Fix:    "a unit of its own for each instance: NAME.service with NAME.socket",
			Bad:    "ExecReload=/usr/bin/hdctl upgrade --queue app@1",
			Good:   "ExecReload=/usr/bin/hdctl upgrade --queue app",
			check: func(g *group, report report) {
				for _, u := range g.all() {
					if strings.Contains(u.Name, "@") {
						report(u, u.at("Service"), "%s is a template unit, or an instance of one", u.Name)
					}
				}
			},
		},
		{
			ID: "default-dependencies", Severity: Warning,
			Summary: "DefaultDependencies=no: at a shutdown the unit is not stopped in order.",
			Why: `The default dependencies have Conflicts= and Before=shutdown.target. Without them
systemd does not stop the unit at a shutdown: its processes get SIGTERM together with
everything that is left at the very end, when the network may be gone.`,
			Source: "systemd.service(5), systemd.socket(5), DefaultDependencies=",
			Fix:    "remove DefaultDependencies=no",
			Bad:    "DefaultDependencies=no",
			Good:   "DefaultDependencies=yes",
			check: func(g *group, report report) {
				for _, u := range g.all() {
					s, ok := u.last(isBool, "Unit", "DefaultDependencies")
					if on, _ := parseBool(s.Value); ok && !on {
						report(u, s.Position, "DefaultDependencies=%s: a shutdown does not stop %s, but kills what is left of it at its end", s.Value, u.Name)
					}
				}
			},
		},
	}
}

// all are the units of the group.
func (g *group) all() []*Unit {
	if g.service == nil {
		return g.sockets
	}
	return append([]*Unit{g.service}, g.sockets...)
}

func isBool(s string) bool { _, ok := parseBool(s); return ok }

// home returns the only section that knows a setting, as far as that matters to a
// rule here.
func home(setting string) string {
	switch setting {
	case "StartLimitIntervalSec", "Requires", "Requisite", "BindsTo", "PartOf", "Wants", "After", "Before", "DefaultDependencies", "Documentation":
		return "Unit"
	case "Type", "NotifyAccess", "ExecStart", "ExecReload", "ExecStop", "Restart", "RestartSec", "PIDFile", "TimeoutStartSec",
		"TimeoutStopSec", "OOMPolicy", "WatchdogSec", "RuntimeMaxSec", "ExitType", "RemainAfterExit", "Sockets", "ReloadSignal":
		return "Service"
	case "ListenStream", "ListenDatagram", "ListenSequentialPacket", "FileDescriptorName", "Accept", "TriggerLimitIntervalSec",
		"TriggerLimitBurst", "ReusePort", "Backlog", "Service", "FlushPending":
		return "Socket"
	case "WantedBy", "RequiredBy", "Also":
		return "Install"
	}
	return ""
}

// typeOf returns Type=, as the version of systemd in question understands it.
func (g *group) typeOf() (Setting, string) {
	valid := func(v string) bool {
		switch v {
		case "simple", "exec", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle":
			return true
		}
		return false
	}
	s, ok := g.service.last(valid, "Service", "Type")
	if !ok {
		s.Position = g.service.at("Service")
		return s, ""
	}
	return s, s.Value
}

// startRules are about how systemd learns that the service is ready, and who it is.
func startRules() []Rule {
	return []Rule{
		{
			ID: "type-notify", Severity: Error,
			Summary: "Type= is not notify: systemd does not wait until the service is ready.",
			Why: `With Type=simple (the default), exec or idle a start is over before the service
serves, and a service that never gets ready counts as running. Type=forking has
systemd guess the main process. The library says READY=1.`,
			Source: "systemd.service(5), Type=",
			Fix:    "Type=notify",
			Bad:    "Type=simple",
			Good:   "Type=notify",
			check: onService(func(g *group, report report) {
				s, value := g.typeOf()
				switch value {
				case "notify", "notify-reload":
				case "":
					report(g.service, s.Position, "there is no Type=: systemd does not wait until the service is ready")
				default:
					report(g.service, s.Position, "Type=%s: systemd does not wait for READY=1 of the service", value)
				}
			}),
		},
		{
			ID: "notify-reload-version", Severity: Error, Until: 252,
			Summary: "Type=notify-reload is unknown to systemd before 253, which takes it for simple.",
			Why: `It says "Failed to parse service type, ignoring: notify-reload" and starts the
service as Type=simple: without readiness, and "systemctl reload" is refused. Debian
12, Ubuntu 22.04 and RHEL 9 have such a version.`,
			Source: "systemd.service(5), Type=; measured with 252",
			Fix:    "Type=notify with ExecReload=/usr/bin/hdctl upgrade --queue NAME; or --systemd 253, if the unit is for no older one",
			Bad:    "Type=notify-reload",
			Good:   "Type=notify",
			check: onService(func(g *group, report report) {
				if s, value := g.typeOf(); value == "notify-reload" {
					report(g.service, s.Position, "systemd before 253 does not know Type=notify-reload, and takes the service for Type=simple")
				}
			}),
		},
		{
			ID: "notify-reload-exec-reload", Severity: Error, Since: 253,
			Summary: "Type=notify-reload with ExecReload=: a reload upgrades twice, or waits in vain.",
			Why: `systemd sends the signal first and then runs ExecReload=, too; the reload is over
only after RELOADING=1 and READY=1.`,
			Source: "systemd.service(5), Type=; measured with 257 and 262",
			Fix:    "Type=notify, and keep ExecReload=: it is the only way for a reload to report a failure",
			Bad:    "Type=notify-reload\nExecReload=/usr/bin/hdctl upgrade --queue app",
			Good:   "Type=notify-reload\nEnvironment=HANDOFF_NOTIFY_RELOAD=on",
			check: onService(func(g *group, report report) {
				if _, value := g.typeOf(); value != "notify-reload" {
					return
				}
				for _, c := range g.service.commands("ExecReload") {
					report(g.service, c.Position, "a reload with Type=notify-reload sends the signal and runs this, too")
				}
			}),
		},
		{
			ID: "notify-reload-answer", Severity: Error, Since: 253,
			Summary: "Type=notify-reload without a service that answers the signal: each reload fails.",
			Why: `systemd waits for RELOADING=1 with MONOTONIC_USEC=, and for READY=1, until
TimeoutStartSec= is over. The library sends them with HANDOFF_NOTIFY_RELOAD=on, in
answer to SIGHUP.`,
			Source: "systemd.service(5), Type=; measured with 257 and 262",
			Fix:    "Environment=HANDOFF_NOTIFY_RELOAD=on, and neither ReloadSignal= nor HANDOFF_SIGHUP=off",
			Bad:    "Type=notify-reload",
			Good:   "Type=notify-reload\nEnvironment=HANDOFF_NOTIFY_RELOAD=on",
			check: onService(func(g *group, report report) {
				s, value := g.typeOf()
				if value != "notify-reload" {
					return
				}
				vars := g.variables()
				if vars["HANDOFF_NOTIFY_RELOAD"].Value != "on" && !g.unknown("HANDOFF_NOTIFY_RELOAD") {
					report(g.service, s.Position, "Type=notify-reload, and HANDOFF_NOTIFY_RELOAD is not on: the service does not tell systemd of a reload")
				}
				if v := vars["HANDOFF_SIGHUP"]; v.Value == "off" {
					report(g.service, v.Position, "Type=notify-reload, and the service ignores SIGHUP")
				}
				if r, ok := g.service.last(nil, "Service", "ReloadSignal"); ok && !isSignal(r.Value, "HUP", 1) {
					report(g.service, r.Position, "ReloadSignal=%s: the service upgrades on SIGHUP", r.Value)
				}
			}),
		},
		{
			ID: "notify-access", Severity: Error,
			Summary: "NotifyAccess= is not all: systemd does not hear the process that takes over again.",
			Why: `With main (what Type=notify implies) only the process counts that systemd takes for
the main one. The old generation hands that over at the confirm; when the new one
dies later, the old one cannot take it back, and systemd keeps a dead main process.
The library sees to it that nobody else speaks.`,
			Source: "systemd.service(5), NotifyAccess=; patroni#3485; measured with 252, 257 and 262",
			Fix:    "NotifyAccess=all",
			Bad:    "NotifyAccess=main",
			Good:   "NotifyAccess=all",
			check: onService(func(g *group, report report) {
				valid := func(v string) bool { return v == "none" || v == "main" || v == "exec" || v == "all" }
				s, ok := g.service.last(valid, "Service", "NotifyAccess")
				switch {
				case !ok:
					report(g.service, g.service.at("Service"), "there is no NotifyAccess=, which means main: the old generation cannot take over again after the confirm")
				case s.Value != "all":
					report(g.service, s.Position, "NotifyAccess=%s: the old generation cannot take over again after the confirm", s.Value)
				}
			}),
		},
		{
			ID: "pid-file", Severity: Error,
			Summary: "PIDFile= makes systemd take the main process from a file.",
			Why: `systemd reads the file after each ExecReload=, whatever Type= is, and believes it:
with an old number in it, the generation that drains is the main process again.
HANDOFF_PID_FILE= is for other programs that need such a file.`,
			Source: "systemd.service(5), PIDFile=; teleport#1852; measured with 252",
			Fix:    "remove PIDFile=; for other programs, Environment=HANDOFF_PID_FILE=/run/handoff/NAME/pid",
			Bad:    "PIDFile=/run/app.pid",
			Good:   "Environment=HANDOFF_PID_FILE=/run/handoff/app/pid",
			check: onService(func(g *group, report report) {
				if s, ok := g.service.last(nil, "Service", "PIDFile"); ok {
					report(g.service, s.Position, "PIDFile=%s: systemd reads it after each reload, and takes what is in it for the main process", s.Value)
				}
			}),
		},
		{
			ID: "exit-type", Severity: Error, Since: 250,
			Summary: "ExitType=cgroup: systemd does not notice that the main process has ended while an old one drains.",
			Why: `The service then counts as running until its last process has ended, also if that is
one which accepts nothing: nothing is restarted as long as it drains.`,
			Source: "systemd.service(5), ExitType=; measured with 252",
			Fix:    "remove ExitType=cgroup",
			Bad:    "ExitType=cgroup",
			Good:   "ExitType=main",
			check: onService(func(g *group, report report) {
				if s, ok := g.service.last(nil, "Service", "ExitType"); ok && s.Value == "cgroup" {
					report(g.service, s.Position, "ExitType=cgroup: the end of the main process is not noticed as long as an old generation drains")
				}
			}),
		},
	}
}

// onService limits a check to groups with a service.
func onService(check func(*group, report)) func(*group, report) {
	return func(g *group, report report) {
		if g.service != nil {
			check(g, report)
		}
	}
}

// isSignal tells whether s names a signal, in one of systemd's ways.
func isSignal(s, name string, number int) bool {
	s = strings.ToUpper(s)
	return strings.TrimPrefix(s, "SIG") == name || s == strconv.Itoa(number)
}
