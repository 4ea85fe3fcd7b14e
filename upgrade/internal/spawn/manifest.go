package spawn

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// tableflip passes descriptors under keys, and never forgets a key. So the keys
// are not the names, of which there could be new ones in each Start, but the
// numbers of slots that all Starts use again. Slots that one Start does not
// need hold /dev/null. What is in the slots is told by a list of names, the
// manifest, in a descriptor of its own.
const (
	manifestKey = "manifest"
	slotStdout  = 0 // the real stdout of the parent
	slotStderr  = 1
	firstSlot   = 2 // of the names in the manifest
)

// slotKey is the key of a slot.
func slotKey(slot int) string { return strconv.Itoa(slot) }

// protocol is the version of the hand-over between two versions of this
// package. It changes when an older one would misunderstand what is passed;
// fields that may be ignored are added without.
const protocol = 1

// manifest says what the descriptors are that a process is started with.
type manifest struct {
	Protocol int      `json:"protocol"`
	Names    []string `json:"names"` // of firstSlot and those after
	// Path is what the receiver starts in its turn, whatever it was executed by.
	// Without it the receiver goes by its own os.Args[0].
	Path string `json:"path,omitempty"`
}

// newManifest checks the names of files.
func newManifest(files []File) (manifest, error) {
	m := manifest{Protocol: protocol, Names: make([]string, 0, len(files))}
	seen := make(map[string]bool, len(files))
	for _, f := range files {
		switch {
		case f.Name == "":
			return m, errors.New("a file without a name")
		case seen[f.Name]:
			return m, fmt.Errorf("two files named %q", f.Name)
		}
		seen[f.Name] = true
		m.Names = append(m.Names, f.Name)
	}
	return m, nil
}

// memfd returns a memfd that holds m. Unlike a pipe it has room for any number
// of names, and nobody has to read it.
func (m manifest) memfd() (int, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return -1, fmt.Errorf("encode manifest: %w", err)
	}
	const name = "handoff-manifest"
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // MFD_NOEXEC_SEAL: Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	for off := 0; off < len(data); {
		n, err := unix.Pwrite(fd, data[off:], int64(off))
		if err != nil && !errors.Is(err, unix.EINTR) {
			unix.Close(fd)
			return -1, fmt.Errorf("write manifest: %w", err)
		}
		off += max(n, 0)
	}
	return fd, nil
}

// readManifest reads what memfd has written.
func readManifest(fd int) (manifest, error) {
	var m manifest
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return m, fmt.Errorf("read manifest: %w", err)
	}
	const limit = 1 << 20
	if st.Size > limit {
		return m, fmt.Errorf("read manifest: %d bytes", st.Size)
	}
	data := make([]byte, st.Size)
	for off := 0; off < len(data); {
		n, err := unix.Pread(fd, data[off:], int64(off))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return m, fmt.Errorf("read manifest: %w", err)
		case n == 0:
			return m, errors.New("read manifest: it ends early")
		}
		off += max(n, 0)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("decode manifest: %w", err)
	}
	if m.Protocol != protocol {
		return m, fmt.Errorf("the parent hands over by protocol %d, this version by protocol %d", m.Protocol, protocol)
	}
	return m, nil
}
