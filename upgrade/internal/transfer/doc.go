// Package transfer moves open connections from one process to another, so that
// at every moment, and whatever becomes of either process, exactly one of them
// serves each connection.
//
// The two speak over a link of their own. The draining generation has a
// [Sender], and its connections are moved by their own goroutines:
//
//	if !places.TryAcquire() {
//		return // go on serving; later, perhaps
//	}
//	defer places.Release()
//	err := sender.Give(tcp, link.Offer{Listener: "http"})
//	if err == nil {
//		tcp.Close() // it lives on in the other process
//	}
//	// Every error: it is ours as before.
//
// The main generation has a [Receiver]:
//
//	receiver := transfer.Receive(conn, 4, func(o link.Offer, files []*os.File) (transfer.Adoption, error) {
//		c, err := net.FileConn(files[0])
//		if err != nil {
//			return nil, err
//		}
//		return &adopted{c}, nil // Commit puts c into the queue of Accept, Abort closes it
//	})
//
// # Two phases
//
// An offer carries the connection's descriptor, so for a moment both processes
// have it. What decides is one system call: the receiver's sendmsg of the answer.
//
//   - Before it the receiver prepares everything that can fail, and reads not one
//     byte of the connection. What the client sends stays in the kernel, for
//     whoever will own it.
//   - If it succeeds the connection is the receiver's: the answer is in the
//     sender's socket, and nothing can take it out again but the sender, who
//     always looks before it concludes anything.
//   - If it fails the connection is the sender's.
//
// The sender can end this at any moment ([Sender.Withdraw]): it shuts its socket
// down for reading, so that from then on every answer fails in the hands of the
// receiver; it takes the answers that had come before that; and all that is
// without an answer now is its own. Kernel locks make the two halves fit: unix(7)
// sockets check the shutdown and queue the message under one lock. So no timeout
// and no guess is needed, and the receiver may be stopped, stalled or dead: what a
// dead one had answered was its own, and died with it.
//
// # Copies on the way
//
// A connection that was offered in vain may still have a descriptor in a message
// that the receiver, being stalled, has not taken from its socket. While
// that exists close(2) alone sends the client no FIN. After [ErrWithdrawn] an
// owner ends the connection with shutdown(2) and then close(2). It must not do so
// after a Give that returned nil: shutdown(2) ends the connection for all. After a
// [*Refused] the receiver has closed its descriptors before it answered.
//
// # Ownership of file descriptors
//
// A Sender and a Receiver own their link. [Sender.Give] borrows the connection;
// an adopt function borrows the files of the offer. All that is dropped here is
// dropped with close(2), which the client does not notice as long as the other
// process has the connection.
package transfer
