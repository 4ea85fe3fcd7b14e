package lint

import (
	"strconv"
	"strings"

	"github.com/hdctl/handoff/units"
)

// smallBacklog is what was once the largest.
const smallBacklog = 128

// socketRules are about socket units alone.
func socketRules() []Rule {
	return []Rule{
		{
			ID: "fd-name", Severity: Error,
			Summary: "There is no FileDescriptorName=: the service does not find the socket by its name.",
			Why: `Without it the socket is called as its unit is, "app.socket", and a service that asks
for "http" fails at its start, with a list of what it was passed.`,
			Source: "systemd.socket(5), FileDescriptorName=; systemd#1188; measured with 252",
			Fix:    "FileDescriptorName= with the name that the program asks for",
			Bad:    "[Socket]\nListenStream=8080",
			Good:   "[Socket]\nListenStream=8080\nFileDescriptorName=http",
			check: onSockets(func(u *Unit, g *group, report report) {
				if _, ok := u.last(validFDName, "Socket", "FileDescriptorName"); ok {
					return
				}
				if s, ok := u.last(nil, "Socket", "FileDescriptorName"); ok {
					report(u, s.Position, "FileDescriptorName=%s is not a valid name, and systemd ignores it: the socket is called %s", s.Value, u.Name)
					return
				}
				report(u, u.at("Socket"), "there is no FileDescriptorName=: to the service the socket is called %s", u.Name)
			}),
		},
		{
			ID: "fd-name-reserved", Severity: Error,
			Summary: "FileDescriptorName= is a name that means something else.",
			Why: `systemd calls other descriptors "connection" (Accept=yes), "stored" and "unknown", and
the library its control socket "control".`,
			Source: "sd_listen_fds(3); handoff(7)",
			Fix:    "FileDescriptorName= with another name, in the program, too",
			Bad:    "FileDescriptorName=control",
			Good:   "FileDescriptorName=admin",
			check: onSockets(func(u *Unit, g *group, report report) {
				s, ok := u.last(validFDName, "Socket", "FileDescriptorName")
				if ok && (s.Value == "control" || s.Value == "connection" || s.Value == "stored" || s.Value == "unknown") {
					report(u, s.Position, "FileDescriptorName=%s: that name is taken", s.Value)
				}
			}),
		},
		{
			ID: "accept", Severity: Error,
			Summary: "Accept=yes: systemd starts a process for each connection, and passes no listening socket.",
			Why: `That is what inetd did. It needs a template unit, and there is no service that could
be upgraded.`,
			Source: "systemd.socket(5), Accept=; measured with 252",
			Fix:    "remove Accept=yes",
			Bad:    "Accept=yes",
			Good:   "Accept=no",
			check: onSockets(func(u *Unit, g *group, report report) {
				if s, on := u.is("Socket", "Accept"); on {
					report(u, s.Position, "Accept=%s: systemd accepts by itself, and starts a process for each connection", s.Value)
				}
			}),
		},
		{
			ID: "reuse-port", Severity: Warning,
			Summary: "ReusePort=yes: another process of root can bind the same port, and gets a share of the clients.",
			Why: `A copy of the service that was started by hand, and then stopped, takes the connections
that wait in its queue with it. An upgrade shares the one socket and needs no SO_REUSEPORT.`,
			Source: "systemd.socket(5), ReusePort=; socket(7); systemd#19843; pingora#427",
			Fix:    "remove ReusePort=yes",
			Bad:    "ReusePort=yes",
			Good:   "ReusePort=no",
			check: onSockets(func(u *Unit, g *group, report report) {
				if s, on := u.is("Socket", "ReusePort"); on {
					report(u, s.Position, "ReusePort=%s: another process of root can bind the port, and take a share of the connections", s.Value)
				}
			}),
		},
		{
			ID: "trigger-limit", Severity: Error,
			Summary: "The trigger limit closes the socket: TriggerLimitIntervalSec= is not 0.",
			Why: `When a service that crashes is started 20 times in two seconds by clients that wait
(the default), the socket fails with result "trigger-limit-hit". It is closed, clients
are refused, and that stays so until somebody comes.`,
			Source: "systemd.socket(5), TriggerLimitIntervalSec=; systemd#15633; measured with 252",
			Fix:    "TriggerLimitIntervalSec=0",
			Bad:    "TriggerLimitIntervalSec=2s\nTriggerLimitBurst=20",
			Good:   "TriggerLimitIntervalSec=0",
			check: onSockets(func(u *Unit, g *group, report report) {
				if s, ok := u.last(isNumber, "Socket", "TriggerLimitBurst"); ok && isZero(s.Value) {
					return
				}
				s, ok := u.last(isSpan, "Socket", "TriggerLimitIntervalSec")
				d, _ := units.ParseSpan(s.Value)
				switch {
				case !ok:
					report(u, u.at("Socket"), "there is no TriggerLimitIntervalSec=0: a service that crashes 20 times in 2s closes its socket")
				case d != 0:
					report(u, s.Position, "TriggerLimitIntervalSec=%s: a service that crashes again and again closes its socket", s.Value)
				}
			}),
		},
		{
			ID: "backlog", Severity: Warning,
			Summary: "Backlog= is small: in a restart, clients that do not find room are turned away.",
			Why: `While nobody accepts, new connections wait in the queue of the socket. When it is full,
the kernel drops them: clients try again after one second, three, seven. The default
is as many as net.core.somaxconn allows.`,
			Source: "systemd.socket(5), Backlog=; listen(2)",
			Fix:    "remove Backlog=, or Backlog=65535",
			Bad:    "Backlog=16",
			Good:   "Backlog=65535",
			check: onSockets(func(u *Unit, g *group, report report) {
				s, ok := u.last(isNumber, "Socket", "Backlog")
				if n, _ := strconv.ParseUint(s.Value, 10, 32); ok && n < smallBacklog {
					report(u, s.Position, "Backlog=%s: in a restart no more than that many clients can wait", s.Value)
				}
			}),
		},
		{
			ID: "flush-pending", Severity: Error, Since: 247,
			Summary: "FlushPending=yes: at the end of the service systemd throws away the clients that wait.",
			Why: `Connections that were made while the service restarts, or is down, are accepted and
closed by systemd. To keep them is what the socket is for.`,
			Source: "systemd.socket(5), FlushPending=; measured with 252",
			Fix:    "remove FlushPending=yes",
			Bad:    "FlushPending=yes",
			Good:   "FlushPending=no",
			check: onSockets(func(u *Unit, g *group, report report) {
				if s, on := u.is("Socket", "FlushPending"); on {
					report(u, s.Position, "FlushPending=%s: clients that wait are turned away when the service ends", s.Value)
				}
			}),
		},
		{
			ID: "socket-install", Severity: Warning,
			Summary: "The socket is not WantedBy=sockets.target: after a boot it opens late, or not at all.",
			Why: `sockets.target comes before all services. Without it the socket is opened when the
service starts, and clients on the same machine that are faster are refused.`,
			Source: "systemd.special(7), sockets.target",
			Fix:    "WantedBy=sockets.target in [Install]",
			Bad:    "[Install]\nWantedBy=multi-user.target",
			Good:   "[Install]\nWantedBy=sockets.target",
			check: onSockets(func(u *Unit, g *group, report report) {
				list := u.words("Install", "WantedBy", "RequiredBy")
				for _, s := range list {
					if s.Value == "sockets.target" {
						return
					}
				}
				at := u.at("Install")
				if len(list) > 0 {
					at = list[0].Position
				}
				report(u, at, "%s is not WantedBy=sockets.target: after a boot it opens late, or not at all", u.Name)
			}),
		},
	}
}

// onSockets applies a check to each socket of a group.
func onSockets(check func(*Unit, *group, report)) func(*group, report) {
	return func(g *group, report report) {
		for _, u := range g.sockets {
			check(u, g, report)
		}
	}
}

// validFDName is the rule for names of descriptors: sd_listen_fds(3).
func validFDName(s string) bool {
	return s != "" && len(s) <= 255 && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == ':' }) < 0
}

// fdName is the name by which the service gets the sockets of a unit.
func (u *Unit) fdName() string {
	if s, ok := u.last(validFDName, "Socket", "FileDescriptorName"); ok {
		return s.Value
	}
	return u.Name
}
