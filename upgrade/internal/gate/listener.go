package gate

import "net"

// Listener is a gate in front of a listening socket. It is a [net.Listener],
// closed at first. It is safe for concurrent use.
type Listener struct {
	door[net.Listener]

	admit func(net.Conn) net.Conn
}

// NewListener makes a closed gate for fd, a listening socket, which is borrowed
// until Close. addr is what Addr answers. Accept returns what admit, if it is not
// nil, makes of a new connection.
func NewListener(fd int, addr net.Addr, admit func(net.Conn) net.Conn) *Listener {
	g := &Listener{admit: admit}
	g.init(fd, addr, net.FileListener)
	return g
}

// Addr returns the address of the socket.
func (g *Listener) Addr() net.Addr { return g.addr }

// Accept returns the next connection. It blocks while the gate is closed.
func (g *Listener) Accept() (net.Conn, error) {
	for {
		o, changed, err := g.enter("accept")
		switch {
		case err != nil:
			return nil, err
		case o == nil:
			<-changed
			continue
		}
		c, err := o.via.Accept()
		if err == nil && g.admit != nil {
			c = g.admit(c)
		}
		o.entered.Done()
		if err == nil || g.isOpen(o) {
			return c, err
		}
	}
}
