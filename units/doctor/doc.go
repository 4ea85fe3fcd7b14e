// Package doctor finds what on a host, or in a service that runs, would break a
// handoff: what no upgrade has met yet, but the next one will.
//
//	s := doctor.System{Show: units.Systemctl(false)}
//	for _, c := range s.Host(ctx) {
//		fmt.Println(c.Name, c.Result, c.Message)
//	}
//
// A preflight check of an upgrade asks: would it work now? The doctor asks what is
// around it: the kernel and systemd, tools that restart services behind the
// operator's back, the settings that systemd has loaded, sockets that the program
// has bound by itself, generations that stay for ever.
//
// # What it does, and what not
//
// It reads files of /proc, /sys and /etc, and asks systemd. It changes nothing,
// starts nothing but systemctl(1), and sends nothing to the service. It works for
// every user; what the caller may not see is a warning that says so, never left
// out.
//
// # Results
//
// [control.CheckFailed] is what would break a handoff, or lose connections where
// one is expected. [control.CheckWarning] is what works until something else goes
// wrong, what an operator should decide, and what could not be seen. Each finding
// but a good one has a hint.
package doctor
