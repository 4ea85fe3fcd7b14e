package activation

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// self returns this process as systemd would name it.
func self() process {
	return process{pid: os.Getpid(), pidfdID: ownPidfdID()}
}

// ownPidfdID returns the inode number of this process's pidfd, which, unlike a
// PID, is never used again until the next boot. It returns 0 where the kernel has
// none: before Linux 6.9 all pidfds shared one inode, and on 32-bit machines
// stat(2) does not show the whole number. pidfd_open(2) itself may be forbidden by
// SystemCallFilter=.
func ownPidfdID() uint64 {
	if strconv.IntSize < 64 {
		return 0
	}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)

	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil || int64(fs.Type) != unix.PID_FS_MAGIC {
		return 0
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0
	}
	return st.Ino
}
