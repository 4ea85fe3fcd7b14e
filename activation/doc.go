// Package activation gives a service its sockets by name: those that systemd
// passed to it (socket activation, sd_listen_fds(3)), or, where systemd did not
// start it, sockets that it binds by itself. The same call does both, so the
// same binary runs as a service and on a laptop:
//
//	func main() {
//		ln, err := activation.Listen("http", "tcp", "127.0.0.1:8080")
//		if err != nil {
//			log.Fatal(err)
//		}
//		admin, err := activation.Listen("admin", "unix", "/tmp/admin.sock")
//		if err != nil {
//			log.Fatal(err)
//		}
//		go http.Serve(admin, adminHandler)
//		log.Fatal(http.Serve(ln, handler))
//	}
//
// A program that has more than one socket under a name, that reads from a FIFO
// or netlink socket, or that wants to know what it was passed and does not use,
// calls [Take] and works with the [Sockets].
//
// # Ownership of file descriptors
//
// systemd owns the sockets: it holds a descriptor of each of them for as long as
// the .socket unit is active. This process gets duplicates. Closing one gives up
// accepting here, and nothing else: no socket that was passed is ever unlinked,
// rebound or shut down, and clients that connect meanwhile wait in the backlog.
//
// A descriptor in [Sockets] belongs to the set until it is claimed. A claim
// ([Sockets.Listen], [Sockets.ListenPacket], [Sockets.Files],
// [Sockets.ClaimFDs]) gives it to the caller, who closes it. What nobody claims
// stays open, listed by [Sockets.Unclaimed], until [Sockets.Close]; the garbage
// collector closes nothing. Every descriptor is close-on-exec from [Take] on.
//
// The flag O_NONBLOCK belongs to the socket, not to the descriptor: all processes
// share it. A claim sets it, whatever NonBlocking= in the unit says. Do not call
// [os.File.Fd] on what the File method of a connection or listener returned: it
// clears the flag again, for all of them.
//
// # systemd
//
// One socket unit has one name, FileDescriptorName=, by default the name of the
// unit ("app.socket"); all its Listen lines share it. Where a unit has both
// ListenStream=53 and ListenDatagram=53, Listen gets the one and ListenPacket
// the other.
//
//	# dns.socket
//	[Socket]
//	FileDescriptorName=dns
//	ListenStream=53
//	ListenDatagram=53
//	Service=app.service
//
//	# app.service
//	[Unit]
//	Requires=dns.socket
//	After=dns.socket
//
// A process is taken as started by systemd if SYSTEMD_EXEC_PID (systemd 248 and
// later) or LISTEN_PID is its own PID. Then nothing is ever bound: systemd starts
// a service without its sockets when the unit lacks Requires=, and a service that
// then binds them itself works until the day its sockets are started. So a name
// that was not passed is an error. A wrapper script must exec the program, since
// LISTEN_PID names the process that systemd started.
//
// Variables for another process (a descendant inherits them) are removed, and
// descriptors 3 and up are left alone.
//
// # Errors
//
// A name that was not passed is a [*NameError], which lists what was; a name that
// stands for something else than was asked for is a [*KindError]. Both say what to
// change in the unit. [ErrTaken] and [ErrClaimed] tell that somebody else in the
// process was first. A failed claim claims nothing.
package activation
