package upgrade

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// preflight says whether the file at path could be executed, as far as that can
// be told without executing it: a clear sentence instead of an errno. It is no
// promise; the file may change in the next moment.
func preflight(path string) error {
	info, err := os.Stat(path) // symbolic links as they are now
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if target, linkErr := os.Readlink(path); linkErr == nil {
			return fmt.Errorf("%s is a symbolic link to %s, which does not exist: %w", path, target, err)
		}
		return fmt.Errorf("%s does not exist: %w", path, err)
	case err != nil:
		return fmt.Errorf("look at %s: %w", path, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file but %v", path, info.Mode().Type())
	case info.Size() == 0:
		return fmt.Errorf("%s is empty; was it still being written?", path)
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return fmt.Errorf("%s (mode %v) is not executable for this service: %w", path, info.Mode().Perm(), err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil // executable, but not readable: the kernel will know
	}
	defer f.Close()
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil {
		return fmt.Errorf("%s is no executable: it has %d bytes", path, info.Size())
	}
	switch {
	case string(magic[:2]) == "#!":
		return checkScript(path, f)
	case string(magic[:]) == elf.ELFMAG:
		return checkELF(path, f, info.Size())
	}
	return nil // a format that we do not know, perhaps of binfmt_misc: the kernel decides
}

// checkScript looks at the interpreter; without it execve says that the script
// itself does not exist.
func checkScript(path string, f *os.File) error {
	line, _, err := bufio.NewReader(io.NewSectionReader(f, 2, 512)).ReadLine()
	if err != nil {
		return fmt.Errorf("%s is a script without an interpreter in its first line", path)
	}
	fields := strings.Fields(string(line))
	if len(fields) == 0 {
		return fmt.Errorf("%s is a script without an interpreter in its first line", path)
	}
	if err := unix.Access(fields[0], unix.X_OK); err != nil {
		return fmt.Errorf("%s is a script whose interpreter %s cannot be executed: %w", path, fields[0], err)
	}
	return nil
}

// checkELF compares with the program that runs here.
func checkELF(path string, f *os.File, size int64) error {
	theirs, err := elf.NewFile(f)
	if err != nil {
		return fmt.Errorf("%s is a damaged ELF file; was it still being written? %w", path, err)
	}
	self, err := elf.Open("/proc/self/exe")
	if err != nil {
		return nil // not mounted: the kernel will know
	}
	defer self.Close()
	if theirs.Machine != self.Machine || theirs.Class != self.Class || theirs.Data != self.Data {
		return fmt.Errorf("%s is built for another architecture: %v, this machine runs %v", path, theirs.Machine, self.Machine)
	}
	if theirs.Type != elf.ET_EXEC && theirs.Type != elf.ET_DYN {
		return fmt.Errorf("%s is an ELF file, but no executable: %v", path, theirs.Type)
	}
	for _, p := range theirs.Progs {
		if p.Type == elf.PT_LOAD && int64(p.Off+p.Filesz) > size {
			return fmt.Errorf("%s is cut short: %d bytes of at least %d; was it still being written?", path, size, p.Off+p.Filesz)
		}
	}
	return nil
}
