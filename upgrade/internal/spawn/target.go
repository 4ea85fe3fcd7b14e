package spawn

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// target is what one attempt executes.
//
// An open file is executed by its number in /proc/self/fd, which works when no
// path leads to it any more. The number means the same in the child, up to and
// in execve(2): being close-on-exec does no harm to a program that the kernel
// maps by itself.
type target struct {
	path string   // for execve
	name string   // for people
	file *os.File // to execute, or nil; borrowed until open
	fd   int      // a duplicate of it, after open, or -1
}

// fdDir is where a process finds its own descriptors as files.
const fdDir = "/proc/self/fd/"

// errScript is the answer to a script as an open file.
var errScript = errors.New("a script can be started only by its path: its interpreter would not find the open file")

// newTarget checks p; usual is the path to use without one.
func newTarget(p Program, usual string) (target, error) {
	g := target{path: usual, name: usual, file: p.File, fd: -1}
	if p.Path != "" {
		g.path, g.name = p.Path, p.Path
	}
	if p.File == nil {
		if !filepath.IsAbs(g.path) {
			return g, errors.New("the path is not absolute")
		}
		return g, nil
	}
	if p.Path == "" {
		g.name = p.File.Name()
	}
	script, err := isScript(p.File)
	if err != nil {
		return g, err
	}
	if script {
		return g, errScript
	}
	return g, nil
}

// isScript reports whether f starts with "#!". A file that cannot be read can
// be a program all the same, and is none.
func isScript(f *os.File) (script bool, err error) {
	err = withFD(f, func(fd int) error {
		var magic [2]byte
		n, err := unix.Pread(fd, magic[:], 0)
		script = err == nil && n == len(magic) && string(magic[:]) == "#!"
		return nil
	})
	return script, err
}

// withFD calls do with the descriptor of f, which stays as it is; File.Fd could
// make it blocking.
func withFD(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var doErr error
	if err := raw.Control(func(fd uintptr) { doErr = do(int(fd)) }); err != nil {
		return err
	}
	return doErr
}

// fdMargin is for descriptors that others open between open and the fork. The
// kernel's table of descriptors grows with the number, by 8 bytes each.
const fdMargin = 1024

// open duplicates the file to a number that still means it when the child
// executes path; passed is how many descriptors the child will have.
//
// Between fork and execve the runtime moves descriptors: they get the numbers
// from 0 on, and on their way each may take one more above the highest of those
// that are passed, as may the pipe that tells of errors (forkAndExecInChild in
// package syscall). What was there before is gone, in the child. So the number is
// above all of these. Those that do not exist yet get the lowest ones that are
// free.
func (g *target) open(passed int) error {
	if g.file == nil {
		return nil
	}
	highest, err := highestFD()
	if err != nil {
		return fmt.Errorf("list open file descriptors: %w", err)
	}
	const still = 16 // to be opened: output's, tableflip's and the runtime's pipes, files of /proc
	lowest := max(highest+still, passed) + passed + 2
	err = withFD(g.file, func(fd int) error {
		g.fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, lowest+fdMargin)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMFILE) { // above RLIMIT_NOFILE
			g.fd, err = dupBelowLimit(fd, lowest)
		}
		return err
	})
	g.file = nil
	if err != nil {
		g.fd = -1
		return fmt.Errorf("duplicate the open file to execute: %w", err)
	}
	g.path = fdDir + strconv.Itoa(g.fd)
	return nil
}

// dupBelowLimit duplicates fd to the highest number that is allowed, if that is
// at least lowest. EINVAL would mean that the caller has done something wrong.
func dupBelowLimit(fd, lowest int) (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return -1, err
	}
	for n := int(limit.Cur) - 1; n >= lowest; n-- {
		if dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, n); err == nil {
			return dup, nil
		}
	}
	return -1, unix.EMFILE
}

// highestFD returns the highest open number.
func highestFD() (int, error) {
	dir, err := os.Open(fdDir)
	if err != nil {
		return -1, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return -1, err
	}
	numbers := make([]int, 0, len(names))
	for _, name := range names {
		n, err := strconv.Atoi(name)
		if err != nil {
			return -1, err
		}
		numbers = append(numbers, n)
	}
	return slices.Max(numbers), nil
}

// close gives up the descriptor.
func (g *target) close() {
	closeAll(g.fd)
	g.fd = -1
}

// swapIn has tableflip execute g where it would take usual: it goes by
// os.Args[0] each time. For usual itself nothing is touched, so that nobody who
// reads os.Args at the moment can be in the way.
func (g *target) swapIn(usual string) {
	if g.path != usual {
		os.Args[0] = g.path
	}
}

// swapOut undoes swapIn, when tableflip has forked or given up. Whether it has
// forked is known from /proc, which means nothing to the memory model of Go: what
// the two goroutines have in common is the lock.
func (g *target) swapOut(usual string) {
	if g.path != usual {
		syscall.ForkLock.RLock()
		os.Args[0] = usual
		syscall.ForkLock.RUnlock()
	}
}
