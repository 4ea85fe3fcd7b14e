package control

// DecodeConn is the fast way to read a line of a list of connections. What it is
// to fill is not empty before, as in use.
func DecodeConn(line []byte) (Conn, bool) {
	d := connDecoder{listener: "before"}
	conn := Conn{Generation: 1, PID: 2, Listener: "a", Peer: "b", State: "c", Doing: "d", Age: 3, Quiet: 4, In: 5, Out: 6}
	ok := d.decode(line, &conn)
	return conn, ok
}
