package statedir

import (
	"fmt"
	"io"
	"math"

	"golang.org/x/sys/unix"
)

// file is the descriptor of a regular file. It is not an [os.File], because a
// write(2) here is one, and no more.
type file int

func (f file) close() { unix.Close(int(f)) }

func (f file) stat() (st unix.Stat_t, err error) {
	err = retryErr(func() error { return unix.Fstat(int(f), &st) })
	return st, err
}

// ReadAt makes a file an [io.ReaderAt].
func (f file) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) {
		m, err := retry(func() (int, error) { return unix.Pread(int(f), b[n:], off+int64(n)) })
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}

// write writes b at the end of a file of size bytes. It is one write(2), unless
// that one is short: then the next one says why, and may even find that there
// is room by now. n is what has been written.
func (f file) write(b []byte, size int64) (n int, err error) {
	// Beyond this limit there is not only EFBIG, but SIGXFSZ, which ends a
	// process of Go: setrlimit(2).
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_FSIZE, &limit) == nil && limit.Cur <= math.MaxInt64 && size+int64(len(b)) > int64(limit.Cur) {
		return 0, fmt.Errorf("the process may not write a file of %d bytes (RLIMIT_FSIZE is %d): %w", size+int64(len(b)), limit.Cur, unix.EFBIG)
	}
	for n < len(b) {
		m, err := retry(func() (int, error) { return unix.Write(int(f), b[n:]) })
		if err != nil {
			return n, err
		}
		if m == 0 {
			return n, io.ErrShortWrite
		}
		n += m
	}
	return n, nil
}

func (f file) truncate(size int64) error {
	return retryErr(func() error { return unix.Ftruncate(int(f), size) })
}

// retry repeats a system call that a signal interrupted. Local file systems do
// not let that happen; FUSE and network file systems do.
func retry[T any](call func() (T, error)) (T, error) {
	for {
		v, err := call()
		if err != unix.EINTR {
			return v, err
		}
	}
}

func retryErr(call func() error) error {
	_, err := retry(func() (struct{}, error) { return struct{}{}, call() })
	return err
}
