// Package link carries messages, with file descriptors, between two generations
// of a service.
//
// A link is a pair of unix sockets of type SOCK_SEQPACKET; each of two processes
// has one end. One datagram is one [Message]. The descriptors that belong to it
// travel with it (SCM_RIGHTS, see unix(7)), so that a message never arrives
// without its descriptors, or they without it.
//
//	ours, theirs, err := link.Pair()
//	if err != nil {
//		return err
//	}
//	// theirs goes to the new process, which calls link.NewFD on its number.
//	conn, err := link.New(ours)
//	if err != nil {
//		return err
//	}
//	defer conn.Close()
//	if err := conn.Send(link.Hello{Min: link.MinVersion, Max: link.MaxVersion, PID: os.Getpid()}); err != nil {
//		return err
//	}
//	m, files, err := conn.Receive()
//	switch m := m.(type) {
//	case link.Hello: // files[0] is a pidfd of the new process
//
// # Frames
//
// A datagram is a JSON object of at most [MaxFrame] bytes:
//
//	{"kind":"hello","fds":1,"body":{"min":1,"max":1,"pid":4242}}
//
// where fds is the number of descriptors that come with it. Fields that the
// receiver does not know are ignored, and so it is with kinds: an older library
// and a newer one understand each other as far as the older one goes. What must
// not be ignored needs a new version of the protocol, see [Negotiate].
//
// # Ownership of file descriptors
//
// [Conn.Send] and its like only borrow files: the kernel duplicates them, and the caller
// closes its own. The caller of [Conn.Receive] owns the files that it returns,
// and closes all of them, also those that it has no use for. Every descriptor
// that is not returned (of a refused frame, or more than announced) is closed
// here. Received descriptors are close-on-exec from the first moment.
//
// # End of file is no sign of death
//
// A duplicate of the peer's end may be open in a third process: a child that was
// forked at the wrong moment, or a parent whose garbage collector has yet to
// close it. Then the death of the peer makes no end of file. Who learns of
// it (by a pidfd) calls [Conn.Finish]: what the peer had sent is still received,
// and after it comes [io.EOF].
//
// Finish waits for nobody, and forbids nothing: a peer that lives can go on
// sending, into the void. Where it matters that what was not received was not
// sent either, [Conn.CloseRead] is the end.
//
// # Errors
//
// What a peer sends cannot break a link: Receive answers a bad frame with a
// [*FrameError] and goes on with the next. Send never blocks; see [ErrFull], and
// [Conn.SendWait] for who has the time.
package link
