package units

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"unicode"
)

// Kind is a kind of socket: which Listen...= setting an address belongs to.
type Kind int

// The kinds of sockets.
const (
	Stream     Kind = iota // ListenStream=: TCP, or a unix stream socket
	Datagram               // ListenDatagram=: UDP, or a unix datagram socket
	Sequential             // ListenSequentialPacket=: a unix socket
)

// String returns the name of the kind's setting, without "Listen" and "=".
func (k Kind) String() string {
	switch k {
	case Stream:
		return "Stream"
	case Datagram:
		return "Datagram"
	case Sequential:
		return "SequentialPacket"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// Listen is an address to listen on, in the words of systemd.socket(5):
//
//	8080            a port, on all addresses of the machine, IPv4 and IPv6
//	127.0.0.1:8080  an IPv4 address and a port
//	[::1]:8080      an IPv6 address and a port
//	/run/app.sock   a unix socket in the file system
//	@app            a unix socket in the abstract namespace
type Listen struct {
	Kind    Kind
	Address string
}

// ParseListen reads an address with an optional kind in front:
//
//	[tcp:|udp:|unix:|unixgram:|unixpacket:]ADDRESS
//
// Without a kind it is a stream socket. The kinds are Go's names of networks;
// tcp and udp want an IP address or a port, the others a path or @NAME.
func ParseListen(s string) (Listen, error) {
	kind, address, wantUnix, known := Stream, s, false, false
	if network, rest, ok := strings.Cut(s, ":"); ok {
		known = true
		switch network {
		case "tcp":
		case "udp":
			kind = Datagram
		case "unix":
			wantUnix = true
		case "unixgram":
			kind, wantUnix = Datagram, true
		case "unixpacket":
			kind, wantUnix = Sequential, true
		default:
			known = false
		}
		if known {
			address = rest
		}
	}
	l := Listen{kind, address}
	if err := l.check(); err != nil {
		return Listen{}, err
	}
	if known && wantUnix != l.unix() {
		return Listen{}, fmt.Errorf("address %q: not of the kind that is written in front of it", s)
	}
	return l, nil
}

// ParseSocket reads a socket as command lines have it, a name, an address as of
// [ParseListen], and options:
//
//	NAME=ADDRESS[,mode=MODE][,user=USER][,group=GROUP]
//
// MODE is octal.
func ParseSocket(s string) (Socket, error) {
	name, rest, ok := strings.Cut(s, "=")
	if !ok {
		return Socket{}, fmt.Errorf("socket %q: want NAME=ADDR", s)
	}
	address, options, more := strings.Cut(rest, ",")
	listen, err := ParseListen(address)
	if err != nil {
		return Socket{}, fmt.Errorf("socket %q: %w", s, err)
	}
	sock := Socket{Name: name, Listen: []Listen{listen}}
	for more {
		var o string
		o, options, more = strings.Cut(options, ",")
		key, value, _ := strings.Cut(o, "=")
		switch {
		case value == "":
			return Socket{}, fmt.Errorf("socket %q: option %q: want NAME=VALUE", s, o)
		case key == "mode":
			if sock.Mode, err = parseMode(value); err != nil {
				return Socket{}, fmt.Errorf("socket %q: %w", s, err)
			}
		case key == "user":
			sock.User = value
		case key == "group":
			sock.Group = value
		default:
			return Socket{}, fmt.Errorf("socket %q: option %q: not mode, user or group", s, key)
		}
	}
	return sock, nil
}

func parseMode(s string) (uint32, error) {
	mode, err := strconv.ParseUint(s, 8, 32)
	if err != nil || mode == 0 {
		return 0, fmt.Errorf("mode %q: not an octal number, as 0660", s)
	}
	return uint32(mode), nil
}

// unix tells whether the address is one of a unix socket.
func (l Listen) unix() bool {
	return strings.HasPrefix(l.Address, "/") || strings.HasPrefix(l.Address, "@")
}

// file tells whether the address is one of a socket in the file system.
func (l Listen) file() bool { return strings.HasPrefix(l.Address, "/") }

// maxSunPath is the room in sockaddr_un, see unix(7).
const maxSunPath = 107

func (l Listen) check() error {
	if l.Kind < Stream || l.Kind > Sequential {
		return fmt.Errorf("address %q: unknown %v", l.Address, l.Kind)
	}
	if err := checkText(l.Address); err != nil {
		return fmt.Errorf("address %q: %w", l.Address, err)
	}
	switch {
	case l.Address == "":
		return errors.New("an address is empty")
	case l.unix():
		return l.checkUnix()
	case l.Kind == Sequential:
		return fmt.Errorf("address %q: a sequential packet socket is a unix socket: /PATH or @NAME", l.Address)
	}
	return l.checkIP()
}

func (l Listen) checkUnix() error {
	switch {
	case len(l.Address) > maxSunPath:
		return fmt.Errorf("address %q: longer than %d bytes", l.Address, maxSunPath)
	case l.file() && path.Clean(l.Address) != l.Address, l.Address == "/":
		return fmt.Errorf("address %q: not a clean path of a file", l.Address)
	case strings.ContainsRune(l.Address, '\\'), strings.ContainsFunc(l.Address, unicode.IsSpace):
		// A backslash at the end of a line would join the next one to it; a
		// space is allowed, but no other tool would get the path right.
		return fmt.Errorf("address %q: has a space or a backslash", l.Address)
	case l.Address == "@":
		return fmt.Errorf("address %q: has no name", l.Address)
	}
	return nil
}

func (l Listen) checkIP() error {
	if strings.HasPrefix(l.Address, ":") {
		return fmt.Errorf("address %q: for all addresses of the machine write the port alone: %s", l.Address, l.Address[1:])
	}
	port := l.Address
	if i := strings.LastIndexByte(l.Address, ':'); i >= 0 {
		// systemd resolves no names: a socket unit must work before there is a network.
		if _, err := netip.ParseAddrPort(l.Address); err != nil {
			return fmt.Errorf("address %q: want PORT, IP:PORT, /PATH or @NAME", l.Address)
		}
		port = l.Address[i+1:]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("address %q: want PORT, IP:PORT, /PATH or @NAME", l.Address)
	}
	if n == 0 {
		return fmt.Errorf("address %q: port 0 is none", l.Address)
	}
	return nil
}
