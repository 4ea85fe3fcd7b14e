package main

import (
	"os/signal"

	"golang.org/x/sys/unix"
)

// hangup knows the controlling terminal of "hdctl run". SIGHUP is what an operator
// sends, and what the kernel and shells send when the terminal is gone: its window was
// closed, or the connection of ssh has ended.
type hangup struct {
	there   bool
	ignored bool // hdctl was started to survive it, as by nohup(1)
}

// newHangup looks whether there is one. It is called before SIGHUP is caught.
func newHangup() hangup {
	return hangup{there: hasTerminal(), ignored: signal.Ignored(unix.SIGHUP)}
}

// happened tells whether there was a terminal, and there is none any more.
func (h hangup) happened() bool { return h.there && !hasTerminal() }

// hasTerminal tells whether this process has a controlling terminal, tty(4).
func hasTerminal() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	_ = unix.Close(fd)
	return true
}
