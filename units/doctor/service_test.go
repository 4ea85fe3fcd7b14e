package doctor_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/units/doctor"
	"github.com/hdctl/handoff/upgrade/control"
)

const tcpHeader = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

// serving is a host with the process 42 of a service: it listens on port 8080 of all
// addresses, 9090 of IPv4, and its control socket.
var serving = healthy.with(files{
	"/proc/42/status": "Name:\tapp\nThreads:\t12\n",
	"/proc/42/limits": "Limit                     Soft Limit           Hard Limit           Units\nMax open files            1024                 524288               files\n",
	"/proc/42/fd/0":   "-> /dev/null",
	"/proc/42/fd/3":   "-> socket:[100]",
	"/proc/42/fd/4":   "-> socket:[101]",
	"/proc/42/fd/5":   "-> socket:[102]",
	"/proc/42/fd/6":   "-> socket:[103]",
	"/proc/42/net/tcp": tcpHeader +
		"   0: 0100007F:2382 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 101 1 0 100 0 0 10 0\n" +
		"   1: 0100007F:2382 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 103 1 0 100 0 0 10 0\n" +
		"   2: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 999 1 0 100 0 0 10 0\n",
	"/proc/42/net/tcp6": tcpHeader +
		"   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0 100 0 0 10 0\n",
	"/proc/42/net/unix": "Num       RefCount Protocol Flags    Type St Inode Path\n" +
		"0: 00000002 00000000 00010000 0001 01 102 /run/handoff/app/control.sock\n",
	"/usr/bin/hdctl": "hdctl",
})

// install adds the units that hdctl unit generate writes to f, with something in them
// replaced.
func install(t *testing.T, f files, replace ...string) files {
	t.Helper()
	rendered, err := units.Service{
		Name: "app", Exec: "/usr/bin/app",
		Sockets: []units.Socket{{Name: "http", Listen: []units.Listen{{Address: "8080"}}}},
	}.Render()
	require.NoError(t, err)
	all := maps.Clone(f)
	for name, content := range rendered {
		text := string(content)
		for pair := range slices.Chunk(replace, 2) {
			text = strings.ReplaceAll(text, pair[0], pair[1])
		}
		all["/etc/systemd/system/"+name] = text
	}
	return all
}

// goodUnit is what systemd says of them.
func goodUnit() properties {
	return properties{
		"": {"Version": "257"},
		"app.service": {
			"Id": "app.service", "LoadState": "loaded", "ActiveState": "active", "FragmentPath": "/etc/systemd/system/app.service",
			"ExecReload":       "{ path=/usr/bin/hdctl ; argv[]=/usr/bin/hdctl upgrade --queue app ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }",
			"TimeoutStartUSec": "1min 30s", "TimeoutStopUSec": "25s", "WatchdogUSec": "0", "TriggeredBy": "app.socket app.timer",
			"TasksMax": "100", "TasksCurrent": "12", "MemoryMax": "infinity", "MemoryHigh": "infinity",
		},
		"app.socket": {"LoadState": "loaded", "ActiveState": "active", "FragmentPath": "/etc/systemd/system/app.socket"},
	}
}

// change returns the properties with some of a unit changed.
func (p properties) change(unit string, values map[string]string) properties {
	p[unit] = maps.Clone(p[unit])
	maps.Copy(p[unit], values)
	return p
}

func goodStatus() *control.Status {
	return &control.Status{
		APIVersion: control.APIVersion, Library: "v1.4.0", Service: "app", Main: 3, State: control.StateServing, Invocation: "x",
		Generations: []control.Generation{{Number: 3, PID: 42, State: control.StateServing, Main: true, RSS: 40 << 20, Executable: "/usr/bin/app"}},
		Sockets: []control.Socket{
			{Name: "http", Network: "tcp", Address: "[::]:8080", Claimed: true},
			{Name: "admin", Network: "tcp", Address: "127.0.0.1:9090", Claimed: true},
		},
		Disk:    &control.Disk{Path: "/usr/bin/app", State: control.DiskSame},
		Options: control.Settings{ReadyTimeout: 30, Probation: 2, DrainTimeout: 600, StopTimeout: 20, MaxDraining: 8, Overflow: "hurry-oldest"},
	}
}

func system(t *testing.T, f files, p properties) doctor.System {
	if f["/etc/systemd/system/app.service"] == "" {
		f = install(t, f)
	}
	return doctor.System{Root: f.root(t), Show: p.show, Hdctl: "/usr/bin/hdctl", Version: "v1.4.0"}
}

func TestHealthyService(t *testing.T) {
	leak.Check(t)
	s := system(t, serving, goodUnit())
	s.Drift = func(_ context.Context, unit string, pid int) ([]control.Check, error) {
		assert.Equal(t, "app.service", unit)
		assert.Equal(t, 42, pid)
		return []control.Check{{Name: "environment", Result: control.CheckOK, Message: "the same"}}, nil
	}
	checks := s.Service(t.Context(), "app.service", goodStatus())
	assert.Empty(t, bad(checks))
	assert.Equal(t, "ok: the same", find(t, checks, "environment"))
	assert.Equal(t, "ok: process 42 waits for clients in no socket but those that it hands on", find(t, checks, "own-sockets"))
}

// What a service says of itself.
func TestStatus(t *testing.T) {
	leak.Check(t)
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	for _, tt := range []struct {
		name   string
		change func(*control.Status)
		check  string
		want   string
	}{
		{"stopping", func(s *control.Status) { s.Stopping = true }, "state", "failed: the service is being stopped"},
		{"held", func(s *control.Status) { s.Held = &control.Hold{Since: at} }, "state", "warning: its door is closed since 2026-03-01 12:00:00"},
		{"upgrading", func(s *control.Status) { s.Upgrade = &control.Progress{From: 3, To: 4, Phase: "probation"} }, "state", "warning: an upgrade from generation 3 to 4 is in progress (probation)"},
		{"starting", func(s *control.Status) { s.State = control.StateStarting }, "state", "failed: generation 3 is starting"},
		{"paused", func(s *control.Status) {
			s.Paused = &control.Pause{Since: at, Trigger: control.Trigger{Reason: "freeze"}}
		}, "paused", "warning: upgrades are refused since 2026-03-01 12:00:00: freeze"},
		{"no disk", func(s *control.Status) { s.Disk = nil }, "disk", "warning: the service does not say"},
		{"disk differs", func(s *control.Status) {
			s.Disk.State = control.DiskDiffers
			s.Generations[0].Executable = "/usr/bin/app (deleted)"
		}, "disk", "warning: /usr/bin/app is another file than the one that runs: a restart would start it untried, and the file that runs is deleted"},
		{"disk failed", func(s *control.Status) { s.Disk.State, s.Disk.Failed = control.DiskDiffers, true }, "disk", "failed: /usr/bin/app is the file with which the last upgrade failed: a restart would start it"},
		{"disk missing", func(s *control.Status) { s.Disk.State = control.DiskMissing }, "disk", "failed: /usr/bin/app is missing: neither"},
		{"not executable", func(s *control.Status) { s.Disk.State, s.Disk.Detail = control.DiskNotExecutable, "mode 0644" }, "disk", "failed: /usr/bin/app is not executable: mode 0644: neither"},
		{"disk unknown", func(s *control.Status) { s.Disk.State = control.DiskUnknown }, "disk", "warning: whether /usr/bin/app is what runs is not known"},
		{"last failed", func(s *control.Status) {
			s.Last = &control.Record{Time: at, Result: control.Result{Outcome: control.OutcomeFellBack, From: 3, To: 4, Error: control.Errorf("x", "it died")}}
		}, "last", "warning: the last upgrade (3 -> 4, 2026-03-01 12:00:00) was fell-back: it died"},
		{"last confirmed", func(s *control.Status) {
			s.Last = &control.Record{Time: at, Result: control.Result{Outcome: control.OutcomeConfirmed, From: 2, To: 3}}
		}, "last", "ok: the last upgrade (2 -> 3, 2026-03-01 12:00:00) was confirmed"},
		{"unclaimed", func(s *control.Status) { s.Sockets[1].Claimed = false }, "sockets", "warning: the socket admin (tcp 127.0.0.1:9090) is passed to the service, which does not serve it"},
		{"PID file", func(s *control.Status) { s.Options.PIDFile = "/run/app.pid" }, "pid-file", "warning: a PID file is kept (/run/app.pid)"},
		{"warnings", func(s *control.Status) { s.Warnings = []string{"one thing", "another"} }, "service", "warning: one thing\nwarning: another"},
		{"no deadline", func(s *control.Status) { s.Options.DrainTimeout = 0 }, "drain", "warning: drains have no deadline: an old version stays as long as its last client, and after 8 of them the oldest is hurried"},
		{"drains for ever", func(s *control.Status) {
			s.Generations = append(s.Generations, control.Generation{Number: 2, State: control.StateDraining, Conns: control.Counts{Total: 7}})
		}, "drain", "warning: generation 2 drains without a deadline, with 7 connections"},
		{"too many", func(s *control.Status) {
			s.Options.MaxDraining, s.Options.Overflow = 1, "refuse"
			s.Generations = append(s.Generations, control.Generation{Number: 2, State: control.StateDraining, Deadline: at})
		}, "drain", "failed: 1 generation draining, which is the limit: the next upgrade is refused"},
		{"at the limit", func(s *control.Status) {
			s.Options.MaxDraining = 1
			s.Generations = append(s.Generations, control.Generation{Number: 2, State: control.StateDraining, Deadline: at})
		}, "drain", "warning: 1 generation draining, which is the limit: the oldest is hurried"},
		{"drains", nil, "drain", "ok: old generations have 10m0s for their connections; 0 of at most 8 drain"},
		{"newer API", func(s *control.Status) { s.APIVersion = 99 }, "library", "warning: the service speaks version 99 of the control API (library v1.4.0), this hdctl only"},
		{"newer library", func(s *control.Status) { s.Library = "v1.10.0" }, "library", "warning: hdctl has version v1.4.0 of the library, the service has v1.10.0"},
		{"older library", func(s *control.Status) { s.Library = "v1.3.9" }, "library", "warning: the running service has version v1.3.9 of the library, hdctl has v1.4.0"},
		{"a working copy", func(s *control.Status) { s.Library = "(devel)" }, "library", "ok: version (devel)"},
		{"a pseudo-version", func(s *control.Status) { s.Library = "v0.0.0-20260101000000-abcdef012345" }, "library", "ok: version v0.0.0-2026"},
		{"old generation gone", func(s *control.Status) {
			s.Generations = append(s.Generations, control.Generation{Number: 2, PID: 41, State: control.StateDraining, Deadline: at})
		}, "library", "ok: version v1.4.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := goodStatus()
			if tt.change != nil {
				tt.change(st)
			}
			got := find(t, system(t, serving, goodUnit()).Service(t.Context(), "app.service", st), tt.check)
			assert.Regexp(t, "^"+regexp.QuoteMeta(tt.want), got)
		})
	}
}

// What systemd has loaded.
func TestSettings(t *testing.T) {
	leak.Check(t)
	with := func(key, value string) properties {
		return goodUnit().change("app.service", map[string]string{key: value})
	}
	reload := func(command string) properties {
		path, _, _ := strings.Cut(command, " ")
		return with("ExecReload", "{ path="+path+" ; argv[]="+command+" ; ignore_errors=no ; start_time=[n/a] }")
	}
	for _, tt := range []struct {
		name  string
		files files
		show  properties
		check string
		want  string
	}{
		{"good", nil, goodUnit(), "unit-files", "ok: no mistake in the 2 files of app.service and of its sockets"},
		{"mixed", install(t, files{}, "KillMode=control-group", "KillMode=mixed"), goodUnit(), "kill-mode", "failed: app.service: "},
		{"a socket that ends with the service", install(t, files{}, "[Socket]", "PartOf=app.service\n[Socket]"), goodUnit(), "part-of", "failed: app.socket: "},
		{"a warning", install(t, files{}, "OOMPolicy=continue", "OOMPolicy=stop"), goodUnit(), "oom-policy", "warning: app.service: "},
		{"a drop-in", files{"/etc/app.conf": "[Service]\nKillMode=process\n"}, with("DropInPaths", "/etc/app.conf"), "kill-mode", "failed: app.conf: "},
		{"no file", nil, with("FragmentPath", "/etc/systemd/system/gone.service"), "unit-files", "warning: not looked at: stat /etc/systemd/system/gone.service: no such file"},
		{"short start", nil, with("TimeoutStartUSec", "42s"), "deadlines", "failed: TimeoutStartSec=42s, and an upgrade may take 42s"},
		{"endless start", nil, with("TimeoutStartUSec", "infinity"), "deadlines", "ok: the times of the unit leave room for those of the service: 42s for an upgrade, 20s for a stop"},
		{"short stop", nil, with("TimeoutStopUSec", "20s"), "deadlines", "warning: TimeoutStopSec=20s, and a stop may take 20s"},
		{"watchdog", nil, with("WatchdogUSec", "10s"), "deadlines", "failed: WatchdogSec=10s, and the service does not know of it"},
		{"no reload", nil, with("ExecReload", ""), "reload", ""},
		{"reload", nil, goodUnit(), "reload", "ok: ExecReload= runs /usr/bin/hdctl, which is there"},
		{"no hdctl", nil, reload("/usr/local/bin/hdctl upgrade app"), "reload", "failed: ExecReload= runs /usr/local/bin/hdctl, which is not there"},
		{"no hdctl to stop", nil, with("ExecStop", "{ path=/opt/hdctl ; argv[]=/opt/hdctl exec-stop ; ignore_errors=no }"), "stop", "failed: ExecStop= runs /opt/hdctl, which is not there: a stop kills"},
		{"another hdctl", files{"/usr/local/bin/hdctl": "another"}, reload("/usr/local/bin/hdctl upgrade app"), "reload", "warning: ExecReload= runs /usr/local/bin/hdctl, which is another program"},
		{"the same hdctl", files{"/usr/local/bin/hdctl": "-> ../../bin/hdctl"}, reload("/usr/local/bin/hdctl upgrade app"), "reload", "ok: ExecReload= runs /usr/local/bin/hdctl, which is there"},
		{"another program", files{"/usr/bin/appctl": "x"}, reload("/usr/bin/appctl reload"), "reload", "ok"},

		{"sockets", nil, goodUnit(), "socket-units", "ok: systemd holds the sockets of app.socket"},
		{"no sockets", nil, with("TriggeredBy", ""), "socket-units", "warning: no .socket unit belongs to app.service"},
		{"stopped socket", nil, goodUnit().change("app.socket", map[string]string{"ActiveState": "inactive"}), "socket-units", "failed: app.socket is inactive"},

		{"tasks", nil, goodUnit(), "tasks", "ok: 12 of TasksMax=100, and about 12 more"},
		{"too many tasks", nil, with("TasksMax", "20"), "tasks", "failed: TasksMax=20, there are 12, and a second process needs about 12 more"},
		{"tasks not counted", nil, with("TasksCurrent", "[not set]"), "tasks", "ok: TasksMax=100 is not in force"},
		{"unknown tasks", files{"/proc/42/status": "deleted"}, goodUnit(), "tasks", "warning: TasksMax=100, and how many"},
		{"no limit of tasks", nil, with("TasksMax", "infinity"), "tasks", ""},
		{"memory", nil, with("MemoryMax", "104857600"), "memory", "ok: 40.0 MiB of MemoryMax=100.0 MiB, and up to 40.0 MiB more"},
		{"little memory", nil, with("MemoryHigh", "73400320"), "memory", "warning: MemoryHigh=70.0 MiB, 40.0 MiB are in use"},

		{"descriptors", nil, goodUnit(), "descriptors", "ok: process 42 has 5 of 1024"},
		{"few descriptors", files{"/proc/42/limits": "Max open files            16                 524288               files\n"}, goodUnit(), "descriptors", "failed: process 42 has 5 of 16 files open"},
		{"no limits", files{"/proc/42/limits": ""}, goodUnit(), "descriptors", "warning: the limit of open files"},

		{"not found", nil, properties{}, "unit", "failed: there is no app.service"},
		{"masked", nil, with("LoadState", "masked"), "unit", "failed: app.service is not loaded: masked"},
		{"deaf", nil, nil, "unit", "warning: systemd cannot be asked"},

		{"AppArmor", files{"/sys/kernel/security/apparmor/profiles": "", "/proc/42/attr/current": "app (enforce)\n"}, goodUnit(), "apparmor", "warning: process 42 is confined by the profile app"},
		{"AppArmor with another", files{"/sys/kernel/security/apparmor/profiles": "", "/proc/42/attr/current": "system_u:x", "/proc/42/attr/apparmor/current": "app (complain)\n"}, goodUnit(), "apparmor", "ok: process 42 is not confined"},
		{"unconfined", files{"/sys/module/apparmor/parameters/enabled": "Y", "/proc/42/attr/current": "unconfined\n"}, goodUnit(), "apparmor", "ok: process 42 is not confined"},
		{"SELinux", files{"/sys/fs/selinux/enforce": "1"}, goodUnit(), "selinux", "failed: enforcing, and /usr/bin/app is labelled user_home_t"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := system(t, serving.with(tt.files), tt.show)
			s = s.WithLabel(func(string) (string, error) { return "u:r:user_home_t:s0", nil })
			got := find(t, s.Service(t.Context(), "app.service", goodStatus()), tt.check)
			if tt.want == "" {
				assert.Empty(t, got)
				return
			}
			assert.Regexp(t, "^"+regexp.QuoteMeta(tt.want), got)
		})
	}
}

// Sockets that the program has bound by itself.
func TestOwnSockets(t *testing.T) {
	leak.Check(t)
	const rest = " 00000000:00000000 00:00000000 00000000     0        0 104 1 0 100 0 0 10 0\n"
	for _, tt := range []struct {
		name string
		file string
		line string
		main int
		want string
	}{
		{"tcp", "tcp", "0: 0100007F:177A 00000000:0000 0A" + rest, 1, "failed: the program listens on tcp 127.0.0.1:6010 by itself"},
		{"tcp after an upgrade", "tcp", "0: 0100007F:177A 00000000:0000 0A" + rest, 3, "warning: the program listens on tcp 127.0.0.1:6010 by itself: while two generations run"},
		{"tcp6", "tcp6", "0: 00000000000000000000000001000000:177A 00000000000000000000000000000000:0000 0A" + rest, 1, "failed: the program listens on tcp [::1]:6010"},
		{"chosen by the kernel", "tcp", "0: 0100007F:9C40 00000000:0000 0A" + rest, 1, "warning: the program listens on tcp 127.0.0.1:40000 by itself, probably on a port that the kernel chose"},
		{"connected", "tcp", "0: 0100007F:177A 0100007F:D431 01" + rest, 1, "ok"},
		{"udp", "udp", "0: 00000000:0035 00000000:0000 07" + rest, 1, "failed: the program listens on udp 0.0.0.0:53"},
		{"udp client", "udp", "0: 00000000:9C40 00000000:0000 07" + rest, 1, "ok"},
		{"udp connected", "udp", "0: 00000000:0035 0100007F:D431 01" + rest, 1, "ok"},
		{"unix", "unix", "0: 00000002 00000000 00010000 0001 01 104 /run/my app.sock\n", 1, "warning: the program listens on /run/my app.sock by itself"},
		{"abstract", "unix", "0: 00000002 00000000 00010000 0001 01 104 @app\n", 1, "failed: the program listens on unix @app"},
		{"named by the kernel", "unix", "0: 00000002 00000000 00000000 0002 01 104 @0fe54\n", 1, "ok"},
		{"unix datagrams", "unix", "0: 00000002 00000000 00000000 0002 01 104 /run/app.log\n", 1, "warning: the program listens on /run/app.log"},
		{"accepted", "unix", "0: 00000003 00000000 00000000 0001 03 104 /run/app.sock\n", 1, "ok"},
		{"somebody's", "tcp", "0: 0100007F:177A 00000000:0000 0A" + strings.Replace(rest, "104", "105", 1), 1, "ok"},
		{"garbage", "tcp", "0: 01:zz 00000000:0000 0A" + rest, 1, "ok"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			st := goodStatus()
			st.Main, st.Generations[0].Number = tt.main, tt.main
			path := "/proc/42/net/" + tt.file
			s := system(t, serving.with(files{"/proc/42/fd/9": "-> socket:[104]", path: serving[path] + tt.line}), goodUnit())
			assert.Regexp(t, "^"+regexp.QuoteMeta(tt.want), find(t, s.Service(t.Context(), "app.service", st), "own-sockets"))
		})
	}
}

// What cannot be seen is said.
func TestUnseen(t *testing.T) {
	leak.Check(t)
	s := system(t, serving.with(files{"/proc/42/fd/0": "deleted", "/proc/42/fd/3": "deleted", "/proc/42/fd/4": "deleted", "/proc/42/fd/5": "deleted", "/proc/42/fd/6": "deleted"}), goodUnit())
	s.Drift = func(context.Context, string, int) ([]control.Check, error) { return nil, errors.New("no") }
	checks := s.Service(t.Context(), "app.service", goodStatus())
	assert.Contains(t, find(t, checks, "own-sockets"), "warning: not looked at: open /proc/42/fd: no such file or directory")
	assert.Contains(t, find(t, checks, "descriptors"), "warning: not looked at")
	assert.Equal(t, "warning: not looked at: no", find(t, checks, "unit"))

	if os.Geteuid() != 0 { // root sees everything
		s := system(t, serving, goodUnit())
		require.NoError(t, os.Chmod(s.Root+"/proc/42/fd", 0))
		for _, c := range s.Service(t.Context(), "app.service", goodStatus()) {
			if c.Name == "own-sockets" {
				assert.Equal(t, "ask as root, or as the user of the service", c.Hint)
			}
		}
	}
}

// A service that does not run has a unit all the same; and one that systemd did not
// start has none.
func TestPartsOfService(t *testing.T) {
	leak.Check(t)
	s := system(t, install(t, serving, "KillMode=control-group", "KillMode=mixed"), goodUnit().change("app.service", map[string]string{"ActiveState": "inactive"}))
	checks := s.Service(t.Context(), "app.service", nil)
	assert.Contains(t, find(t, checks, "unit"), "warning: app.service is inactive: only the unit was looked at")
	assert.Contains(t, find(t, checks, "kill-mode"), "failed")
	assert.Empty(t, find(t, checks, "state"))

	checks = system(t, serving, goodUnit()).Service(t.Context(), "app.service", nil)
	assert.Equal(t, []string{"unit: warning: app.service runs, but nothing is known of it: only the unit was looked at"}, bad(checks))

	checks = s.Service(t.Context(), "", goodStatus())
	assert.Contains(t, find(t, checks, "unit"), "warning: systemd has not started the service")
	assert.Empty(t, find(t, checks, "kill-mode"))
	assert.Contains(t, find(t, checks, "state"), "ok")
}

func TestOlder(t *testing.T) {
	leak.Check(t)
	for _, pair := range [][2]string{{"v1.2.3", "v1.2.4"}, {"v1.9.0", "v1.10.0"}, {"v0.9.9", "v1.0.0"}} {
		assert.True(t, doctor.Older(pair[0], pair[1]), pair)
		assert.False(t, doctor.Older(pair[1], pair[0]), pair)
	}
	for _, pair := range [][2]string{{"v1.2.3", "v1.2.3"}, {"", "v1.0.0"}, {"(devel)", "v1.0.0"}, {"v1.0.0-rc1", "v1.0.0"}, {"1.0.0", "v2.0.0"}} {
		assert.False(t, doctor.Older(pair[0], pair[1]), pair)
	}
}
