// Package sdnotify tells systemd about the state of a service: the protocol of
// sd_notify(3), with what it takes when the main process changes.
//
//	n := sdnotify.New(address) // what NOTIFY_SOCKET said; "" makes a nil Notifier
//	defer n.Close()
//	if err := n.Send(sdnotify.MainPID(pid), sdnotify.Ready); err != nil {
//		return err
//	}
//	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
//	defer cancel()
//	if err := n.Barrier(ctx); err != nil {
//		return err
//	}
//	// systemd has processed it: this process may exit.
//
// A nil [*Notifier] does nothing, and succeeds, so that a program needs no other
// code where it does not run under systemd.
//
// The environment is never read nor changed here. Who may talk to systemd is
// decided elsewhere: a new generation learns the address when it is its turn.
//
// # systemd
//
// A notification is a datagram of lines NAME=VALUE, to a unix socket that is a
// path, or abstract (written with a leading @). systemd processes each datagram
// as a whole, and those of one sender in order. It tells the sender's unit by the
// PID that the kernel adds, so a sender that exits at once may go unheard: hence
// [Notifier.Barrier] (systemd 246; earlier ones close its descriptor unread, so
// that it returns early). Under NotifyAccess=main only the main process is heard.
//
// systemd drops, with no more than a line in its log, any datagram above
// [MaxDatagram] bytes, or with a NUL in it. [Notifier.Send] refuses both.
//
// # Ownership of file descriptors
//
// A Notifier keeps one socket, close-on-exec, from [New] on: a service that has
// run out of descriptors must be able to say that it lives (WATCHDOG=1), or
// systemd kills it. The socket is not connected; the address is looked up for
// each datagram, so that a systemd that was re-executed (systemctl daemon-reexec)
// or a socket that was made anew is found. [Notifier.Close] closes it.
//
// # Errors
//
// They name the address, and wrap the errno: ENOENT or ECONNREFUSED where nobody
// listens, and context.DeadlineExceeded where systemd does not read.
package sdnotify
