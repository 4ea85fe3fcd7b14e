package lint

import (
	"slices"
	"strings"
)

// pairRules are about a service and its sockets together.
func pairRules() []Rule {
	return []Rule{
		{
			ID: "no-socket", Severity: Error,
			Summary: "No socket unit starts the service: it has nothing that it could hand over for systemd.",
			Why: `The library takes its sockets from systemd, and under systemd it binds none by itself.
With them a restart, a crash and a boot make clients wait instead of refusing them.`,
			Source: "systemd.socket(5); handoff(7)",
			Fix:    "a unit NAME.socket, and Requires=NAME.socket in the service",
			Bad:    "[Unit]\nDescription=app",
			Good:   "[Unit]\nDescription=app\nRequires=app.socket",
			check: onService(func(g *group, report report) {
				if len(g.own()) == 0 && len(socketsNamedBy(g.service)) == 0 {
					report(g.service, g.service.at("Unit"), "no socket unit starts %s", g.service.Name)
				}
			}),
		},
		{
			ID: "socket-required", Severity: Error,
			Summary: "The service does not require its socket: it can be started without it.",
			Why: `"systemctl start app.service" does not start app.socket by itself, and a socket that
fails does not keep the service from starting. It then runs without the socket, and the
socket cannot be started as long as the service runs ("Socket service already active,
refusing").`,
			Source: "systemd.unit(5), Requires=; systemd#21707; measured with 252, 257 and 262",
			Fix:    "Requires= in [Unit] of the service, for each socket",
			Bad:    "Wants=app.socket",
			Good:   "Requires=app.socket",
			check: onService(func(g *group, report report) {
				required := g.service.words("Unit", "Requires")
				required = append(required, g.service.words("Unit", "BindsTo")...)
				for _, s := range g.own() {
					if !slices.ContainsFunc(required, func(r Setting) bool { return r.Value == s.Name }) {
						report(g.service, g.service.at("Unit"), "there is no Requires=%s: the service can start without it, and then it cannot be started any more", s.Name)
					}
				}
			}),
		},
		{
			ID: "socket-service", Severity: Error,
			Summary: "A socket that the service depends on starts another service.",
			Why: `Without Service= a socket starts the service of its own name: app-admin.socket is for
app-admin.service, and app.service does not get it.`,
			Source: "systemd.socket(5), Service=",
			Fix:    "Service=NAME.service in the socket",
			Bad:    "[Socket]\nFileDescriptorName=http\nService=other.service",
			Good:   "[Socket]\nFileDescriptorName=http\nService=app.service",
			check: onService(func(g *group, report report) {
				for _, u := range g.sockets {
					service := serviceOf(u)
					if service == g.service.Name {
						continue
					}
					at := u.at("Socket")
					if s, ok := u.last(nil, "Socket", "Service"); ok {
						at = s.Position
					}
					report(u, at, "%s depends on %s, which starts %s", g.service.Name, u.Name, service)
				}
			}),
		},
		{
			ID: "part-of", Severity: Error,
			Summary: "The socket stops with the service: at a restart clients are refused.",
			Why: `PartOf=, BindsTo= and Requires= from the socket to the service pass a stop on (and
PropagatesStopTo= of the service does): "systemctl restart" of the service closes the
socket, with those who wait in it.`,
			Source: "systemd.unit(5), PartOf=; measured with 252",
			Fix:    "remove it from the socket; Requires= belongs into the service",
			Bad:    "[Unit]\nPartOf=app.service",
			Good:   "[Unit]\nDescription=app",
			check: func(g *group, report report) {
				for _, u := range g.own() {
					for _, name := range []string{"PartOf", "BindsTo", "Requires", "Requisite", "StopPropagatedFrom"} {
						for _, s := range u.words("Unit", name) {
							if s.Value == serviceOf(u) {
								report(u, s.Position, "%s=%s: a stop or restart of the service closes the socket", name, s.Value)
							}
						}
					}
				}
				if g.service == nil {
					return
				}
				for _, s := range g.service.words("Unit", "PropagatesStopTo") {
					if slices.ContainsFunc(g.own(), named(s.Value)) {
						report(g.service, s.Position, "PropagatesStopTo=%s: a stop or restart of the service closes the socket", s.Value)
					}
				}
			},
		},
		{
			ID: "also", Severity: Warning,
			Summary: "The service does not enable and disable its sockets with it.",
			Why: `After "systemctl disable --now app.service" the socket is still there, and the next
client starts the service again.`,
			Source: "systemd.unit(5), Also=",
			Fix:    "Also= in [Install] of the service, with each socket",
			Bad:    "[Install]\nWantedBy=multi-user.target",
			Good:   "[Install]\nWantedBy=multi-user.target\nAlso=app.socket",
			check: onService(func(g *group, report report) {
				u := g.service
				if len(u.words("Install", "WantedBy", "RequiredBy", "Also")) == 0 {
					return // it is started by its sockets alone
				}
				also := u.words("Install", "Also")
				for _, s := range g.own() {
					if !slices.ContainsFunc(also, func(a Setting) bool { return a.Value == s.Name }) {
						report(u, u.at("Install"), "there is no Also=%s: when the service is disabled, the next client starts it again", s.Name)
					}
				}
			}),
		},
		{
			ID: "fd-name-duplicate", Severity: Warning,
			Summary: "Two socket units of the service have the same FileDescriptorName=.",
			Why: `The service gets both under one name, in an order that systemd does not promise. If
they are meant to be the same, one unit can have several ListenStream= lines.`,
			Source: "systemd.socket(5), FileDescriptorName=; sd_listen_fds(3)",
			Fix:    "FileDescriptorName= with a name of its own for each unit, or one unit for all addresses",
			Bad:    "# app.socket, and app-admin.socket, too\nFileDescriptorName=http",
			Good:   "# app-admin.socket\nFileDescriptorName=admin",
			check: func(g *group, report report) {
				first := make(map[string]string)
				for _, u := range g.own() {
					s, ok := u.last(validFDName, "Socket", "FileDescriptorName")
					if !ok {
						continue
					}
					if other := first[s.Value]; other != "" {
						report(u, s.Position, "%s is called %s, too", other, s.Value)
						continue
					}
					first[s.Value] = u.Name
				}
			},
		},
		{
			ID: "socket-user", Severity: Error,
			Summary: "The socket belongs to a user that exists only while the service runs.",
			Why: `systemd opens the socket before the service, and the user of DynamicUser= is made up
when that starts: the socket fails with result "resources".`,
			Source: "systemd.socket(5), SocketUser=; systemd.exec(5), DynamicUser=; measured with 252",
			Fix:    "SocketUser= and SocketGroup= with a user and group that exist, or SocketMode=0666",
			Bad:    "# app.socket; app.service has DynamicUser=yes\nSocketUser=app",
			Good:   "# app.socket\nSocketMode=0666",
			check: onService(func(g *group, report report) {
				if _, dynamic := g.service.is("Service", "DynamicUser"); !dynamic {
					return
				}
				user := g.service.base()
				if s, ok := g.service.last(nil, "Service", "User"); ok {
					user = g.service.expand(s.Value)
				}
				_, static := g.service.last(nil, "Service", "Group")
				for _, u := range g.own() {
					for _, name := range []string{"SocketUser", "SocketGroup"} {
						s, ok := u.last(nil, "Socket", name)
						if ok && u.expand(s.Value) == user && (name == "SocketUser" || !static) {
							report(u, s.Position, "%s=%s: with DynamicUser= that exists only while %s runs, and the socket comes first", name, s.Value, g.service.Name)
						}
					}
				}
			}),
		},
	}
}

// needsRules compare the sockets of the units with those that the program wants.
func needsRules() []Rule {
	return []Rule{
		{
			ID: "socket-missing", Severity: Warning,
			Summary: "The program asks for a socket that no unit provides.",
			Why: `Under systemd the library binds nothing by itself: the program fails at its start, or
does without the socket. Which of the two, only the program knows; for a socket that is
optional there is "hdctl: ignore socket-missing".`,
			Source: "handoff(7); hdctl unit verify --run",
			Fix:    "a socket unit with that FileDescriptorName=, or another name in the program",
			Bad:    "# the program asks for \"http\"\nFileDescriptorName=web",
			Good:   "FileDescriptorName=http",
			check: onService(func(g *group, report report) {
				needed, _ := g.needed()
				for _, name := range needed {
					if !slices.ContainsFunc(g.own(), func(u *Unit) bool { return u.fdName() == name }) {
						report(g.service, g.execStart(), "the program asks for a socket %q, and there is none of that name%s", name, g.names())
					}
				}
			}),
		},
		{
			ID: "socket-unclaimed", Severity: Error,
			Summary: "The program does not ask for a socket that systemd opens: its clients wait in vain.",
			Why: `The socket listens, and so connections succeed, and nobody ever answers. It would be
better if they were refused.`,
			Source: "handoff(7); hdctl unit verify --run, hdctl status",
			Fix:    "another name in FileDescriptorName= or in the program, or remove the socket",
			Bad:    "# the program asks for \"http\" only\nFileDescriptorName=web",
			Good:   "FileDescriptorName=http",
			check: func(g *group, report report) {
				needed, known := g.needed()
				for _, u := range g.own() {
					at := u.at("Socket")
					if s, ok := u.last(validFDName, "Socket", "FileDescriptorName"); ok {
						at = s.Position
					}
					switch name := u.fdName(); {
					case known && !slices.Contains(needed, name):
						report(u, at, "the program does not ask for a socket %q: who connects waits in vain", name)
					case slices.Contains(g.options.Unclaimed, name):
						report(u, at, "the service, as it runs, does not serve the socket %q: who connects waits in vain", name)
					}
				}
			},
		},
	}
}

// needed are the names that the program asks for, each once, if they are known.
func (g *group) needed() (names []string, known bool) {
	if g.service == nil || g.options.Needs[g.service.Name] == nil {
		return nil, false
	}
	for _, n := range g.options.Needs[g.service.Name].Sockets {
		if !slices.Contains(names, n.Name) {
			names = append(names, n.Name)
		}
	}
	return names, true
}

// names is "; there are ..." with the names of the sockets.
func (g *group) names() string {
	var names []string
	for _, u := range g.own() {
		names = append(names, u.fdName())
	}
	if names == nil {
		return ""
	}
	return "; there are: " + strings.Join(names, ", ")
}

// execStart is where the program is.
func (g *group) execStart() Position {
	if s, ok := g.service.last(nil, "Service", "ExecStart"); ok {
		return s.Position
	}
	return g.service.at("Service")
}
