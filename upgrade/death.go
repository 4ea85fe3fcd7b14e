package upgrade

import (
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pidfdInfo is the first version of struct pidfd_info (Linux 6.13); the kernel
// fills in as much as it is given room for.
type pidfdInfo struct {
	mask, cgroup             uint64
	pid, tgid, ppid          uint32
	ruid, rgid, euid, egid   uint32
	suid, sgid, fsuid, fsgid uint32
	exitCode                 int32 // a wait status, with PIDFD_INFO_EXIT (Linux 6.15)
}

// pidfdGetInfo is PIDFD_GET_INFO for that version: _IOWR(0xFF, 11, 64 bytes).
const pidfdGetInfo = 0xc0000000 | uint(unsafe.Sizeof(pidfdInfo{}))<<16 | 0xff0b

// Somebody has to wait(2) for a process before the kernel tells others how it
// ended. That is its parent, or systemd.
const (
	deathPoll = 5 * time.Millisecond
	deathWait = 500 * time.Millisecond
)

// exitedWell is the cause of death of a process that has ended as it should.
const exitedWell = "exit status 0"

// causeOfDeath says how the process of pidfd, which has ended and need not be a
// child of ours, has done so: "exit status 2", "killed by SIGKILL". It is empty
// where the kernel does not tell: before Linux 6.15, or if nobody has waited for
// that process after wait.
func causeOfDeath(pidfd *os.File, wait time.Duration) (cause string) {
	raw, err := pidfd.SyscallConn()
	if err != nil {
		return ""
	}
	for end := time.Now().Add(wait); ; {
		info := pidfdInfo{mask: unix.PIDFD_INFO_EXIT}
		var errno unix.Errno
		if err := raw.Control(func(fd uintptr) {
			_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, uintptr(pidfdGetInfo), uintptr(unsafe.Pointer(&info)))
		}); err != nil {
			return ""
		}
		switch status := unix.WaitStatus(info.exitCode); {
		case errno == 0 && info.mask&unix.PIDFD_INFO_EXIT != 0 && status.Signaled():
			return "killed by " + unix.SignalName(status.Signal())
		case errno == 0 && info.mask&unix.PIDFD_INFO_EXIT != 0:
			return fmt.Sprintf("exit status %d", status.ExitStatus())
		case errno != 0 && errno != unix.ESRCH, time.Now().After(end):
			return ""
		}
		timer := time.NewTimer(deathPoll)
		<-timer.C
	}
}
