package lint

import (
	"path/filepath"
	"slices"
	"strings"
)

// reloadRules are about ExecReload=.
func reloadRules() []Rule {
	return []Rule{
		{
			ID: "exec-reload-missing", Severity: Error,
			Summary: "There is no ExecReload=: systemctl reload is refused.",
			Why: `Packages, Ansible and Puppet upgrade a service by "systemctl reload". Without
ExecReload= they get "Job type reload is not applicable", and fall back to a restart.`,
			Source: "systemd.service(5), ExecReload=",
			Fix:    "ExecReload=/usr/bin/hdctl upgrade --queue NAME",
			Bad:    "Type=notify",
			Good:   "Type=notify\nExecReload=/usr/bin/hdctl upgrade --queue app",
			check: onService(func(g *group, report report) {
				if s, value := g.typeOf(); value != "notify-reload" && len(g.service.commands("ExecReload")) == 0 {
					at := g.service.at("Service")
					if value == "" {
						at = s.Position
					}
					report(g.service, at, "there is no ExecReload=: systemctl reload is refused")
				}
			}),
		},
		{
			ID: "exec-reload-async", Severity: Error,
			Summary: "ExecReload= does not wait for the upgrade: systemctl reload succeeds whatever happens.",
			Why: `kill(1) returns when the signal is sent. systemd then says "Reloaded", also when the
new version cannot start, and a package or a playbook goes on as if it ran.`,
			Source: "systemd.service(5), ExecReload=; systemd#6162; measured with 252, 257 and 262",
			Fix:    "ExecReload=/usr/bin/hdctl upgrade --queue NAME",
			Bad:    "ExecReload=/bin/kill -HUP $MAINPID",
			Good:   "ExecReload=/usr/bin/hdctl upgrade --queue app",
			check: onService(func(g *group, report report) {
				if _, value := g.typeOf(); value == "notify-reload" {
					return // another rule
				}
				commands := g.service.commands("ExecReload")
				waits := false
				for _, c := range commands {
					up, ok := upgradeOf(c)
					waits = waits || ok && !up.noBlock
					if filepath.Base(c.argv[0]) == "kill" {
						report(g.service, c.Position, "kill does not wait for the upgrade: a reload succeeds also if the new version cannot start")
						waits = true // it is told already
					}
					if ok && up.noBlock {
						report(g.service, c.Position, "with --no-block a reload succeeds also if the new version cannot start")
						waits = true
					}
				}
				if len(commands) > 0 && !waits && !slices.ContainsFunc(commands, mayWait) {
					report(g.service, commands[0].Position, "nothing here waits for an upgrade, as \"hdctl upgrade\" does")
				}
			}),
		},
		{
			ID: "exec-reload-ignore", Severity: Error,
			Summary: `ExecReload=-: systemctl reload succeeds although the upgrade has failed.`,
			Why: `The "-" makes systemd take every exit status for success: the reason is in the
journal, and nobody is told that the old version still runs.`,
			Source: "systemd.service(5), \"Command lines\"; measured with 252",
			Fix:    "ExecReload=/usr/bin/hdctl upgrade --queue NAME, without \"-\"",
			Bad:    "ExecReload=-/usr/bin/hdctl upgrade --queue app",
			Good:   "ExecReload=/usr/bin/hdctl upgrade --queue app",
			check: onService(func(g *group, report report) {
				for _, c := range g.service.commands("ExecReload") {
					if strings.Contains(c.prefix, "-") {
						report(g.service, c.Position, `the "-" makes a reload succeed that has failed`)
					}
				}
			}),
		},
		{
			ID: "exec-reload-name", Severity: Error,
			Summary: "ExecReload= upgrades another service.",
			Why: `hdctl looks for the control socket in /run/handoff/NAME, which is the directory of
RuntimeDirectory=. A unit that was copied often has the name of the first one.`,
			Source: "hdctl(1)",
			Fix:    "ExecReload=/usr/bin/hdctl upgrade --queue NAME",
			Bad:    "ExecReload=/usr/bin/hdctl upgrade --queue other",
			Good:   "ExecReload=/usr/bin/hdctl upgrade --queue app",
			check: onService(func(g *group, report report) {
				for _, c := range g.service.commands("ExecReload") {
					up, ok := upgradeOf(c)
					switch {
					case !ok || up.socket:
					case up.service == "":
						report(g.service, c.Position, "it names no service: with a second one on the machine each reload fails")
					case up.service != g.name():
						report(g.service, c.Position, "it upgrades %s, and this service is %s", up.service, g.name())
					case up.user && !g.options.UserManager && g.system():
						report(g.service, c.Position, "it looks for a service of a user (--user), and this is one of the system")
					case !up.user && g.options.UserManager:
						report(g.service, c.Position, "it looks for a service of the system: for one of a user it needs --user")
					}
				}
			}),
		},
		{
			ID: "exec-reload-queue", Severity: Warning,
			Summary: "ExecReload= without --queue: a reload fails while an upgrade is in progress.",
			Why: `Two packages that are upgraded together, or an operator and a playbook, ask for two
upgrades at the same time. Without --queue the second one is refused, and its caller
sees a failed reload.`,
			Source: "hdctl(1)",
			Fix:    "ExecReload=/usr/bin/hdctl upgrade --queue NAME",
			Bad:    "ExecReload=/usr/bin/hdctl upgrade app",
			Good:   "ExecReload=/usr/bin/hdctl upgrade --queue app",
			check: onService(func(g *group, report report) {
				for _, c := range g.service.commands("ExecReload") {
					if up, ok := upgradeOf(c); ok && !up.queue {
						report(g.service, c.Position, "without --queue a reload fails while another upgrade is in progress")
					}
				}
			}),
		},
	}
}

// upgrade is a command line "hdctl upgrade".
type upgrade struct {
	service              string
	queue, noBlock, user bool
	socket               bool // it names the control socket
}

// upgradeOf takes such a command line apart.
func upgradeOf(c command) (upgrade, bool) {
	if len(c.argv) == 0 || filepath.Base(c.argv[0]) != "hdctl" || !slices.Contains(c.argv, "upgrade") {
		return upgrade{}, false
	}
	var up upgrade
	verb := false
	for i := 1; i < len(c.argv); i++ {
		arg := c.argv[i]
		flag, _, hasValue := strings.Cut(arg, "=")
		switch flag {
		case "--queue":
			up.queue = true
		case "--no-block":
			up.noBlock = true
		case "--user":
			up.user = true
		case "--socket":
			up.socket = true
		}
		switch {
		case slices.Contains([]string{"-o", "--format", "--timeout", "--socket", "--color", "--wait", "--reason", "--binary"}, flag) && !hasValue:
			i++
		case strings.HasPrefix(arg, "-"):
		case !verb:
			verb = true
		default:
			up.service = strings.TrimSuffix(arg, ".service")
		}
	}
	return up, true
}

// mayWait tells whether a command is another program than those of which it is known
// that they send a signal, ask for something, or do nothing.
func mayWait(c command) bool {
	switch filepath.Base(c.argv[0]) {
	case "kill", "pkill", "killall", "true", "false", "echo", "sleep", "touch", "logger", "hdctl", "systemctl":
		return false
	case "sh", "bash", "dash":
		return strings.Contains(strings.Join(c.argv, " "), "hdctl ")
	}
	return true
}

// system tells whether the units say that they are for the system.
func (g *group) system() bool {
	for _, s := range g.service.words("Install", "WantedBy") {
		if s.Value == "multi-user.target" || s.Value == "graphical.target" {
			return true
		}
	}
	return false
}
