package launch

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	maxDatagram = 4096 // NOTIFY_BUFFER_MAX of systemd, which ignores larger ones
	maxFiles    = 253  // SCM_MAX_FD of the kernel
)

// notifySocket is the socket of sd_notify(3). It is abstract: the program may run as
// a user who could not reach a file.
type notifySocket struct {
	address string
	conn    *net.UnixConn
	raw     syscall.RawConn
	hear    func(pid int, text []byte)

	mu sync.Mutex // one datagram after the other
}

func listenNotify() (*notifySocket, error) {
	address := "@handoff-notify-" + newID()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("make a notification socket: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var set error
		err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		err = errors.Join(err, os.NewSyscallError("setsockopt", set))
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("make a notification socket: %w", err)
	}
	return &notifySocket{address: address, conn: conn, raw: raw}, nil
}

func (n *notifySocket) close() { _ = n.conn.Close() }

// read handles what comes, until the socket is closed.
func (n *notifySocket) read() {
	for n.raw.Read(func(fd uintptr) bool { return n.drain(int(fd)) }) == nil {
	}
}

// flush handles what has come.
func (n *notifySocket) flush() {
	_ = n.raw.Control(func(fd uintptr) { n.drain(int(fd)) })
}

// drain handles what is in the socket, and tells whether there was something.
func (n *notifySocket) drain(fd int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	buf := make([]byte, maxDatagram+1)
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*maxFiles))
	for some := false; ; {
		size, oobSize, _, _, err := unix.Recvmsg(fd, buf, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil: // EAGAIN
			return some
		}
		some = true
		pid, files := control(oob[:oobSize])
		n.hear(pid, buf[:size])
		// Only now: a barrier (BARRIER=1) is passed when its descriptor is closed.
		for _, fd := range files {
			_ = unix.Close(fd)
		}
	}
}

// control reads who sent a datagram, 0 for nobody in our PID namespace, and the
// descriptors that came with it.
func control(oob []byte) (pid int, files []int) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, nil
	}
	for i := range messages {
		if cred, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			pid = int(cred.Pid)
		} else if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
			files = append(files, fds...)
		}
	}
	return pid, files
}

// hear acts on one notification.
func (p *Process) hear(pid int, text []byte) {
	switch {
	case len(text) > maxDatagram:
		p.event(Event{Kind: Refused, PID: pid, Text: fmt.Sprintf("a notification of more than %d bytes", maxDatagram)})
		return
	case !p.member(pid):
		p.event(Event{Kind: Refused, PID: pid, Text: "a notification of a process that is not of this service"})
		return
	}
	lines := make(map[string]string)
	for line := range bytes.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), "=")
		lines[name] = value
	}
	if value, ok := lines["MAINPID"]; ok {
		p.hearMain(pid, value)
	}
	if value, ok := lines["STATUS"]; ok && p.newStatus(value) {
		p.event(Event{Kind: Status, PID: pid, Text: value})
	}
	for _, simple := range []struct {
		name, value string
		kind        Kind
	}{
		{"RELOADING", "1", Reloading}, {"READY", "1", Ready}, {"STOPPING", "1", Stopping}, {"WATCHDOG", "trigger", Watchdog},
	} {
		if lines[simple.name] == simple.value {
			p.event(Event{Kind: simple.kind, PID: pid})
		}
	}
}

// hearMain is MAINPID=.
func (p *Process) hearMain(from int, value string) {
	pid, err := strconv.Atoi(value)
	if err != nil || pid <= 1 || !p.member(pid) || unix.Kill(pid, 0) != nil {
		p.event(Event{Kind: Refused, PID: from, Text: fmt.Sprintf("MAINPID=%q: no process of this service", value)})
		return
	}
	p.mu.Lock()
	changed := p.main != pid
	p.main = pid
	p.mu.Unlock()
	if changed {
		p.event(Event{Kind: Main, PID: pid})
	}
}

// newStatus tells whether the text has changed.
func (p *Process) newStatus(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := p.status != text
	p.status = text
	return changed
}

// member tells whether a process belongs to the service: it is in the group, as all
// its children are that do not leave it. One that has ended is, until it is reaped.
func (p *Process) member(pid int) bool {
	if pid <= 0 {
		return false
	}
	group, err := unix.Getpgid(pid)
	return err == nil && group == p.group
}
