// Package gate puts a gate in front of a socket that several processes share.
//
// The service accepts from a [Listener] (reads from a [PacketConn]) all its
// life. While the gate is open that takes connections from the socket; while it
// is closed it blocks, and another process is at the door. It ends with
// [net.ErrClosed] only when the gate is shut, that is, when this generation is
// over. So parking and falling back are the opening and closing of a gate, and
// no server is ever restarted.
//
// A connection that comes from elsewhere than the socket, such as one that
// another process hands over, enters by [Listener.Push] and leaves by the same
// Accept, so that a server sees one listener.
//
// # Ownership of file descriptors
//
// A gate borrows the descriptor that it is made of: the caller keeps it, as a
// bare number, until the gate is shut. A gate never unlinks, shuts down or
// reconfigures the socket. While it is closed the process has nothing of the
// socket in Go's netpoller: a [net.Listener] that is merely not accepted from
// would wake every old generation for every new connection.
//
// A closed gate keeps two descriptor numbers in reserve, so that it can be
// opened in a process that has run out of them.
package gate
