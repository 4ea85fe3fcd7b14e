package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// throttle gives the whole service no more than so many percent of a CPU, until undo
// is called: by CPUQuota=, or, where the machine has the controller in the old
// hierarchy of control groups, by a group of our own there.
func (s *site) throttle(percent int) (undo func()) {
	s.t.Helper()
	controllers := s.MustRun(s.t, "cat", "/sys/fs/cgroup/cgroup.controllers").Stdout
	if slices.Contains(strings.Fields(controllers), "cpu") {
		s.MustSystemctl(s.t, "set-property", "--runtime", service, fmt.Sprintf("CPUQuota=%d%%", percent))
		return func() {
			s.t.Helper()
			group := s.Show(service, "ControlGroup")["ControlGroup"]
			requireThrottled(s.t, s.MustRun(s.t, "cat", "/sys/fs/cgroup"+group+"/cpu.stat").Stdout)
			s.MustSystemctl(s.t, "set-property", "--runtime", service, "CPUQuota=")
		}
	}
	const root = "/sys/fs/cgroup/cpu"
	group, err := os.MkdirTemp(root, "handoff-test-")
	if err != nil {
		s.t.Skipf("no controller for the CPU here: %v", err)
	}
	write := func(dir, file, text string) {
		s.t.Helper()
		require.NoError(s.t, os.WriteFile(filepath.Join(dir, file), []byte(text), 0))
	}
	undo = func() { // also for those that were started meanwhile
		s.t.Helper()
		stat, err := os.ReadFile(filepath.Join(group, "cpu.stat"))
		require.NoError(s.t, err)
		requireThrottled(s.t, string(stat))
		pids, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
		require.NoError(s.t, err)
		for pid := range strings.Lines(string(pids)) {
			_ = os.WriteFile(filepath.Join(root, "cgroup.procs"), []byte(pid), 0) // it may have ended
		}
		_ = os.Remove(group) // if it still does not, it is done at the end of the test
	}
	s.t.Cleanup(func() { _ = os.Remove(group) })
	write(group, "cpu.cfs_period_us", "100000")
	write(group, "cpu.cfs_quota_us", fmt.Sprint(1000*percent))
	pids, err := s.Pids(service)
	require.NoError(s.t, err)
	for _, pid := range pids {
		host, err := s.HostPID(pid)
		require.NoError(s.t, err)
		write(group, "cgroup.procs", fmt.Sprint(host))
	}
	return undo
}

// requireThrottled requires that a cpu.stat tells of it.
func requireThrottled(t testing.TB, stat string) {
	t.Helper()
	for line := range strings.Lines(stat) {
		if text, found := strings.CutPrefix(line, "nr_throttled "); found {
			require.NotEqual(t, "0", strings.TrimSpace(text), stat)
			return
		}
	}
	t.Fatalf("%s", stat)
}
