package activation

import "net"

// Kind says how a descriptor can be used.
type Kind int

// The kinds of descriptors. They are told by SO_TYPE and SO_ACCEPTCONN, not by
// trial: package net makes a listener of a unix datagram socket without an error,
// and only its Accept fails.
//
// Stream, Seqpacket and Packet are sockets of the families that package net
// serves, inet, inet6 and unix; those of other families are Other.
//
// The numbers stay what they are: generations of a service, built at different
// times, tell them to each other.
const (
	Other      Kind = iota // a FIFO, netlink or vsock socket, device, file, ...
	Stream                 // a listening stream socket: TCP, unix
	Seqpacket              // a listening seqpacket socket: unixpacket
	Packet                 // a datagram socket: UDP, unixgram
	Connection             // a stream or seqpacket socket that does not listen: a connection, from Accept=yes or the fd store
)

// String returns a word or two for people.
func (k Kind) String() string {
	switch k {
	case Stream:
		return "stream listener"
	case Seqpacket:
		return "seqpacket listener"
	case Packet:
		return "datagram socket"
	case Connection:
		return "connection"
	default:
		return "other"
	}
}

// want is what a claim can use.
type want int

const (
	wantAny want = iota
	wantListener
	wantPacket
)

func (w want) accepts(k Kind) bool {
	switch w {
	case wantListener:
		return k == Stream || k == Seqpacket
	case wantPacket:
		return k == Packet
	default:
		return true
	}
}

func (w want) String() string {
	switch w {
	case wantListener:
		return "a TCP or unix listener (ListenStream= or ListenSequentialPacket=, with Accept=no)"
	case wantPacket:
		return "a UDP or unix datagram socket (ListenDatagram=)"
	default:
		return "anything"
	}
}

// wantOf returns what a network of package net stands for, wantAny for none.
func wantOf(network string) (want, error) {
	switch network {
	case "":
		return wantAny, nil
	case "tcp", "tcp4", "tcp6", "unix", "unixpacket":
		return wantListener, nil
	case "udp", "udp4", "udp6", "unixgram":
		return wantPacket, nil
	default:
		return wantAny, net.UnknownNetworkError(network)
	}
}
