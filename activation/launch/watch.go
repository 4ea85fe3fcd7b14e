package launch

import (
	"context"
	"debug/elf"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// WatchInterval is a good time between two looks of [Watch]: a build that takes
// longer to write its result is seen twice, and as two different files.
const WatchInterval = 300 * time.Millisecond

// Watch looks at the file of a program, each interval, until ctx ends, and calls
// changed when it is another one than it was: by device, inode, size and time of
// change, through symbolic links. It must have been the same in two looks, be
// executable, and, if it is an ELF file, complete: nobody is still writing it, as far
// as that can be seen. One change may be missed, if another one follows at once;
// the last one is not.
//
// from is what the program was when it was started, see [Identify]: what has
// changed since then counts.
func Watch(ctx context.Context, path string, from File, interval time.Duration, changed func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	seen := from
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := Identify(path)
		// What was found complete must be what was looked at, or the same change would
		// count twice.
		if now != from && now == seen && Complete(path) && Identify(path) == now {
			from = now
			changed()
		}
		seen = now
	}
}

// File tells files apart. Its zero value is a file that is not there.
type File struct {
	dev, ino   uint64
	size       int64
	sec, nanos int64 // of the last change of its content
}

// Identify looks at a file.
func Identify(path string) File {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return File{}
	}
	sec, nanos := st.Mtim.Unix()
	return File{dev: st.Dev, ino: st.Ino, size: st.Size, sec: sec, nanos: nanos}
}

// Complete tells whether path is a file that the caller may execute, and, if it is
// an ELF file, whether everything is there that its headers speak of.
func Complete(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS) != nil {
		return false
	}
	file, err := os.Open(path)
	if err != nil {
		return true // executable, but not readable: the kernel will know
	}
	defer file.Close()
	magic := make([]byte, 4)
	if n, _ := file.ReadAt(magic, 0); n < 2 {
		return false
	}
	if string(magic) != elf.ELFMAG {
		return true // a script, or what the kernel has a rule for
	}
	program, err := elf.NewFile(file)
	if err != nil {
		return false // its sections are at its end, and are not there yet
	}
	end := uint64(0)
	for _, p := range program.Progs {
		end = max(end, p.Off+p.Filesz)
	}
	for _, s := range program.Sections {
		if s.Type != elf.SHT_NOBITS && s.Type != elf.SHT_NULL {
			end = max(end, s.Offset+s.FileSize)
		}
	}
	return end <= uint64(info.Size())
}
