package lint

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// directoryRules are about RuntimeDirectory= and StateDirectory=.
func directoryRules() []Rule {
	return []Rule{
		{
			ID: "runtime-directory", Severity: Error,
			Summary: "There is no RuntimeDirectory=handoff/NAME: hdctl cannot reach the service.",
			Why: `The service puts its control socket there, since it is the place that it may write to
as any user, and where hdctl looks. Without it there is no control socket, and
ExecReload= fails.`,
			Source: "systemd.exec(5), RuntimeDirectory=; handoff(7)",
			Fix:    "RuntimeDirectory=handoff/NAME",
			Bad:    "RuntimeDirectory=app",
			Good:   "RuntimeDirectory=handoff/app",
			check: onService(func(g *group, report report) {
				if _, ok := g.runtimeDirectory(); ok || g.variables()["HANDOFF_CONTROL"].Value != "" {
					return
				}
				at := g.service.at("Service")
				if list := g.service.list("Service", "RuntimeDirectory"); len(list) > 0 {
					at = list[0].Position
				}
				report(g.service, at, "there is no RuntimeDirectory=handoff/%s, and so no control socket: hdctl cannot reach the service%s", g.service.base(), g.unless("HANDOFF_CONTROL"))
			}),
		},
		{
			ID: "runtime-directory-name", Severity: Warning,
			Summary: "RuntimeDirectory=handoff/NAME is not called as the unit is.",
			Why: `What is behind handoff/ is the name of the service for hdctl. When the unit is called
differently, "hdctl status" with the name of the unit finds nothing, and hdctl asks
systemd about a unit that does not exist.`,
			Source: "hdctl(1)",
			Fix:    "RuntimeDirectory= and StateDirectory=handoff/ with the name of the unit",
			Bad:    "RuntimeDirectory=handoff/other",
			Good:   "RuntimeDirectory=handoff/app",
			check: onService(func(g *group, report report) {
				if s, ok := g.runtimeDirectory(); ok && g.name() != g.service.base() {
					report(g.service, s.Position, "hdctl knows the service as %s, and systemd as %s", g.name(), g.service.base())
				}
			}),
		},
		{
			ID: "runtime-directory-mode", Severity: Warning,
			Summary: "RuntimeDirectoryMode= keeps the operators from the control socket.",
			Why: `HANDOFF_OPERATOR_GROUP gives the socket to a group; but its members must be allowed to
go through the directory, too. Who may connect, the socket decides.`,
			Source: "systemd.exec(5), RuntimeDirectoryMode=",
			Fix:    "RuntimeDirectoryMode=0755",
			Bad:    "RuntimeDirectoryMode=0700\nEnvironment=HANDOFF_OPERATOR_GROUP=adm",
			Good:   "RuntimeDirectoryMode=0755",
			check: onService(func(g *group, report report) {
				operators := g.variables()["HANDOFF_OPERATOR_GROUP"].Value
				s, ok := g.service.last(nil, "Service", "RuntimeDirectoryMode")
				mode, err := strconv.ParseUint(s.Value, 8, 32)
				if operators != "" && ok && err == nil && mode&0o001 == 0 {
					report(g.service, s.Position, "RuntimeDirectoryMode=%s: members of %s (HANDOFF_OPERATOR_GROUP) do not get to the control socket", s.Value, operators)
				}
			}),
		},
		{
			ID: "operator-group", Severity: Warning,
			Summary: "The service is not in the group that it gives the control socket to.",
			Why: `Only root and members of a group may give a file to it. Without the group the socket
stays with the group of the service, and operators are refused; status says so.`,
			Source: "chown(2); handoff(7)",
			Fix:    "SupplementaryGroups= with the group of HANDOFF_OPERATOR_GROUP",
			Bad:    "User=app\nEnvironment=HANDOFF_OPERATOR_GROUP=adm",
			Good:   "User=app\nEnvironment=HANDOFF_OPERATOR_GROUP=adm\nSupplementaryGroups=adm",
			check: onService(func(g *group, report report) {
				v := g.variables()["HANDOFF_OPERATOR_GROUP"]
				_, dynamic := g.service.is("Service", "DynamicUser")
				user, ok := g.service.last(nil, "Service", "User")
				if v.Value == "" || !dynamic && (!ok || user.Value == "root" || user.Value == "0") {
					return
				}
				groups := g.service.words("Service", "SupplementaryGroups")
				groups = append(groups, g.service.words("Service", "Group")...)
				if !slices.ContainsFunc(groups, func(s Setting) bool { return s.Value == v.Value }) {
					report(g.service, v.Position, "the service cannot give its control socket to the group %s, of which it is no member", v.Value)
				}
			}),
		},
		{
			ID: "state-directory", Severity: Warning,
			Summary: "There is no StateDirectory=handoff/NAME: no history of upgrades, and no lasting pause.",
			Why: `hdctl history and hdctl rollback need to know what ran before. After a restart of the
service, or of the machine, an operator's "hdctl pause" is forgotten.`,
			Source: "systemd.exec(5), StateDirectory=; hdctl(1)",
			Fix:    "StateDirectory=handoff/NAME",
			Bad:    "StateDirectory=app",
			Good:   "StateDirectory=app handoff/app",
			check: onService(func(g *group, report report) {
				if s, ok := g.directory("StateDirectory"); ok {
					if strings.TrimPrefix(s.Value, handoffDir) != g.name() {
						report(g.service, s.Position, "the service is %s, and does not find its state in %s", g.name(), s.Value)
					}
					return
				}
				if g.variables()["HANDOFF_STATE_DIR"].Value != "" {
					return
				}
				at := g.service.at("Service")
				if list := g.service.list("Service", "StateDirectory"); len(list) > 0 {
					at = list[0].Position
				}
				report(g.service, at, "there is no StateDirectory=handoff/%s: the history of upgrades, and a pause, do not survive a restart%s", g.name(), g.unless("HANDOFF_STATE_DIR"))
			}),
		},
		{
			ID: "socket-in-runtime-directory", Severity: Error,
			Summary: "A socket of systemd is in the RuntimeDirectory= of the service, which is removed at a stop.",
			Why: `When the service stops, restarts or crashes, systemd removes the directory with the
socket in it. The socket unit goes on listening where nobody can connect any more, until
it is restarted.`,
			Source: "systemd.exec(5), RuntimeDirectory=; systemd#6087; measured with 252",
			Fix:    "ListenStream= directly in /run, or in a directory of its own; or RuntimeDirectoryPreserve=yes",
			Bad:    "ListenStream=/run/handoff/app/app.sock",
			Good:   "ListenStream=/run/app.sock",
			check: onService(func(g *group, report report) {
				if s, ok := g.service.last(nil, "Service", "RuntimeDirectoryPreserve"); ok {
					if on, _ := parseBool(s.Value); on {
						return
					}
				}
				for _, socket := range g.own() {
					for _, l := range socket.listens() {
						file := runFile(l.Value)
						for _, d := range g.service.words("Service", "RuntimeDirectory") {
							dir, _, _ := strings.Cut(d.Value, ":")
							if file != "" && strings.HasPrefix(file, path.Clean(dir)+"/") {
								report(socket, l.Position, "%s is removed with RuntimeDirectory=%s of %s when that stops, and clients find nothing", l.Value, d.Value, g.service.Name)
							}
						}
					}
				}
			}),
		},
	}
}

// runFile returns the path of a file below the runtime directory; "" for others.
func runFile(address string) string {
	for _, prefix := range []string{"/run/", "/var/run/", "%t/"} {
		if rest, ok := strings.CutPrefix(address, prefix); ok {
			return path.Clean(rest)
		}
	}
	return ""
}

// listens are the addresses of a socket unit.
func (u *Unit) listens() []Setting {
	list := u.list("Socket", "ListenStream", "ListenDatagram", "ListenSequentialPacket")
	for i := range list {
		list[i].Value = u.expand(list[i].Value)
	}
	return list
}
