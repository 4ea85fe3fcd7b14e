package spawn

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// dup duplicates fd, close-on-exec, to a number above those of stdio. Unlike
// os.File.Fd it leaves O_NONBLOCK alone.
func dup(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, fmt.Errorf("duplicate file descriptor %d: %w", fd, err)
	}
	return n, nil
}

// replace makes number to a duplicate of fd, in one step for all threads:
// dup3(2). What to was is closed.
func replace(fd, to, flags int) error {
	for {
		err := unix.Dup3(fd, to, flags)
		switch err {
		case nil:
			return nil
		case unix.EINTR, unix.EBUSY: // EBUSY: another thread is just opening number to
			continue
		}
		return fmt.Errorf("put file descriptor %d in the place of %d: %w", fd, to, err)
	}
}

// openNull opens /dev/null for reading and writing.
func openNull() (int, error) {
	fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: os.DevNull, Err: err}
	}
	return fd, nil
}

// closeAll closes the numbers in fds that are not negative.
func closeAll(fds ...int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// isFIFO reports whether fd is an end of a pipe, the writing one if asked for.
func isFIFO(fd int, writing bool) bool {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return false
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return false
	}
	if writing {
		return flags&unix.O_ACCMODE == unix.O_WRONLY
	}
	return flags&unix.O_ACCMODE == unix.O_RDONLY
}

// outOfFDs reports whether err is the lack of file descriptors.
func outOfFDs(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}

// reserve is a few file descriptors held back for what cannot be put off once
// a process has been started, for which this process may just then have none.
type reserve struct{ fds []int }

// newReserve takes n descriptors.
func newReserve(n int) (*reserve, error) {
	r := new(reserve)
	for range n {
		fd, err := openNull()
		if err != nil {
			r.release()
			return nil, err
		}
		r.fds = append(r.fds, fd)
	}
	return r, nil
}

// release gives the descriptors back, and reports whether there were any.
func (r *reserve) release() bool {
	had := len(r.fds) > 0
	closeAll(r.fds...)
	r.fds = nil
	return had
}
