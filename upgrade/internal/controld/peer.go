package controld

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os/user"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peer is the process on the other end of a connection, as the kernel knew it
// when it connected: it may have exec'd, or be gone, since.
type Peer struct {
	PID     int  // 0: in a PID namespace that we do not see
	UID     int  // -1: unknown
	GID     int  // primary group; -1: unknown
	Command bool // may command, and not only read
}

// The overflow user and group, which stand for every user and group that does
// not exist in our user namespace (user_namespaces(7)). As a user it is also
// known as nobody.
const overflowID = 65534

// authority knows who may command.
type authority struct {
	service  int // uid of the service's own user
	operator int // gid of the operator group; -1: there is none
}

// allows tells whether a user, who is in the given groups, may command.
func (a authority) allows(uid int, gids []int) bool {
	switch {
	case uid < 0:
		return false
	case uid == 0, uid == a.service:
		return true
	case uid == overflowID || a.operator < 0:
		return false
	}
	return slices.Contains(gids, a.operator)
}

// peerOf asks the kernel who is on the other end of c. An error comes with a
// peer that nothing is known of, and that may not command.
func (a authority) peerOf(c net.Conn) (Peer, error) {
	unknown := Peer{UID: -1, GID: -1}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return unknown, fmt.Errorf("credentials of the client: %w", errors.ErrUnsupported)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return unknown, fmt.Errorf("credentials of the client: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	var gids []int
	// Not by way of File or Fd: they would make the descriptor blocking.
	err = raw.Control(func(fd uintptr) {
		if cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); credErr == nil {
			gids = peerGroups(int(fd))
		}
	})
	if err = errors.Join(err, credErr); err != nil {
		return unknown, fmt.Errorf("credentials of the client: %w", err)
	}
	p := Peer{PID: int(cred.Pid), UID: idOf(cred.Uid), GID: idOf(cred.Gid)}
	p.Command = a.allows(p.UID, append(gids, p.GID))
	return p, nil
}

// idOf makes a user or group id of what the kernel says; all bits set means
// none, for a socket that has no peer.
func idOf(id uint32) int {
	if id == math.MaxUint32 {
		return -1
	}
	return int(id)
}

// peerGroups returns the supplementary groups of the process on the other end
// of fd. SO_PEERCRED knows the primary one only. Before Linux 4.13, and for a
// socket without peer credentials, it returns none.
func peerGroups(fd int) []int {
	// 65536 groups are the most that a process can have (NGROUPS_MAX), but 32
	// do for nearly all.
	for buf := make([]uint32, 32); len(buf) <= 1<<16; {
		size := uint32(len(buf) * 4)
		// x/sys/unix has no wrapper that returns binary data of any length.
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && int(size/4) > len(buf):
			buf = make([]uint32, size/4) // the kernel has said how many there are
			continue
		case errno != 0:
			return nil
		}
		gids := make([]int, size/4)
		for i := range gids {
			gids[i] = idOf(buf[i])
		}
		return gids
	}
	return nil
}

// lookupGroup returns the number of the operator group, given by name or
// number; -1 if there is none, that is if group is "".
func lookupGroup(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	number := group
	if !isNumber(group) {
		g, err := user.LookupGroup(group)
		if err != nil {
			if _, ok := errors.AsType[user.UnknownGroupError](err); ok {
				return -1, fmt.Errorf("operator group %q does not exist", group)
			}
			return -1, fmt.Errorf("look up the operator group %q: %w", group, err)
		}
		number = g.Gid
	}
	gid, err := strconv.ParseUint(number, 10, 32)
	switch {
	case err != nil || gid == math.MaxUint32:
		return -1, fmt.Errorf("operator group %q is no valid group", group)
	case gid == overflowID:
		return -1, fmt.Errorf("operator group %q stands for all groups that the kernel cannot name, and cannot be used", group)
	}
	return int(gid), nil
}

// isNumber tells a group's number from its name as systemd does: a name of
// digits only is a number.
func isNumber(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != ""
}
