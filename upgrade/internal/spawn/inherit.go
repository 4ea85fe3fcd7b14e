package spawn

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// How tableflip v1.2.3 starts a process, in what this package takes part in.
const (
	sentinelName  = "TABLEFLIP_HAS_PARENT_7DIU3"
	sentinelValue = "yes"

	readyFD = 3 // write end: a byte here is the child's ready
	namesFD = 4 // read end: gob of the keys; its end of file is the parent's end
	firstFD = 5 // of the first key; the others follow

	fdKind = "fd" // first part of the keys of AddFile
)

// inheritance is what a process got from its parent.
type inheritance struct {
	files          []File // by name
	stdout, stderr int    // the real ones, or -1
	path           string // of the program, or ""
}

// close closes everything.
func (in *inheritance) close() {
	for _, f := range in.files {
		unix.Close(f.FD)
	}
	closeAll(in.stdout, in.stderr)
	*in = inheritance{stdout: -1, stderr: -1}
}

// isSuccessor reports whether this process was started by tableflip. The
// sentinel alone is no proof: a program that does not remove it passes it on to
// everything it starts.
func isSuccessor() bool {
	return os.Getenv(sentinelName) != "" && isFIFO(readyFD, true) && isFIFO(namesFD, false)
}

// inherit takes over what the parent has passed, before tableflip does, and
// leaves to tableflip a parent that is gone and has passed nothing:
//
//   - The ready pipe is replaced by /dev/null, so that tableflip's ready does
//     not reach the parent, whose Upgrader would be finished by it. A duplicate
//     is kept as long as this process lives: what an early end of file would
//     mean to the parent is then no question.
//   - The pipe of names is replaced by one with an empty list and an end of
//     file. tableflip refuses to upgrade a process whose parent lives, and it
//     would wrap, register in the netpoller and close what it knows of.
func inherit() (in *inheritance, err error) {
	// Everything from the parent is without close-on-exec.
	unix.CloseOnExec(readyFD)
	unix.CloseOnExec(namesFD)

	keys, err := readKeys()
	if err != nil {
		return nil, err
	}
	for i := range keys {
		unix.CloseOnExec(firstFD + i)
	}
	in, err = sortOut(keys)
	if err != nil {
		return nil, err
	}
	if err := interpose(); err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

// readKeys reads the keys of the descriptors from firstFD on. It blocks until
// the parent has written them, which it does at once, or is gone.
func readKeys() ([][]string, error) {
	fd, err := dup(namesFD)
	if err != nil {
		return nil, err
	}
	pipe := os.NewFile(uintptr(fd), "names")
	defer pipe.Close()

	var keys [][]string
	if err := gob.NewDecoder(pipe).Decode(&keys); err != nil {
		return nil, fmt.Errorf("read names of file descriptors from the parent: %w", err)
	}
	return keys, nil
}

// sortOut finds out what the descriptors from firstFD on are. It closes those
// that are of no use, and all of them if it fails.
func sortOut(keys [][]string) (_ *inheritance, err error) {
	in := &inheritance{stdout: -1, stderr: -1}
	at := make(map[string]int, len(keys)) // key to descriptor
	defer func() {
		for _, fd := range at {
			unix.Close(fd)
		}
		if err != nil {
			in.close()
		}
	}()
	for i, key := range keys {
		name := strings.Join(key, ":") // as strange as it may be
		if len(key) >= 2 && key[0] == fdKind {
			name = key[1]
		}
		at[name] = firstFD + i
	}
	take := func(key string) (int, error) {
		fd, ok := at[key]
		if !ok {
			return -1, fmt.Errorf("the parent has not passed %q", key)
		}
		delete(at, key)
		return fd, nil
	}

	fd, err := take(manifestKey)
	if err != nil {
		return nil, errors.New("the parent uses tableflip without this library: it must be restarted once instead of upgraded")
	}
	m, err := readManifest(fd)
	unix.Close(fd)
	if err != nil {
		return nil, err
	}
	if in.stdout, err = take(slotKey(slotStdout)); err != nil {
		return nil, err
	}
	if in.stderr, err = take(slotKey(slotStderr)); err != nil {
		return nil, err
	}
	in.path = m.Path
	for i, name := range m.Names {
		fd, err := take(slotKey(firstSlot + i))
		if err != nil {
			return nil, fmt.Errorf("file %q: %w", name, err)
		}
		in.files = append(in.files, File{Name: name, FD: fd})
	}
	slices.SortFunc(in.files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return in, nil
}

// interpose replaces tableflip's two pipes.
func interpose() error {
	null, err := openNull()
	if err != nil {
		return err
	}
	defer unix.Close(null)
	if _, err := dup(readyFD); err != nil { // never closed
		return err
	}
	if err := replace(null, readyFD, unix.O_CLOEXEC); err != nil {
		return err
	}

	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	defer unix.Close(p[0])
	w := os.NewFile(uintptr(p[1]), "names")
	defer w.Close()
	if err := gob.NewEncoder(w).Encode([][]string{}); err != nil {
		return fmt.Errorf("write empty list of names: %w", err)
	}
	return replace(p[0], namesFD, unix.O_CLOEXEC)
}
