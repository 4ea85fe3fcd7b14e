package watch

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"
)

// cgroupRoot is where the hierarchy of cgroups(7) version 2 is mounted. In a
// hybrid one it is elsewhere, and has no CPU controller.
const cgroupRoot = "/sys/fs/cgroup"

// throttle tells for how long the control group of a process, or one above, was
// denied the CPU: CPUQuota= of the unit, or of its slice.
type throttle struct {
	pid   int
	root  string
	found bool       // files are
	files []*os.File // cpu.stat, of those groups that have a quota

	valid bool // last is
	last  throttled
	buf   [1024]byte
}

// throttled is two counters of cpu.stat, of all groups together.
type throttled struct {
	periods uint64 // nr_throttled
	time    time.Duration
}

func newThrottle(pid int) *throttle { return &throttle{pid: pid, root: cgroupRoot} }

func (t *throttle) close() {
	for _, f := range t.files {
		_ = f.Close() // was only read
	}
	t.files = nil
}

// forget makes the next call of since the first.
func (t *throttle) forget() { t.valid = false }

// since returns for how long the process was throttled since the last call. The
// kernel adds to the time when throttling ends; as long as it has only begun, the
// result is small, but not 0. That of a first call is 0.
func (t *throttle) since() time.Duration {
	if !t.found {
		t.found = true
		t.find()
	}
	now := t.read()
	before, valid := t.last, t.valid
	t.last, t.valid = now, true
	switch {
	case !valid:
		return 0
	case now.time > before.time:
		return now.time - before.time
	case now.periods != before.periods:
		return 1
	default:
		return 0
	}
}

// find opens the files. Where there are none, nobody is throttled.
func (t *throttle) find() {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", t.pid))
	if err != nil {
		return
	}
	group, ok := parseCgroup(data)
	if !ok {
		return
	}
	for {
		if f, err := os.Open(filepath.Join(t.root, group, "cpu.stat")); err == nil {
			if n, _ := f.ReadAt(t.buf[:], 0); hasQuota(t.buf[:n]) {
				t.files = append(t.files, f)
			} else {
				_ = f.Close()
			}
		}
		if group == "/" {
			return
		}
		group = path.Dir(group)
	}
}

// read adds up the counters.
func (t *throttle) read() (sum throttled) {
	for _, f := range t.files {
		n, _ := f.ReadAt(t.buf[:], 0) // of a group that is gone: nothing
		periods, _ := parseField(t.buf[:n], "nr_throttled ")
		usec, _ := parseField(t.buf[:n], "throttled_usec ")
		sum.periods += periods
		sum.time += time.Duration(usec) * time.Microsecond
	}
	return sum
}

// hasQuota reports whether a cpu.stat is of a group with the CPU controller.
func hasQuota(b []byte) bool {
	_, ok := parseField(b, "nr_throttled ")
	return ok
}

// parseCgroup returns the path of the group in version 2 of cgroups(7). It may
// begin with "/.." if it is outside of this process's namespace, and is not to be
// found then.
func parseCgroup(b []byte) (string, bool) {
	for line := range bytes.Lines(b) {
		if group, ok := bytes.CutPrefix(line, []byte("0::")); ok {
			return path.Join("/", string(bytes.TrimRight(group, "\n"))), true
		}
	}
	return "", false
}
