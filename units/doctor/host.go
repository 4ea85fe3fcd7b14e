package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// The least versions.
const (
	minKernelMajor, minKernelMinor = 5, 10
	minSystemd                     = 252
	minNotifyReload                = 253
)

// Host returns what there is to say about the host, whatever services it has.
func (s System) Host(ctx context.Context) []control.Check {
	checks := []control.Check{s.kernel()}
	checks = append(checks, s.manager(ctx)...)
	checks = append(checks, s.cgroups(), s.bus(), s.runDir(), s.backlog(), s.files())
	checks = append(checks, s.selinux()...)
	checks = append(checks, s.apparmor(), s.needrestart())
	checks = append(checks, s.unattended()...)
	if s.User {
		checks = append(checks, s.lingering())
	}
	return checks
}

// kernel wants pidfds that can be polled, and what else came with them.
func (s System) kernel() control.Check {
	const name = "kernel"
	release, err := s.read("/proc/sys/kernel/osrelease")
	if err != nil {
		return unseen(name, err)
	}
	major, rest, _ := strings.Cut(release, ".")
	minor := rest
	if i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		minor = rest[:i]
	}
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	switch {
	case errA != nil || errB != nil:
		return warn(name, "Linux 5.10 or later is needed", "the version of the kernel is not understood: %s", release)
	case a < minKernelMajor || a == minKernelMajor && b < minKernelMinor:
		return fail(name, "Linux 5.10 or later is needed: an old generation watches the new one by pidfd_open(2)", "Linux %s is too old", release)
	}
	return good(name, "Linux %s", release)
}

// manager looks at PID 1, and asks systemd, or that of the user, for its version.
func (s System) manager(ctx context.Context) []control.Check {
	const name = "systemd"
	comm, err := s.read(proc(1, "comm"))
	container := ""
	if kind, err := s.read("/run/systemd/container"); err == nil && kind != "" {
		container = " in a container (" + kind + ")"
	}
	if err == nil && comm != "systemd" && !s.exists("/run/systemd/system") {
		return []control.Check{warn(
			name, "services are upgraded all the same, unless one is itself PID 1 of a container; their sockets are gone when they stop",
			"PID 1 is %s%s, not systemd: nobody holds the sockets of a service that stops", comm, container,
		)}
	}
	if s.Show == nil {
		return []control.Check{warn(name, "", "systemd was not asked")}
	}
	version, text, err := units.SystemdVersion(ctx, s.Show)
	if err != nil {
		return []control.Check{s.unanswered(name, err)}
	}
	switch {
	case version == 0:
		return []control.Check{warn(name, "systemd 252 or later is needed", "the version of systemd is not understood: %s", text)}
	case version < minSystemd:
		return []control.Check{warn(name, "systemd 252 or later is what handoffs are tested with", "systemd %s is older than what is tested", text)}
	case version < minNotifyReload:
		return []control.Check{good(name, "systemd %s%s; units with Type=notify-reload need 253", text, container)}
	}
	return []control.Check{good(name, "systemd %s%s", text, container)}
}

// unanswered is the finding where systemd cannot be asked.
func (s System) unanswered(name string, err error) control.Check {
	hint := "is there a D-Bus, and may you use it? As root it is not needed"
	if s.User {
		hint = "is your service manager running, and XDG_RUNTIME_DIR set? See user@.service(5)"
	}
	return warn(name, hint, "systemd cannot be asked, so nothing about units was looked at: %v", err)
}

// cgroups looks which hierarchy there is.
func (s System) cgroups() control.Check {
	const name = "cgroup"
	switch {
	case s.exists("/sys/fs/cgroup/cgroup.controllers"):
		return good(name, "cgroup v2")
	case s.exists("/sys/fs/cgroup/unified/cgroup.procs"), s.exists("/sys/fs/cgroup/systemd/cgroup.procs"):
		return warn(
			name, "systemd.unified_cgroup_hierarchy=1 on the kernel command line; systemd 256 and later does not boot without",
			"the old cgroup hierarchy: MemoryMax= and TasksMax= are not looked at before an upgrade, and a unit's processes may be missed",
		)
	}
	return warn(name, "mount -t cgroup2 cgroup2 /sys/fs/cgroup", "no cgroup hierarchy is mounted")
}

// bus looks for the way to systemd for those who are not root.
func (s System) bus() control.Check {
	const name = "dbus"
	if s.exists("/run/dbus/system_bus_socket") {
		return good(name, "the system bus is there")
	}
	if !s.exists("/run/systemd/system") {
		return good(name, "it is not needed without systemd")
	}
	return warn(name, "systemctl start dbus.socket", "there is no system bus: only root can ask systemd")
}

// runDir looks who could put a control socket of his own in the place of another.
func (s System) runDir() control.Check {
	const name = "rundir"
	dir := s.RunDir
	if dir == "" {
		dir = control.RunDir
	}
	info, err := os.Stat(s.path(dir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return good(name, "%s is not there yet: no service has made it", dir)
	case err != nil:
		return unseen(name, s.shorten(err))
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fail(name, "chmod go-w "+dir, "%s has mode %04o: others could put a control socket there, and pretend to be a service", dir, mode)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && !s.User && s.Root == "" && st.Uid != 0 {
		return fail(name, "chown root:root "+dir, "%s belongs to user %d, who could pretend to be a service", dir, st.Uid)
	}
	return good(name, "%s is as it should be", dir)
}

// leastBacklog is what systemd and Linux have had as a default since 2019.
const leastBacklog = 1024

// backlog looks at the bound of what waits in a socket while nobody accepts.
func (s System) backlog() control.Check {
	const name, path = "backlog", "/proc/sys/net/core/somaxconn"
	n, err := s.number(path)
	switch {
	case err != nil:
		return unseen(name, err)
	case n < leastBacklog:
		return warn(
			name, "sysctl net.core.somaxconn=4096",
			"at most %d connections wait in a socket (net.core.somaxconn): during a restart, more clients are refused", n,
		)
	}
	return good(name, "up to %d connections wait in a socket while nobody accepts", n)
}

// leastFiles is what a process can have as its limit, at least.
const leastFiles = 65536

// files looks at the descriptors of the whole machine: two generations have twice
// as many for a while.
func (s System) files() control.Check {
	const name = "files"
	perProcess, err := s.number("/proc/sys/fs/nr_open")
	if err != nil {
		return unseen(name, err)
	}
	most, err := s.number("/proc/sys/fs/file-max")
	if err != nil {
		return unseen(name, err)
	}
	used, err := s.number("/proc/sys/fs/file-nr")
	if err != nil {
		return unseen(name, err)
	}
	switch {
	case used > most/2:
		return warn(
			name, "sysctl fs.file-max",
			"%d of %d open files of the machine are in use (fs.file-max): two generations at a time may need more", used, most,
		)
	case perProcess < leastFiles:
		return warn(name, "sysctl fs.nr_open", "no LimitNOFILE= can be above %d (fs.nr_open)", perProcess)
	}
	return good(name, "%d of %s open files of the machine are in use", used, unlimited(most))
}

// unlimited is a number, or that it is so large that there is none.
func unlimited(n int64) string {
	if n >= 1<<62 {
		return "unlimited"
	}
	return strconv.FormatInt(n, 10)
}
