package watch

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/internal/pulse"
)

// sampler looks at a target. It is used by one goroutine.
type sampler struct {
	proc     *process
	throttle *throttle
	sockets  []watched
	polled   []unix.PollFd // of those with a descriptor
	readings []socketReading
}

// watched is a socket that there is something to be said of.
type watched struct {
	Socket
	slot *pulse.Slot
	poll int // in polled, or negative
}

func newSampler(t Target) *sampler {
	s := &sampler{proc: openProcess(t.PID), throttle: newThrottle(t.PID)}
	for _, socket := range t.Sockets {
		slot := t.Page.Slot(socket.Slot)
		if slot == nil {
			continue
		}
		w := watched{Socket: socket, slot: slot, poll: -1}
		if socket.FD >= 0 {
			w.poll = len(s.polled)
			s.polled = append(s.polled, unix.PollFd{Fd: int32(socket.FD), Events: unix.POLLIN})
		}
		s.sockets = append(s.sockets, w)
	}
	s.readings = make([]socketReading, len(s.sockets))
	return s
}

func (s *sampler) close() {
	s.proc.close()
	s.throttle.close()
}

// read looks once. The sockets of the reading are valid until the next call.
//
// What is expensive, and only needed to judge somebody who does not move, is not
// read as long as all do.
func (s *sampler) read(l Limits) reading {
	r := reading{sockets: s.readings}
	suspect := s.readSockets(l)
	r.process, r.detail = s.proc.read()
	suspect = suspect || r.process == stopped
	if r.process == dying || !suspect {
		s.throttle.forget()
		return r
	}
	if s.proc.traced() {
		r.process = traced
	}
	r.wanting = s.proc.wanting()
	r.throttled = s.throttle.since()
	return r
}

// readSockets reports whether there is one on which somebody waits in vain.
func (s *sampler) readSockets(l Limits) (suspect bool) {
	if l.Stalled <= 0 {
		return false
	}
	if !l.Queue && len(s.polled) > 0 {
		s.poll()
	}
	for i := range s.sockets {
		w, before := &s.sockets[i], s.readings[i]
		now := socketReading{
			accepts: w.slot.Accepts(),
			pending: w.slot.Waiting() > 0,
			busy:    w.slot.Busy(),
		}
		if !l.Queue && w.poll >= 0 {
			// A listener that was shut down is readable, too, and hung up.
			got := s.polled[w.poll].Revents
			now.pending = now.pending || got&unix.POLLIN != 0 && got&(unix.POLLHUP|unix.POLLERR) == 0
		}
		suspect = suspect || now.pending && !now.busy && now.accepts == before.accepts
		s.readings[i] = now
	}
	return suspect
}

// poll asks for the state of all sockets, without waiting.
func (s *sampler) poll() {
	for {
		_, err := unix.Poll(s.polled, 0)
		switch {
		case err == nil:
			return
		case errors.Is(err, unix.EINTR):
			continue
		}
		for i := range s.polled {
			s.polled[i].Revents = 0 // nothing is known
		}
		return
	}
}

// complete adds to a finding about a socket which one it is, and what there is to
// be seen of it.
func (s *sampler) complete(f *found) {
	if f.socket < 0 {
		return
	}
	w := &s.sockets[f.socket]
	f.Socket = w.Name
	if f.Kind != Stalled {
		return
	}
	var parts []string
	if n := w.slot.Waiting(); n > 0 {
		parts = append(parts, fmt.Sprintf("%d in the queue", n))
	}
	if n := backlog(w.FD); n > 0 {
		parts = append(parts, fmt.Sprintf("%d in the backlog", n))
	}
	parts = append(parts, fmt.Sprintf("%d accepted before", w.slot.Accepts()))
	if state := s.proc.state(); state != "" {
		parts = append(parts, "the process "+state)
	}
	f.Detail = strings.Join(parts, ", ")
}

// backlog is how many connections wait on a listening TCP socket; 0 for others.
func backlog(fd int) int {
	if fd < 0 {
		return 0
	}
	// Of a listener, this field is the length of its queue, see tcp_get_info.
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.State != tcpListen {
		return 0
	}
	return int(info.Unacked)
}

// tcpListen is TCP_LISTEN of the kernel's tcp_states.h.
const tcpListen = 10
