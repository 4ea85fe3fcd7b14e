package testbed

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Show returns properties of a unit, all of them if none is named, as
// "systemctl show" prints them. If that fails there are none, and the reason is
// in the log of the test.
func (tb *Testbed) Show(unit string, properties ...string) map[string]string {
	args := []string{"show"}
	for _, property := range properties {
		args = append(args, "--property="+property)
	}
	r := tb.Systemctl(append(args, "--", unit)...)
	if err := r.Err(); err != nil {
		tb.logf("testbed: %v", err)
		return nil
	}
	// Never by position: the order is not the same in all versions.
	values := make(map[string]string)
	for line := range strings.Lines(r.Stdout) {
		if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
			values[key] = value
		}
	}
	return values
}

// MainPID returns the PID of a service's main process, 0 if there is none.
func (tb *Testbed) MainPID(unit string) int {
	pid, _ := strconv.Atoi(tb.Show(unit, "MainPID")["MainPID"])
	return pid
}

// Pids returns the PIDs of all processes of a unit, in ascending order: what is
// in its control group, and in those below.
func (tb *Testbed) Pids(unit string) ([]int, error) {
	group := tb.Show(unit, "ControlGroup")["ControlGroup"]
	if group == "" {
		return nil, nil // not running
	}
	dir, err := tb.open(path.Join("/sys/fs/cgroup", group), unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir))
	_ = unix.Close(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	var pids []int
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "cgroup.procs" {
			return err
		}
		procs, err := root.ReadFile(name)
		if err != nil {
			return err
		}
		// The kernel writes the numbers as the reader sees them.
		for _, field := range strings.Fields(string(procs)) {
			host, err := strconv.Atoi(field)
			if err != nil {
				return err
			}
			if pid, ok := tb.insidePID(host); ok {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	slices.Sort(pids)
	return pids, err
}
