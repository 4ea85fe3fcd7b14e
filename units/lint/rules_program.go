package lint

import (
	"path/filepath"
	"slices"
	"strings"
)

// programRules are about ExecStart=.
func programRules() []Rule {
	return []Rule{
		{
			ID: "exec-start-shell", Severity: Error,
			Summary: "ExecStart= runs a shell, or another program that starts the service as its child.",
			Why: `Sockets, the watchdog and the main process belong to the process that systemd
started (LISTEN_PID=): the service gets none of its sockets, and SIGTERM goes to the
shell. A script that ends in "exec" is all right; that cannot be seen from here.`,
			Source: "sd_listen_fds(3); telegraf#1279; measured with 252",
			Fix:    "ExecStart=/usr/bin/NAME, or a script that ends in: exec /usr/bin/NAME",
			Bad:    `ExecStart=/bin/sh -c 'ulimit -c 0; /usr/bin/app; true'`,
			Good:   `ExecStart=/bin/sh -c 'ulimit -c 0; exec /usr/bin/app'`,
			check: onService(func(g *group, report report) {
				for _, c := range g.service.commands("ExecStart") {
					if wrapper := wrapper(c.argv); wrapper != "" {
						report(g.service, c.Position, "%s starts the service as its child: systemd's sockets are for the process that it has started itself", wrapper)
					}
				}
			}),
		},
		{
			ID: "exec-start-relative", Severity: Warning,
			Summary: "ExecStart= is no absolute path.",
			Why: `systemd looks the program up in a path that is compiled in. An upgrade looks it up
in $PATH, which Environment= may have changed, and if it finds another program there,
it runs the file of the old process by its real path.`,
			Source: "systemd.service(5), \"Command lines\"; handoff(7)",
			Fix:    "ExecStart=/usr/bin/NAME",
			Bad:    "ExecStart=app",
			Good:   "ExecStart=/usr/bin/app",
			check: onService(func(g *group, report report) {
				for _, c := range g.service.commands("ExecStart") {
					if path := c.argv[0]; !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "%") {
						report(g.service, c.Position, "%q is not an absolute path: an upgrade may find another program than systemd does", path)
					}
				}
			}),
		},
		{
			ID: "exec-start-argv0", Severity: Warning,
			Summary: `ExecStart=@: the service is not told the path that it was started by.`,
			Why: `An upgrade runs argv[0] again, so that a symbolic link which was switched leads to
the new version. If it names no program, what is left is the path of the old
process, in which the kernel has replaced the links.`,
			Source: "systemd.service(5), \"Command lines\"; handoff(7)",
			Fix:    "ExecStart=/usr/bin/NAME",
			Bad:    "ExecStart=@/usr/bin/app my-app",
			Good:   "ExecStart=/usr/bin/app",
			check: onService(func(g *group, report report) {
				for _, c := range g.service.commands("ExecStart") {
					if strings.Contains(c.prefix, "@") && len(c.argv) > 1 && c.argv[1] != c.argv[0] {
						report(g.service, c.Position, "the service sees itself as %q, and cannot know that it was started by %s", c.argv[1], c.argv[0])
					}
				}
			}),
		},
		{
			ID: "exec-start-ignore", Severity: Warning,
			Summary: `ExecStart=-: a failure counts as success.`,
			Why: `The service is "inactive" and not "failed" when it has crashed: neither monitoring
nor OnFailure= notices.`,
			Source: "systemd.service(5), \"Command lines\"",
			Fix:    "ExecStart= without the \"-\"",
			Bad:    "ExecStart=-/usr/bin/app",
			Good:   "ExecStart=/usr/bin/app",
			check: onService(func(g *group, report report) {
				for _, c := range g.service.commands("ExecStart") {
					if strings.Contains(c.prefix, "-") {
						report(g.service, c.Position, `the "-" makes a crash of the service look like a success`)
					}
				}
			}),
		},
	}
}

// wrapper returns the name of a program that starts another one as its child, and ""
// for what runs in the process that systemd has started.
func wrapper(argv []string) string {
	name := filepath.Base(argv[0])
	switch name {
	case "sudo", "su", "runuser", "timeout", "start-stop-daemon", "daemonize", "setsid", "script":
		return name
	case "sh", "bash", "dash", "ash", "ksh", "zsh", "busybox":
	default:
		return ""
	}
	i := slices.IndexFunc(argv, func(a string) bool {
		return strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "--") && strings.HasSuffix(a, "c")
	})
	if i < 0 || i+1 >= len(argv) {
		return "" // a script: who knows
	}
	script := strings.TrimRight(argv[i+1], "; \t")
	for _, last := range []string{";", "&&", "||", "\n"} {
		if j := strings.LastIndex(script, last); j >= 0 {
			script = script[j+len(last):]
		}
	}
	switch first, _, _ := strings.Cut(strings.TrimSpace(script), " "); first {
	case "exec":
		return ""
	}
	if name == "bash" && !strings.ContainsAny(argv[i+1], ";&|\n") {
		return "" // it executes a single command in its own process
	}
	return name
}
