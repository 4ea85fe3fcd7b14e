package link

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// newControl makes a buffer for the sender's credentials and MaxFiles
// descriptors. Of more the kernel passes what fits, closes the rest, and says so.
func newControl() []byte {
	return make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*MaxFiles))
}

// packet is a datagram as it came.
type packet struct {
	size  int
	flags int
	fds   []int // owned, close-on-exec
	err   error // an errno, or io.EOF; nothing was received then
}

// receive reads one datagram, or fails with EAGAIN.
func receive(fd int, frame, control []byte) packet {
	for {
		// Close-on-exec with the same call: between this and an fcntl another
		// goroutine could fork.
		size, controlled, flags, _, err := unix.Recvmsg(fd, frame, control, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch err {
		case nil:
		case unix.EINTR:
			continue
		case unix.ECONNRESET:
			// The peer closed its end with unread messages in it. The kernel
			// says it once, and before it gives out those that wait here.
			continue
		default:
			return packet{err: err}
		}
		p := packet{size: size, flags: flags}
		var sender bool
		sender, p.fds, p.err = parseControl(control[:controlled])
		if p.err == nil && size == 0 && !sender {
			p.err = io.EOF
		}
		return p
	}
}

// parseControl returns whether credentials came, which every datagram has, and
// the descriptors.
func parseControl(control []byte) (sender bool, fds []int, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return false, nil, err
	}
	for i := range messages {
		m := &messages[i]
		if m.Header.Level != unix.SOL_SOCKET {
			continue
		}
		switch m.Header.Type {
		case unix.SCM_CREDENTIALS:
			sender = true
		case unix.SCM_RIGHTS:
			got, err := unix.ParseUnixRights(m)
			if err != nil {
				closeFDs(fds)
				return false, nil, err
			}
			fds = append(fds, got...)
		}
	}
	return sender, fds, nil
}

// open decodes the datagram, whose bytes are in frame. It owns the descriptors:
// they are in the files that it returns, or closed.
func (p packet) open(frame []byte) (Message, []*os.File, error) {
	if p.flags&unix.MSG_TRUNC != 0 {
		closeFDs(p.fds)
		return nil, nil, &FrameError{Err: fmt.Errorf("%w: more than %d bytes", ErrTooLarge, MaxFrame)}
	}
	m, declared, err := Decode(frame[:p.size])
	if err != nil {
		closeFDs(p.fds)
		return nil, nil, err
	}
	if p.flags&unix.MSG_CTRUNC != 0 {
		err = fmt.Errorf("%d of %d file descriptors came: more than %d were sent, or this process has too many open (RLIMIT_NOFILE)", len(p.fds), declared, MaxFiles)
	} else if declared != len(p.fds) {
		err = fmt.Errorf("%d file descriptors came, %d were announced", len(p.fds), declared)
	}
	if err != nil {
		closeFDs(p.fds)
		return nil, nil, &FrameError{Kind: frameKind(m), Message: m, Err: err}
	}
	if u, ok := m.(Unknown); ok && u.Unanswered {
		// Nobody here can know what they are for.
		closeFDs(p.fds)
		return m, nil, nil
	}
	var files []*os.File
	for i, fd := range p.fds {
		files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("%s-%d", m.Kind(), i)))
	}
	return m, files, nil
}

// frameKind returns the kind that m's frame had.
func frameKind(m Message) Kind {
	if u, ok := m.(Unknown); ok && u.Unanswered {
		return Kind(u.Name)
	}
	return m.Kind()
}

func closeFDs(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
