package preflight

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"

	"github.com/hdctl/handoff/upgrade/control"
)

// script looks at the interpreter; without it execve says that the script itself
// does not exist.
func (s *subject) script(f *os.File) control.Check {
	if s.open {
		return fail(NameInterpreter, s.name+" is a script: it can be started only by its path, not as an open file",
			"put the file back in its place, then upgrade")
	}
	// The kernel reads that much: BINPRM_BUF_SIZE.
	line, _, err := bufio.NewReader(io.NewSectionReader(f, 2, 254)).ReadLine()
	fields := strings.Fields(string(line))
	if err != nil || len(fields) == 0 {
		return fail(NameInterpreter, s.name+" is a script without an interpreter in its first line", hintUnclosed)
	}
	return s.interpreter("interpreter", fields[0])
}

// interpreter checks the program that the kernel would really execute.
func (s *subject) interpreter(what, path string) control.Check {
	if err := canExecute(path); err != nil {
		return fail(NameInterpreter, fmt.Sprintf("%s needs the %s %s: %v", s.name, what, path, err),
			"install "+path+", or a program that goes without")
	}
	return pass(NameInterpreter, fmt.Sprintf("%s has its %s %s", s.name, what, path))
}

// elf compares with the program that runs here, and with the size of the file.
func (s *subject) elf(f *os.File) []control.Check {
	file, err := elf.NewFile(f)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return []control.Check{fail(NameComplete, fmt.Sprintf("%s is cut short: it has %d bytes", s.name, s.size), hintUnclosed)}
	case err != nil:
		return []control.Check{fail(NameComplete, fmt.Sprintf("%s is a damaged ELF file of %d bytes: %v", s.name, s.size, err), hintUnclosed)}
	}
	checks := []control.Check{s.architecture(file), s.complete(file)}
	if Failed(checks) != nil {
		return checks
	}
	for _, p := range file.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		path, err := io.ReadAll(io.LimitReader(p.Open(), 4096)) // PATH_MAX, as the kernel
		if err != nil {
			return append(checks, fail(NameComplete, fmt.Sprintf("%s cannot be read: %v", s.name, err), ""))
		}
		path, _, _ = bytes.Cut(path, []byte{0})
		return append(checks, s.interpreter("dynamic loader", string(path)))
	}
	return checks
}

// architecture checks that it is a program for this machine.
func (s *subject) architecture(file *elf.File) control.Check {
	if file.Type != elf.ET_EXEC && file.Type != elf.ET_DYN {
		return fail(NameArchitecture, fmt.Sprintf("%s is an ELF file, but no program: %v", s.name, file.Type), hintInstall)
	}
	self, err := elf.Open("/proc/self/exe")
	if err != nil { // not readable: the kernel will know
		return pass(NameArchitecture, fmt.Sprintf("%s is built for %s", s.name, machine(file)))
	}
	defer self.Close()
	if file.Machine != self.Machine || file.Class != self.Class || file.Data != self.Data {
		return fail(NameArchitecture,
			fmt.Sprintf("%s is built for another architecture: %s, this service runs on %s", s.name, machine(file), machine(self)),
			"install the build for "+machine(self))
	}
	return pass(NameArchitecture, fmt.Sprintf("%s is built for %s", s.name, machine(file)))
}

// machine names an architecture: "X86_64, 64 bit".
func machine(f *elf.File) string {
	name := strings.TrimPrefix(f.Machine.String(), "EM_")
	switch f.Class {
	case elf.ELFCLASS32:
		name += ", 32 bit"
	case elf.ELFCLASS64:
		name += ", 64 bit"
	}
	if f.Data == elf.ELFDATA2MSB {
		name += ", big endian"
	}
	return name
}

// complete checks that everything that the headers speak of is in the file. To
// execute it the kernel needs only the segments, but linkers write the sections
// behind them: where those are missing, somebody is still copying.
func (s *subject) complete(file *elf.File) control.Check {
	need := uint64(0)
	end := func(offset, length uint64) {
		if offset+length < offset {
			need = math.MaxUint64
		}
		need = max(need, offset+length)
	}
	for _, p := range file.Progs {
		end(p.Off, p.Filesz)
	}
	for _, section := range file.Sections {
		if section.Type != elf.SHT_NOBITS && section.Type != elf.SHT_NULL {
			end(section.Offset, section.FileSize)
		}
	}
	if need > uint64(s.size) {
		return fail(NameComplete, fmt.Sprintf("%s is cut short: it has %d bytes of at least %d", s.name, s.size, need), hintUnclosed)
	}
	return pass(NameComplete, fmt.Sprintf("%s is complete: its headers speak of %s, all of which is there", s.name, size(int64(need))))
}
