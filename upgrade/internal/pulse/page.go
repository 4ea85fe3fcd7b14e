package pulse

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// seals are what makes a mapping safe: without them the other process could cut
// off the memory, and an access be SIGBUS. F_SEAL_SEAL keeps it from adding
// F_SEAL_WRITE, with which nobody could map the page any more.
const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// Page is a page of counters that is shared with another process.
//
// All methods are safe for concurrent use, by both processes. A nil *Page is
// valid: it counts nothing and reads as zero, as does one that is closed.
type Page struct {
	file    *os.File // of New
	mapping atomic.Pointer[mapping]
	slots   [Slots]Slot
}

// mapping is the page in the memory of this process. It is unmapped by the
// garbage collector, and by nothing else: so whoever has loaded the pointer may
// use the memory until its last mention (a KeepAlive), however late that is,
// and Close need not wait for anybody.
type mapping struct{ *layout }

// New makes a page with all counters at zero.
//
// The caller must call Close. The page needs Linux 3.17 (memfd_create(2)).
func New() (*Page, error) {
	fd, err := memfd()
	if err != nil {
		return nil, fmt.Errorf("make a pulse page: %w", err)
	}
	file := os.NewFile(uintptr(fd), "pulse")
	p, err := Open(file)
	if err != nil {
		file.Close()
		return nil, err
	}
	p.file = file
	return p, nil
}

// memfd returns a memfd that holds an empty page, sealed.
func memfd() (int, error) {
	const name = "handoff-pulse"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // MFD_NOEXEC_SEAL: Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	// The zeros are written, and not just the size set: so the memory is there
	// from now on, and its lack is an error here, and not a signal later.
	var empty layout
	empty.magic.Store(magic)
	empty.version.Store(version)
	n, err := unix.Pwrite(fd, unsafe.Slice((*byte)(unsafe.Pointer(&empty)), size), 0)
	if err == nil && n != size {
		err = unix.ENOSPC
	}
	if err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("pwrite", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("fcntl", err)
	}
	return fd, nil
}

// Open maps the page that another process has made by New, and passed as f.
//
// It only borrows f, which is the caller's to close. It refuses what could fault
// later, that is, anything but a sealed memfd of the right size, and a page of
// another version of the layout. The caller must call Close.
func Open(f *os.File) (*Page, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("open a pulse page: %w", err)
	}
	var m *mapping
	if ctlErr := raw.Control(func(fd uintptr) { m, err = newMapping(int(fd)) }); ctlErr != nil {
		err = ctlErr
	}
	if err != nil {
		return nil, fmt.Errorf("open a pulse page: %w", err)
	}
	p := new(Page)
	p.mapping.Store(m)
	for i := range p.slots {
		p.slots[i] = Slot{page: p, index: i}
	}
	return p, nil
}

// newMapping maps fd after it has checked it. The order matters: what is sealed
// keeps the size that it has.
func newMapping(fd int) (*mapping, error) {
	have, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	switch {
	case errors.Is(err, unix.EINVAL):
		return nil, errors.New("not a memfd")
	case err != nil:
		return nil, os.NewSyscallError("fcntl", err)
	case have&seals != seals:
		return nil, fmt.Errorf("not sealed: it has seals %#x, and needs %#x", have, seals)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if st.Size != size {
		return nil, fmt.Errorf("%d bytes, instead of %d", st.Size, size)
	}
	mem, err := unix.MmapPtr(fd, 0, nil, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	m := &mapping{(*layout)(mem)}
	runtime.AddCleanup(m, func(mem unsafe.Pointer) { _ = unix.MunmapPtr(mem, size) }, mem)
	defer runtime.KeepAlive(m)
	if got := m.magic.Load(); got != magic {
		return nil, fmt.Errorf("it begins with %#x", got)
	}
	if got := m.version.Load(); got != version {
		return nil, fmt.Errorf("layout version %d, instead of %d", got, version)
	}
	return m, nil
}

// File returns the page as a file, to be passed to another process. It belongs
// to p, and is closed by Close. It is nil if p is nil or was made by Open.
func (p *Page) File() *os.File {
	if p == nil {
		return nil
	}
	return p.file
}

// Close ends the use of the page by this process: from now on nothing is
// counted, and everything reads as zero. The other process does not notice.
//
// It may be called while others use the page, and does not wait for them: the
// memory is unmapped by the garbage collector when the last has finished.
// Further calls do nothing.
func (p *Page) Close() error {
	if p == nil || p.mapping.Swap(nil) == nil || p.file == nil {
		return nil
	}
	return p.file.Close()
}
