package upgrade

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
)

// disk compares the file that would be started next with the one that runs. It
// remembers digests, so that asking often costs a stat. It is safe for
// concurrent use.
type disk struct {
	path string

	mu      sync.Mutex
	digests map[fileID][sha256.Size]byte // of at most two files
}

const ownExecutable = "/proc/self/exe" // also when the file was replaced or deleted

func (d *disk) compare(failed fileID) *control.Disk {
	c := &control.Disk{Path: d.path}
	there := identify(d.path)
	c.Failed = failed != fileID{} && failed == there
	c.State, c.Detail = d.state(there)
	return c
}

func (d *disk) state(there fileID) (state, detail string) {
	if there == (fileID{}) {
		_, err := os.Stat(d.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return control.DiskMissing, ""
		case err != nil:
			return control.DiskUnknown, err.Error()
		}
	}
	if unix.Access(d.path, unix.X_OK) != nil {
		return control.DiskNotExecutable, ""
	}
	ours := identify(ownExecutable)
	switch {
	case ours == there:
		return control.DiskSame, ""
	case ours == fileID{}:
		return control.DiskUnknown, "the file that runs cannot be read"
	case ours.size != there.size:
		return control.DiskDiffers, ""
	}
	a, errA := d.digest(ownExecutable, ours)
	b, errB := d.digest(d.path, there)
	switch {
	case errA != nil || errB != nil:
		return control.DiskUnknown, errors.Join(errA, errB).Error()
	case a == b:
		return control.DiskSame, ""
	}
	return control.DiskDiffers, ""
}

func (d *disk) digest(path string, id fileID) (sum [sha256.Size]byte, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if sum, ok := d.digests[id]; ok {
		return sum, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return sum, fmt.Errorf("compare with the file on disk: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, fmt.Errorf("compare with the file on disk: %w", err)
	}
	h.Sum(sum[:0])
	if len(d.digests) >= 2 || d.digests == nil {
		d.digests = make(map[fileID][sha256.Size]byte)
	}
	d.digests[id] = sum
	return sum, nil
}
