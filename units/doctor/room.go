package doctor

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/hdctl/handoff/upgrade/control"
)

// room compares the limits of a unit with what the service takes now, and once more
// what its main process takes.
func (s System) room(v map[string]string, st *control.Status) []control.Check {
	if st == nil {
		return nil
	}
	var checks []control.Check
	g := mainOf(st)
	if most, ok := count(v["TasksMax"]); ok {
		used, known := count(v["TasksCurrent"])
		threads := s.threads(g.PID)
		switch {
		case !known: // no accounting, or no controller
			checks = append(checks, good("tasks", "TasksMax=%d is not in force here: systemd does not count them", most))
		case threads == 0:
			checks = append(checks, warn("tasks", "ask as root", "TasksMax=%d, and how many threads process %d has is not known", most, g.PID))
		case used+threads > most:
			checks = append(checks, fail("tasks", "TasksMax=", "TasksMax=%d, there are %d, and a second process needs about %d more", most, used, threads))
		default:
			checks = append(checks, good("tasks", "%d of TasksMax=%d, and about %d more for a second process", used, most, threads))
		}
	}
	for _, name := range []string{"MemoryMax", "MemoryHigh"} {
		most, ok := count(v[name])
		if !ok {
			continue
		}
		// Not MemoryCurrent=, which has caches in it, as long as there is another way.
		used := int64(0)
		for _, g := range st.Generations {
			used += g.RSS
		}
		switch {
		case g.RSS == 0:
			checks = append(checks, warn("memory", "", "%s=%s, and how much is in use is not known", name, size(most)))
		case used+g.RSS > most:
			checks = append(checks, warn(
				"memory", name+"=, or fewer old generations: HANDOFF_MAX_DRAINING=",
				"%s=%s, %s are in use, and a second process may take %s more", name, size(most), size(used), size(g.RSS),
			))
		default:
			checks = append(checks, good("memory", "%s of %s=%s, and up to %s more for a second process", size(used), name, size(most), size(g.RSS)))
		}
	}
	return checks
}

// threads returns how many threads a process has; 0 if it cannot be told.
func (s System) threads(pid int) int64 {
	text, err := s.read(proc(pid, "status"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "Threads:"); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return n
		}
	}
	return 0
}

// startFiles is what a start of a new version takes in the old one for a moment:
// pipes, links, and duplicates of some sockets.
const startFiles = 64

// descriptors compares the open files of a process with its limit, which its
// successor inherits.
func (s System) descriptors(pid int) control.Check {
	const name = "descriptors"
	entries, err := os.ReadDir(s.path(proc(pid, "fd")))
	if err != nil {
		return unseen(name, s.shorten(err))
	}
	limits, err := s.read(proc(pid, "limits"))
	if err != nil {
		return unseen(name, err)
	}
	soft, hard := int64(0), int64(0)
	for line := range strings.Lines(limits) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			if f := strings.Fields(rest); len(f) >= 2 {
				soft, hard = limit(f[0]), limit(f[1])
			}
		}
	}
	used := int64(len(entries))
	switch {
	case soft == 0:
		return warn(name, "", "the limit of open files of process %d is not known", pid)
	case used+startFiles > soft:
		return fail(
			name, "LimitNOFILE= in the unit, and a restart",
			"process %d has %d of %d files open: there is no room to start a new version", pid, used, soft,
		)
	case used > soft/2:
		return warn(
			name, "LimitNOFILE= in the unit, and a restart",
			"process %d has %d of %d files open (%s at most): a new version that gets as many connections again may run out of them", pid, used, soft, unlimited(hard),
		)
	}
	return good(name, "process %d has %d of %s files open", pid, used, unlimited(soft))
}

// limit reads a limit as the kernel prints it.
func limit(text string) int64 {
	if text == "unlimited" {
		return 1<<63 - 1
	}
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// count reads a number as systemctl show prints it; not one that means none, or not
// known.
func count(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64) // 2^64-1 is none, too
	return n, err == nil
}

// size is a number of bytes for people.
func size(n int64) string {
	for _, unit := range []struct {
		name  string
		bytes int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= unit.bytes {
			return strconv.FormatFloat(float64(n)/float64(unit.bytes), 'f', 1, 64) + " " + unit.name
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
