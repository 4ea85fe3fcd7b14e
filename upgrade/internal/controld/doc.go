// Package controld is the server half of the control API: HTTP and JSON on the
// unix socket of a service, as package control describes it. It knows the
// protocol, who may command, and how to survive clients of any kind; what is
// asked for is done by a [Backend].
//
//	ln, warning, err := controld.Listen("/run/handoff/app/control.sock", "operators")
//	…
//	srv := controld.New(controld.Config{
//		Backend:       driver,
//		ServiceUID:    os.Getuid(),
//		OperatorGroup: "operators",
//		Logger:        logger,
//	})
//	go srv.Serve(ln)  // as long as this generation is main
//	…
//	ln.Close()        // main moves: open requests go on
//	…
//	srv.Close()       // the generation is over
//
// # Who may command
//
// Who can connect may read the status, the version, the events and the history:
// the mode of the socket, 0660, decides that. To command, and to see who is
// connected, a client has to be root, the service's own user, or a member of the
// operator group, primary or supplementary. The kernel says who it is
// (SO_PEERCRED and SO_PEERGROUPS, unix(7)), as of the client's connect. The user
// nobody (65534) may command only if it is the service's own: every user that
// has no number in our user namespace looks like it. The same goes for a group
// 65534, which never is the operator group.
//
// # One request a connection
//
// Every answer says "Connection: close". A client that kept its connection
// would go on talking to a generation that was main once; so it comes back to
// the socket each time, and to whoever listens then. For the same reason nothing
// here uses http.Server.Shutdown or SetKeepAlivesEnabled: closing the listener
// is enough, and what is open, such as the answer to the very upgrade that
// moves main, goes on to its end.
//
// # Limits
//
// A client can waste its own time only: see [Limits]. A connection without a
// request does nothing at all, and is closed after a while.
//
// # File descriptors
//
// [Listen] makes the socket and gives it to the caller; to hand it to the next
// generation is the caller's business. [Server.Serve] owns the listener it is
// given, and the connections it accepts.
//
// # Errors
//
// Everything that a client gets instead of what it asked for is a control.Error
// in JSON, also for what net/http answers by itself, such as a request that is
// none. The HTTP status follows from the code of the error:
//
//	400  bad_request
//	403  permission_denied, binary_not_allowed
//	404  not_found, no_generation
//	405  method_not_allowed
//	409  in_progress, too_many_draining, held, paused, not_staged, no_previous
//	412  not_main, not_serving, pid_1, incompatible, start_failed, check_failed,
//	     reconfigure_failed
//	413  too_large
//	501  unsupported
//	503  stopping, too_many_connections
//	504  timed_out
//	500  all others
//
// and net/http adds 417, 431, 501 and 505, with bad_request or too_large.
//
// An upgrade, a promotion or a rollback is answered that way only if it was refused
// before its first event. With anything else the status is 200, and the last line
// has the result. A list of connections and a history are answered that way until
// their first line; after that an error is the last line.
package controld
