package sdnotify

import (
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Lines for [Notifier.Send] without a value of their own.
const (
	Ready    = "READY=1"    // started, or done with reloading
	Stopping = "STOPPING=1" // the service stops; only ever sent by the main process, for a real stop
	Watchdog = "WATCHDOG=1" // a ping, see WatchdogSec= in systemd.service(5)
)

// maxStatus is how much of a status text is sent: it must not take the room of
// the lines that matter (see MaxDatagram), and systemctl status shows one line.
const maxStatus = 1024

// MainPID makes pid the main process of the service. Together with [Ready] in
// one datagram there is no moment at which systemd knows one and not the other.
//
// Under NotifyAccess=main it is the last word of the old main process: systemd
// hears only the new one from here on.
func MainPID(pid int) string { return "MAINPID=" + strconv.Itoa(pid) }

// Reloading says that a reload begins: two lines, RELOADING=1 and
// MONOTONIC_USEC=, the time of this call by CLOCK_MONOTONIC in microseconds. With
// Type=notify-reload (systemd 253) both must be in one datagram, and the time
// later than the signal that asked for the reload, so call it after that.
//
// [Ready] must follow on every path, or the unit stays in the state reloading for
// ever (systemd 252 and 257).
func Reloading() string {
	var now unix.Timespec
	// Fails only for a clock that does not exist.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return "RELOADING=1\nMONOTONIC_USEC=" + strconv.FormatInt(now.Nano()/1000, 10)
}

// Status is the text that systemctl status shows. It is made one line of valid
// UTF-8 (anything else could be taken for another assignment, or be dropped), and
// cut off after 1024 bytes.
func Status(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r // an invalid byte comes as U+FFFD
	}, text)
	if len(text) > maxStatus {
		const ellipsis = "…"
		end := maxStatus - len(ellipsis)
		for !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end] + ellipsis
	}
	return "STATUS=" + text
}

// Errno is the reason of a failure, shown by systemctl status.
func Errno(errno syscall.Errno) string { return "ERRNO=" + strconv.Itoa(int(errno)) }

// ExtendTimeout asks for another d, from now, for the start, reload or stop that is
// going on. It is to be repeated within that time for as long as it takes. systemd
// counts in microseconds; less than one is one.
func ExtendTimeout(d time.Duration) string {
	return "EXTEND_TIMEOUT_USEC=" + strconv.FormatInt(max(d.Microseconds(), 1), 10)
}
