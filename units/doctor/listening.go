package doctor

import (
	"net"
	"net/netip"
	"strings"

	"github.com/hdctl/handoff/upgrade/control"
)

// listening finds the sockets that the main process waits for clients in, and that
// are none of those it hands on: the program has bound them by itself. A new version
// that binds the same address meets the old one there.
func (s System) listening(st *control.Status) []control.Check {
	const name = "own-sockets"
	pid := mainOf(st).PID
	if pid == 0 {
		return nil
	}
	open, err := s.openSockets(pid)
	if err != nil {
		return []control.Check{unseen(name, err)}
	}
	handed := make(map[bound]bool)
	for _, sock := range st.Sockets {
		handed[boundOf(sock.Network, sock.Address)] = true
	}
	firstEphemeral, _ := s.number("/proc/sys/net/ipv4/ip_local_port_range")
	var checks []control.Check
	for _, b := range open {
		if handed[b] || b.network == "unix" && strings.HasSuffix(b.address, "/handoff/"+st.Service+"/"+control.SocketName) {
			continue
		}
		checks = append(checks, b.judge(name, st.Main, firstEphemeral)...)
	}
	if len(checks) == 0 {
		checks = append(checks, good(name, "process %d waits for clients in no socket but those that it hands on", pid))
	}
	return checks
}

// judge says what an own socket does to an upgrade.
func (b bound) judge(name string, generation int, firstEphemeral int64) []control.Check {
	const hint = "pass it by a .socket unit too, and ask for it with Listen; or bind it with port 0, or a name, of each generation's own"
	ephemeral := b.port != 0 && int64(b.port) >= firstEphemeral
	switch {
	case b.network == "udp" && ephemeral:
		return nil // probably a client that keeps its socket
	case b.network == "unix" && !strings.HasPrefix(b.address, "@"):
		return []control.Check{warn(
			name, hint,
			"the program listens on %s by itself: a new version either cannot bind it, or takes the path away from the old one", b.address,
		)}
	case ephemeral:
		return []control.Check{warn(
			name, hint, "the program listens on %s %s by itself, probably on a port that the kernel chose: each generation has another", b.network, b.address,
		)}
	case generation > 1:
		// It was started by an upgrade, while the old one had it.
		return []control.Check{warn(
			name, hint,
			"the program listens on %s %s by itself: while two generations run, either answers there, or the new one had to wait for the old", b.network, b.address,
		)}
	}
	return []control.Check{fail(
		name, hint,
		"the program listens on %s %s by itself: a new version cannot bind it while this one runs (EADDRINUSE)", b.network, b.address,
	)}
}

// bound is a socket in which a process waits for clients.
type bound struct {
	network string // tcp, udp, unix
	address string // as netip.AddrPort has it, or a path
	port    uint16
}

// boundOf normalizes what a service says of a socket.
func boundOf(network, address string) bound {
	if strings.HasPrefix(network, "unix") {
		return bound{network: "unix", address: address}
	}
	if host, port, err := net.SplitHostPort(address); err == nil {
		host, _, _ = strings.Cut(host, "%") // /proc has no zones
		if host == "" {
			host = "::"
		}
		address = net.JoinHostPort(host, port)
	}
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return bound{network: network, address: address}
	}
	return inet(strings.TrimRight(network, "46"), a)
}

func inet(network string, a netip.AddrPort) bound {
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	return bound{network: network, address: a.String(), port: a.Port()}
}
