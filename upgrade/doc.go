// Package upgrade replaces a running network service by its new version without
// one failed request.
//
// systemd owns the sockets, through .socket units. The process that runs now, a
// generation, starts the next one, hands it the sockets, watches it for a while,
// tells systemd who the main process is, and then finishes what its clients have
// open. One call makes a net/http service do that:
//
//	func main() {
//		srv := &http.Server{Addr: "127.0.0.1:8080", Handler: handler}
//		if err := upgrade.ListenAndServe(srv, upgrade.Options{Version: version}); err != nil {
//			log.Fatal(err)
//		}
//	}
//
// and a handful makes any other:
//
//	u, err := upgrade.New(upgrade.Options{Version: version})
//	ln, err := u.Listen("echo", "tcp", "127.0.0.1:7000")
//	u.Serve(ln, upgrade.TCP(func(ctx context.Context, c *upgrade.Conn) { io.Copy(c, c) }))
//	err = u.Run(ctx)
//
// An upgrade is started by SIGHUP, by [Upgrader.Upgrade], or on the control
// socket (package control, the command hdctl), which is also how `systemctl
// reload` does it: ExecReload=hdctl upgrade NAME waits for the outcome, and fails
// if the upgrade fails.
//
// # An upgrade
//
// The next generation is started by executing os.Args[0] again, so it is whatever
// file is there now. It claims its sockets by name and says that it is ready; it
// is told to accept; the old generation stops accepting and is parked: it
// answers on the connections that it has, and can be at the door again at once.
// When the new one has lived through its probation, systemd is told its PID, and
// the old one drains. If the new one cannot be started, exits, hangs, or is the
// wrong file, nothing has changed, and the next upgrade is as good as the first.
//
// # What becomes of a bad version
//
// The old generation watches the new one: that its process lives, by its pidfd, and
// that it works, by a page of memory in which each generation counts what it accepts,
// beside what waits in the sockets. A new one that dies, is stopped (SIGSTOP), or
// lets clients wait for the HangTimeout on probation is killed, and the old one is at
// the door again. After the confirm the same holds for one that dies, or is stopped
// for the StoppedTimeout, as long as the old one still drains: it takes its drain
// back, and is the main process again. One that runs, but does not accept, is
// reported then, and nothing is done about it. A debugger, a unit whose CPU time is
// used up, and a service that says that it is busy ([Listener.SetBusy]) are no hang.
//
// Where a server cannot take its drain back ([Graceful], the last moment of HTTP/2
// without a request), the old generation ends at once in that case, and systemd
// starts the service again; clients that connect meanwhile wait.
//
// After such a return [Upgrader.Draining] gives another channel: ask for it each time.
//
// A staged upgrade (hdctl upgrade --stage 5%) gives the new generation exactly that
// share of the new connections: the old one accepts them and passes them on, before a
// byte is read. It is promoted, or rolled back, by hand, by a time limit, or, with
// --auto, by a verdict that compares how the two answer: what [HTTP] sees, or what
// [Options].Health says. Datagrams stay with the old generation until then.
//
// A rollback after the confirm is an upgrade to the file that ran before, which is
// kept open for that; it need not be on disk any more.
//
// # A listener is a gate
//
// A [Listener] is a gate in front of the sockets: Accept blocks while another
// generation is at the door, and ends with [net.ErrClosed] when this one is over.
// The service never learns that it was parked.
//
// # Connections
//
// What an old generation has open it finishes, and no client finds a connection
// closed under a request:
//
//   - An idle HTTP/1.1 connection without TLS ([HTTP]) goes on in the new
//     generation: its descriptor is passed, and the client notices nothing. The
//     old one forgets it only when the new one has said that it has it, and the
//     new one reads nothing before that.
//   - Other connections of HTTP are told with the answer to their next request.
//   - WebSockets and streams without end are told by [Conn.OnDrain], each at a
//     moment of its own.
//   - A session of a protocol of your own goes on in the new generation, if the
//     service says what there is to know about it: [Conn.Await], [Conn.Handoff],
//     [Listener.Adopt].
//   - gRPC: [Graceful].
//   - A listener that the service serves in its own way is counted, and its
//     connections have until the deadline.
//
// Every connection is listed, with what it is doing, until it is closed: "hdctl
// conns". Only a deadline cuts, and what it has cut is counted by kind.
//
// # Ownership of file descriptors
//
// The sockets of a service are shared by its generations. This package never
// unlinks, rebinds or shuts down one that was passed to it; closing a Listener or
// PacketConn gives up accepting in this generation only. Connections belong to who
// accepted them, until they are handed over.
//
// # systemd
//
// The unit is Type=notify, on systemd 252 or later, with NotifyAccess=all, since an
// old generation that takes over again has to be heard; KillMode=control-group;
// Restart=always; RuntimeDirectory=handoff/NAME for the control socket;
// StateDirectory=handoff/NAME for the history of upgrades; and
// ExecStop=hdctl exec-stop, since systemd would send SIGKILL right after SIGTERM to
// a main process that was, when it became that, another one's child. `hdctl unit
// generate` writes it. Only the main generation speaks to systemd: the environment
// of a new one has no NOTIFY_SOCKET.
//
// Without systemd the same program binds by itself and upgrades as well, on
// Linux 5.10 or later.
//
// # Errors
//
// Nothing here ends the process: New and Run return errors, and main decides. An
// upgrade that fails returns a [*StartError] with the exit status and the last
// lines of the new process.
package upgrade
