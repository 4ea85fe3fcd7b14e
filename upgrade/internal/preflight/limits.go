package preflight

import (
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
)

// limits looks at what two generations need at the same time. What the kernel does
// not tell is left out.
func (h host) limits(c Config) []control.Check {
	var checks []control.Check
	if used, ok := h.descriptors(); ok {
		checks = append(checks, descriptors(used, c.Files)...)
	}
	status := h.fields("self/status")
	need := c.MemoryNeeded
	if need <= 0 {
		// What is mapped from files is shared, or can be dropped.
		need = status["RssAnon"] + status["RssShmem"]
	}
	groups := h.groups()
	checks = append(checks, h.memory(need, groups)...)
	return append(checks, h.processes(status["Threads"], groups)...)
}

// What a start takes in this process for a moment: for each descriptor that is
// handed over two duplicates, two more of the last time that are not collected
// yet, and one in reserve; and pipes, links and files of /proc.
const (
	startFilesEach = 5
	startFiles     = 32
)

// descriptors compares with RLIMIT_NOFILE, which is each process's own: the new one
// has as much room as this one.
func descriptors(used int64, passed int) []control.Check {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return nil
	}
	most := int64(min(limit.Cur, math.MaxInt64))
	need := int64(startFiles + startFilesEach*passed)
	message := fmt.Sprintf("%d of %d file descriptors are in use, a start takes up to %d", used, most, need)
	if used+need > most {
		return []control.Check{warn(NameDescriptors, message, "raise LimitNOFILE= in the unit, and restart the service")}
	}
	return []control.Check{pass(NameDescriptors, message)}
}

// descriptors counts those that this process has open.
func (h host) descriptors() (int64, bool) {
	dir, err := os.Open(filepath.Join(h.proc, "self/fd"))
	if err != nil {
		return 0, false
	}
	defer dir.Close()
	if info, err := dir.Stat(); err == nil && info.Size() > 0 { // the number, since Linux 6.2
		return info.Size(), true
	}
	names, err := dir.Readdirnames(-1)
	return int64(len(names)), err == nil
}

// memory compares need with what the machine and each of the groups have left.
func (h host) memory(need int64, groups []string) []control.Check {
	if need <= 0 {
		return nil
	}
	left, of := int64(math.MaxInt64), ""
	if available, ok := h.fields("meminfo")["MemAvailable"]; ok {
		left, of = available, "of the machine"
	}
	for _, group := range groups {
		used, ok := h.value(group, "memory.current")
		if !ok {
			continue
		}
		used -= h.cache(group)
		for _, name := range []string{"memory.max", "memory.high"} {
			if limit, ok := h.value(group, name); ok && limit-used < left {
				left, of = max(0, limit-used), fmt.Sprintf("below the limit of %s for %s (%s)", size(limit), group, name)
			}
		}
	}
	if of == "" {
		return nil
	}
	message := fmt.Sprintf("a second process may take %s, %s %s are left", size(need), size(left), of)
	if need > left {
		return []control.Check{warn(NameMemory, message, "two generations may run out of memory: raise the limit (MemoryMax=, MemoryHigh=), or restart instead")}
	}
	return []control.Check{pass(NameMemory, message)}
}

// cache is the memory of a group that the kernel would rather drop than refuse
// some.
func (h host) cache(group string) int64 {
	data, err := os.ReadFile(filepath.Join(h.cgroups, group, "memory.stat"))
	if err != nil {
		return 0
	}
	sum := int64(0)
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "active_file" || name == "inactive_file" {
			n, _ := strconv.ParseInt(value, 10, 64)
			sum += n
		}
	}
	return sum
}

// processes compares the number of threads with what each of the groups has left.
func (h host) processes(threads int64, groups []string) []control.Check {
	left, message := int64(math.MaxInt64), ""
	for _, group := range groups {
		used, ok := h.value(group, "pids.current")
		if !ok {
			continue
		}
		if limit, ok := h.value(group, "pids.max"); ok && limit-used < left {
			left = limit - used
			message = fmt.Sprintf("a second process may have %d threads, %d of %d processes and threads are in use in %s (pids.max)", threads, used, limit, group)
		}
	}
	switch {
	case message == "":
		return nil
	case threads > left:
		return []control.Check{warn(NameProcesses, message, "raise TasksMax= in the unit")}
	}
	return []control.Check{pass(NameProcesses, message)}
}

// groups returns the cgroup of this process and those around it: a limit of each
// counts.
func (h host) groups() []string {
	data, err := os.ReadFile(filepath.Join(h.proc, "self/cgroup"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		group, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		if !strings.HasPrefix(group, "/") || strings.HasPrefix(group, "/..") { // outside of our cgroup namespace
			return nil
		}
		groups := []string{group}
		for group != "/" {
			group = path.Dir(group)
			groups = append(groups, group)
		}
		return groups
	}
	return nil
}

// value reads a file of a group that has one number. "max" is none.
func (h host) value(group, name string) (int64, bool) {
	data, err := os.ReadFile(filepath.Join(h.cgroups, group, name))
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
}

// fields reads a file of /proc with lines like "Threads:  5" and "VmRSS:  10 kB";
// the latter in bytes.
func (h host) fields(name string) map[string]int64 {
	data, err := os.ReadFile(filepath.Join(h.proc, name))
	if err != nil {
		return nil
	}
	fields := make(map[string]int64)
	for line := range strings.Lines(string(data)) {
		key, rest, _ := strings.Cut(line, ":")
		number, unit, _ := strings.Cut(strings.TrimSpace(rest), " ")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			continue
		}
		if strings.TrimSpace(unit) == "kB" {
			n *= 1024
		}
		fields[key] = n
	}
	return fields
}
