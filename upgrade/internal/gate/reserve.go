package gate

import (
	"os"

	"golang.org/x/sys/unix"
)

// reserve is two descriptor numbers that are in use for nothing: what opening a
// gate needs (the file that package net is given, and the duplicate that it
// makes).
type reserve [2]int

var noReserve = reserve{-1, -1}

// fill takes the numbers. It does its best: a process that is out of
// descriptors now may have some later.
func (r *reserve) fill(fd int) {
	for i := range r {
		if r[i] >= 0 {
			continue
		}
		if n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			r[i] = n
		}
	}
}

// release gives the numbers back.
func (r *reserve) release() {
	for i := range r {
		if r[i] >= 0 {
			_ = unix.Close(r[i])
			r[i] = -1
		}
	}
}

// borrow calls f with a file over a duplicate of fd, which is closed again when
// f returns. The file is made of a number, not of a connection, so that nothing
// changes the O_NONBLOCK that all processes share.
func borrow(fd int, f func(*os.File) error) error {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(dup), "socket")
	defer file.Close()
	return f(file)
}
