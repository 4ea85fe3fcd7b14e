package upgrade

import (
	"bytes"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
)

func libraryVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		if version, ok := control.LibraryIn(info); ok {
			return version
		}
	}
	return "unknown"
}

// residentMemory reads the RSS of a process, in bytes; 0 if it cannot be told.
func residentMemory(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(data)
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// executable is what /proc says that a process runs; "" if it cannot be told.
func executable(pid int) string {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	return path
}

// fileID tells files, and states of a file, apart. The zero value is no file.
type fileID struct {
	dev, ino uint64
	size     int64
	mtime    unix.Timespec
}

// identify returns the identity of the file at path, symbolic links resolved.
func identify(path string) fileID {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileID{}
	}
	return fileID{uint64(st.Dev), st.Ino, st.Size, st.Mtim}
}

// processStart is when this process was started, as nearly as it matters.
func processStart() time.Time {
	if info, err := os.Stat("/proc/self"); err == nil {
		return info.ModTime()
	}
	return time.Now()
}
