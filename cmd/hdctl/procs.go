package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// process is what /proc says about a process of a service that does not answer.
type process struct {
	PID     int       `json:"pid"`
	Exe     string    `json:"executable,omitempty"`
	Started time.Time `json:"started,omitzero"`
	RSS     int64     `json:"rss_bytes,omitempty"`
	State   string    `json:"state,omitempty"` // R, S, D, T, Z, ... as ps(1) has it
}

// processes returns the processes in a cgroup and those that hold the listening
// control socket, by PID. What cannot be found out is left out: this is for the
// moment in which nothing works as it should.
func processes(controlGroup, socket string) []process {
	pids := append(cgroupPIDs(controlGroup), holders(socket)...)
	slices.Sort(pids)
	var out []process
	for _, pid := range slices.Compact(pids) {
		if p, err := readProcess(pid); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// cgroupPIDs returns the PIDs in a cgroup and those below it. It looks where
// systemd has its hierarchy with cgroup v2, hybrid, and v1.
func cgroupPIDs(group string) []int {
	if group == "" {
		return nil
	}
	var pids []int
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"} {
		_ = filepath.WalkDir(filepath.Join(root, group), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Base(path) != "cgroup.procs" {
				return nil //nolint:nilerr // another root may have it
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return nil //nolint:nilerr // likewise
			}
			for _, f := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
			return nil
		})
	}
	return pids
}

// holders returns the processes that hold the listening unix socket at path, as
// far as the caller may know.
func holders(path string) []int {
	data, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil
	}
	links := make(map[string]bool) // what /proc/PID/fd says of it
	for line := range strings.Lines(string(data)) {
		// Num RefCount Protocol Flags Type St Inode Path; see proc_net_unix(5).
		f := strings.Fields(line)
		const listening = "00010000" // __SO_ACCEPTCON; accepted ones have the path, too
		if len(f) == 8 && f[3] == listening && f[7] == path {
			links["socket:["+f[6]+"]"] = true
		}
	}
	if len(links) == 0 {
		return nil
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	var pids []int
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err == nil && links[link] {
			if pid, err := strconv.Atoi(strings.Split(fd, "/")[2]); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// clockTicks is sysconf(_SC_CLK_TCK), which has been 100 on all architectures of
// Linux that Go knows, for ever.
const clockTicks = 100

// readProcess reads what /proc has of a process.
func readProcess(pid int) (process, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return process{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	// PID (COMM) STATE ...: the name may have spaces and parentheses in it.
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return process{}, fmt.Errorf("read process %d: %q is not understood", pid, stat)
	}
	fields := strings.Fields(string(stat[end+1:])) // from field 3 on, see proc_pid_stat(5)
	if len(fields) < 22 {
		return process{}, fmt.Errorf("read process %d: %q is not understood", pid, stat)
	}
	p := process{PID: pid, State: fields[0]}
	if exe, err := os.Readlink(filepath.Join(dir, "exe")); err == nil {
		p.Exe = exe
	} else {
		p.Exe = "[" + string(stat[open+1:end]) + "]" // as ps(1) does for what it may not see
	}
	if ticks, err := strconv.ParseInt(fields[22-3], 10, 64); err == nil {
		if boot, err := bootTime(); err == nil {
			p.Started = boot.Add(time.Duration(ticks) * time.Second / clockTicks)
		}
	}
	if pages, err := strconv.ParseInt(fields[24-3], 10, 64); err == nil {
		p.RSS = pages * int64(os.Getpagesize())
	}
	return p, nil
}

// bootTime is the btime of proc_stat(5).
func bootTime() (time.Time, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "btime" {
			sec, err := strconv.ParseInt(f[1], 10, 64)
			return time.Unix(sec, 0), err
		}
	}
	return time.Time{}, errors.New("no btime in /proc/stat")
}

// unitOf returns the service unit of a process, by its cgroup, or "".
func unitOf(pid int) string {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		// HIERARCHY:CONTROLLERS:PATH, see cgroups(7). Ours is 0 or "name=systemd".
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || f[0] != "0" && f[1] != "name=systemd" {
			continue
		}
		// The innermost unit counts, if it is a service: what was started by
		// hand is in a scope. A delegated cgroup may be below it.
		for _, part := range slices.Backward(strings.Split(f[2], "/")) {
			switch filepath.Ext(part) {
			case ".service":
				return part
			case ".scope", ".slice":
				return ""
			}
		}
	}
	return ""
}
