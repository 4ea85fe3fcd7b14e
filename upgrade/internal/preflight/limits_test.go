package preflight_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/preflight"
)

// files is a directory: path to content.
type files map[string]string

func (f files) write(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "dir") // so that there is room for ../
	require.NoError(t, os.Mkdir(dir, 0o755))
	for name, content := range f {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content+"\n"), 0o644))
	}
	return dir
}

// A process of 100 MiB, without what it has mapped from files, and 20 threads.
const (
	status  = "Name:\tapp\nState:\tS (sleeping)\nVmRSS:\t  153600 kB\nRssAnon:\t   98304 kB\nRssFile:\t   51200 kB\nRssShmem:\t    4096 kB\nThreads:\t20"
	meminfo = "MemTotal:       16000000 kB\nMemFree:          100000 kB\nMemAvailable:    1048576 kB"
	slice   = "system.slice/app.service/"
)

func TestMemory(t *testing.T) {
	leak.Check(t)
	tests := []struct {
		name    string
		need    int64
		meminfo string
		cgroups files
		result  string
		want    string
	}{
		{"machine", 0, meminfo, nil, "ok", "a second process may take 100.0 MiB, 1.0 GiB of the machine are left"},
		{"machine full", 2 << 30, meminfo, nil, "warning", "a second process may take 2.0 GiB, 1.0 GiB of the machine are left"},
		{"unknown machine", 0, "", nil, "", ""},
		{
			"no limit", 0, meminfo,
			files{slice + "memory.max": "max", slice + "memory.high": "max", slice + "memory.current": "104857600"},
			"ok", "of the machine",
		},
		{
			"limit", 0, meminfo,
			files{slice + "memory.max": "314572800", slice + "memory.current": "157286400"},
			"ok", "150.0 MiB below the limit of 300.0 MiB for /system.slice/app.service (memory.max) are left",
		},
		{
			"limit too low", 0, meminfo,
			files{slice + "memory.max": "209715200", slice + "memory.current": "157286400"},
			"warning", "50.0 MiB below the limit of 200.0 MiB for /system.slice/app.service (memory.max) are left",
		},
		{
			"full of cache", 0, meminfo,
			files{
				slice + "memory.max": "209715200", slice + "memory.current": "209715200",
				slice + "memory.stat": "anon 104857600\nfile 104857600\nactive_file 52428800\ninactive_file 52428800\nslab 1",
			},
			"ok", "100.0 MiB below the limit",
		},
		{
			"throttled", 0, meminfo,
			files{slice + "memory.max": "max", slice + "memory.high": "157286400", slice + "memory.current": "104857600"},
			"warning", "50.0 MiB below the limit of 150.0 MiB for /system.slice/app.service (memory.high)",
		},
		{
			"limit of the slice", 0, meminfo,
			files{
				slice + "memory.max": "314572800", slice + "memory.current": "104857600",
				"system.slice/memory.max": "1073741824", "system.slice/memory.current": "1063741824",
			},
			"warning", "for /system.slice (memory.max)",
		},
		{
			"limit of a container", 0, meminfo,
			files{"memory.max": "209715200", "memory.current": "199715200"},
			"warning", "for / (memory.max)",
		},
		{
			"more in use than the limit", 0, meminfo,
			files{slice + "memory.max": "104857600", slice + "memory.current": "204857600"},
			"warning", "0 B below the limit",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			proc := files{"self/status": status, "self/cgroup": "1:name=x:/no\n0::/system.slice/app.service", "meminfo": test.meminfo}.write(t)
			checks := preflight.RunOn(t.Context(), proc, test.cgroups.write(t), preflight.Config{Path: "/bin/sh", MemoryNeeded: test.need})
			if test.result == "" {
				assert.NotContains(t, names(checks), "memory")
				return
			}
			got := find(t, checks, "memory")
			assert.Equal(t, test.result, got.Result)
			assert.Contains(t, got.Message, test.want)
			assert.Equal(t, test.result == control.CheckWarning, got.Hint != "")
			assert.Nil(t, preflight.Failed(checks))
		})
	}
}

func TestProcesses(t *testing.T) {
	leak.Check(t)
	tests := []struct {
		name    string
		cgroup  string
		cgroups files
		result  string
		want    string
	}{
		{"no controller", "0::/system.slice/app.service", nil, "", ""},
		{"no limit", "0::/system.slice/app.service", files{slice + "pids.max": "max", slice + "pids.current": "20"}, "", ""},
		{
			"room", "0::/system.slice/app.service",
			files{slice + "pids.max": "40", slice + "pids.current": "20"},
			"ok", "a second process may have 20 threads, 20 of 40 processes and threads are in use in /system.slice/app.service (pids.max)",
		},
		{
			"no room", "0::/system.slice/app.service",
			files{slice + "pids.max": "39", slice + "pids.current": "20"},
			"warning", "20 of 39",
		},
		{
			"no room in the slice", "0::/system.slice/app.service",
			files{
				slice + "pids.max": "40", slice + "pids.current": "20",
				"system.slice/pids.max": "100", "system.slice/pids.current": "99",
			},
			"warning", "99 of 100 processes and threads are in use in /system.slice (",
		},
		{"version 1", "8:pids:/system.slice/app.service", files{slice + "pids.max": "1", slice + "pids.current": "1"}, "", ""},
		{"outside", "0::/../other", files{"../other/pids.max": "1", "../other/pids.current": "1"}, "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			proc := files{"self/status": status, "self/cgroup": test.cgroup}.write(t)
			checks := preflight.RunOn(t.Context(), proc, test.cgroups.write(t), preflight.Config{Path: "/bin/sh"})
			if test.result == "" {
				assert.NotContains(t, names(checks), "processes")
				return
			}
			got := find(t, checks, "processes")
			assert.Equal(t, test.result, got.Result)
			assert.Contains(t, got.Message, test.want)
		})
	}
}

func TestDescriptors(t *testing.T) {
	leak.Check(t)
	var old unix.Rlimit
	require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	t.Cleanup(func() { assert.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old)) })
	require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 200, Max: old.Max}))

	got := find(t, run(t, preflight.Config{Path: "/bin/sh", Files: 10}), "descriptors")
	assert.Equal(t, "ok", got.Result)
	assert.Regexp(t, `^\d+ of 200 file descriptors are in use, a start takes up to 82$`, got.Message)

	got = find(t, run(t, preflight.Config{Path: "/bin/sh", Files: 40}), "descriptors")
	assert.Equal(t, "warning", got.Result)
	assert.Contains(t, got.Hint, "LimitNOFILE=")

	// Each that is open counts.
	for range 120 {
		f, err := os.Open(os.DevNull)
		require.NoError(t, err)
		defer f.Close()
	}
	got = find(t, run(t, preflight.Config{Path: "/bin/sh", Files: 10}), "descriptors")
	assert.Equal(t, "warning", got.Result, got.Message)
}

// TestHere runs all checks on this machine.
func TestHere(t *testing.T) {
	leak.Check(t)
	checks := run(t, preflight.Config{Path: "/bin/sh", Command: []string{"/bin/true"}})
	assert.Equal(t, []string{"file", "executable", "architecture", "complete", "interpreter", "command", "descriptors", "memory"}, names(checks)[:8])
	for _, c := range checks {
		t.Logf("%-12s %-7s %s", c.Name, c.Result, c.Message)
	}
	assert.NotRegexp(t, `take 0|take \d+ B,`, find(t, checks, "memory").Message)
}
