package doctor

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// openSockets returns the sockets in which a process waits for clients: listening
// ones, and bound ones of datagrams that are connected to nobody; each once.
func (s System) openSockets(pid int) ([]bound, error) {
	inodes, err := s.socketsOf(pid)
	if err != nil {
		return nil, err
	}
	var open []bound
	for _, table := range []struct {
		file  string
		parse func(fields []string) (b bound, inode string, ok bool)
	}{
		{"net/tcp", parseInet("tcp", "0A")},
		{"net/tcp6", parseInet("tcp", "0A")},
		{"net/udp", parseInet("udp", "07")},
		{"net/udp6", parseInet("udp", "07")},
		{"net/unix", parseUnix},
	} {
		text, err := s.read(proc(pid, table.file))
		if errors.Is(err, fs.ErrNotExist) { // no IPv6
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(text) {
			if b, inode, ok := table.parse(strings.Fields(line)); ok && inodes[inode] && !slices.Contains(open, b) {
				open = append(open, b)
			}
		}
	}
	return open, nil
}

// socketsOf returns the inodes of the sockets that a process has open.
func (s System) socketsOf(pid int) (map[string]bool, error) {
	dir := proc(pid, "fd")
	entries, err := os.ReadDir(s.path(dir))
	if err != nil {
		return nil, s.shorten(err)
	}
	inodes := make(map[string]bool)
	for _, e := range entries {
		link, err := os.Readlink(s.path(dir + "/" + e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		if rest, ok := strings.CutPrefix(link, "socket:["); ok {
			inodes[strings.TrimSuffix(rest, "]")] = true
		}
	}
	return inodes, nil
}

// parseInet returns a parser for the lines of proc_pid_net(5), net/tcp and the like,
// that takes those in a state, and with no peer.
func parseInet(network, state string) func([]string) (bound, string, bool) {
	return func(f []string) (bound, string, bool) {
		if len(f) < 10 || f[3] != state || !strings.HasSuffix(f[2], ":0000") {
			return bound{}, "", false
		}
		a, err := parseHex(f[1])
		if err != nil {
			return bound{}, "", false
		}
		return inet(network, a), f[9], true
	}
}

// parseHex reads an address as the kernel prints it: words of 32 bits, in the byte
// order of the machine.
func parseHex(text string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if len(raw)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("address of %d bytes", len(raw))
	}
	for word := range slices.Chunk(raw, 4) {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	a, ok := netip.AddrFromSlice(raw)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, fmt.Errorf("no address: %q", text)
	}
	return netip.AddrPortFrom(a, uint16(n)), nil
}

// autobound is a name that the kernel gives to a socket that sends, as to systemd or
// the journal: unix(7), "Autobind feature".
var autobound = regexp.MustCompile(`^@[0-9a-f]{5}$`)

// parseUnix reads a line of net/unix: Num RefCount Protocol Flags Type St Inode Path.
// Only sockets that were bound have a path.
func parseUnix(f []string) (bound, string, bool) {
	const listening, datagram = "00010000", "0002" // __SO_ACCEPTCON, SOCK_DGRAM
	if len(f) < 8 || f[3] != listening && (f[4] != datagram || autobound.MatchString(f[7])) {
		return bound{}, "", false
	}
	return bound{network: "unix", address: strings.Join(f[7:], " ")}, f[6], true
}
