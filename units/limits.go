package units

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// resourceLimits are the names of limits: as a setting, and in proc_pid_limits(5).
var resourceLimits = []struct{ property, name string }{
	{"LimitCPU", "Max cpu time"},
	{"LimitFSIZE", "Max file size"},
	{"LimitDATA", "Max data size"},
	{"LimitSTACK", "Max stack size"},
	{"LimitCORE", "Max core file size"},
	{"LimitRSS", "Max resident set"},
	{"LimitNPROC", "Max processes"},
	{"LimitNOFILE", "Max open files"},
	{"LimitMEMLOCK", "Max locked memory"},
	{"LimitAS", "Max address space"},
	{"LimitLOCKS", "Max file locks"},
	{"LimitSIGPENDING", "Max pending signals"},
	{"LimitMSGQUEUE", "Max msgqueue size"},
	{"LimitNICE", "Max nice priority"},
	{"LimitRTPRIO", "Max realtime priority"},
	{"LimitRTTIME", "Max realtime timeout"},
}

// driftOfLimits compares the resource limits.
func driftOfLimits(u loaded, p process) Finding {
	const name = "limits"
	now, err := p.read("limits")
	if err != nil {
		return unseen(name, err)
	}
	bound := p.manager().bound()
	var differ []string
	for _, limit := range resourceLimits {
		hard, hardOK := parseLimit(u.values[limit.property])
		soft, softOK := parseLimit(u.values[limit.property+"Soft"])
		nowSoft, nowHard, ok := limitOf(now, limit.name)
		if !ok || !hardOK || !softOK {
			continue
		}
		if _, most, ok := limitOf(bound, limit.name); ok {
			hard, soft = min(hard, most), min(soft, most) // as systemd does then
		}
		// A program may raise its soft limits, as the Go runtime does with that of
		// descriptors; what it starts has those from before.
		if hard == nowHard && soft <= nowSoft {
			continue
		}
		differ = append(differ, fmt.Sprintf("%s=%v:%v, the process has %v:%v", limit.property, soft, hard, nowSoft, nowHard))
	}
	if len(differ) > 0 {
		return Finding{name, FindingWarning, fmt.Sprintf("%s says %s", u.name, strings.Join(differ, "; ")), hintRestart}
	}
	return Finding{name, FindingOK, fmt.Sprintf("process %d has the resource limits of %s", p, u.name), ""}
}

// limit is the value of a resource limit.
type limit uint64

func (l limit) String() string {
	if l == math.MaxUint64 {
		return "infinity"
	}
	return strconv.FormatUint(uint64(l), 10)
}

// parseLimit reads a value as systemd prints it, or the kernel.
func parseLimit(s string) (limit, bool) {
	if s == "infinity" || s == "unlimited" {
		return math.MaxUint64, true
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return limit(n), err == nil
}

// limitOf finds a line in the text of a limits file.
func limitOf(text, name string) (soft, hard limit, ok bool) {
	for line := range strings.Lines(text) {
		rest, found := strings.CutPrefix(line, name+" ")
		if fields := strings.Fields(rest); found && len(fields) >= 2 {
			soft, softOK := parseLimit(fields[0])
			hard, hardOK := parseLimit(fields[1])
			return soft, hard, softOK && hardOK
		}
	}
	return 0, 0, false
}

// bound returns the limits file of a manager that cannot give more to a service
// than it has itself, or "": one of a user, or in a container. The kernel demands
// CAP_SYS_RESOURCE in the first user namespace: getrlimit(2).
func (p process) bound() string {
	const sysResource = 24 // linux/capability.h
	status, err := p.status()
	if err != nil {
		return ""
	}
	caps, err := strconv.ParseUint(status["CapEff"], 16, 64)
	if err != nil {
		return ""
	}
	users, err := p.read("uid_map")
	first := err != nil || slices.Equal(strings.Fields(users), []string{"0", "0", "4294967295"})
	if caps&(1<<sysResource) != 0 && first {
		return ""
	}
	limits, err := p.read("limits")
	if err != nil {
		return ""
	}
	return limits
}
