package doctor_test

import (
	"errors"
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/units/doctor"
)

// healthy is a host with nothing to complain about.
var healthy = files{
	"/proc/1/comm":                           "systemd\n",
	"/proc/sys/kernel/osrelease":             "6.1.0-18-amd64\n",
	"/proc/sys/net/core/somaxconn":           "4096\n",
	"/proc/sys/fs/nr_open":                   "1048576\n",
	"/proc/sys/fs/file-max":                  "9223372036854775807\n",
	"/proc/sys/fs/file-nr":                   "1234\t0\t9223372036854775807\n",
	"/sys/fs/cgroup/cgroup.controllers":      "cpu memory pids\n",
	"/run/dbus/system_bus_socket":            "",
	"/run/systemd/system/keep":               "",
	"/proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
}

func manager(version string) properties {
	return properties{"": {"Version": version}}
}

func TestHost(t *testing.T) {
	leak.Check(t)
	const (
		needrestart  = "/etc/needrestart/needrestart.conf"
		snippet      = "/etc/needrestart/conf.d/handoff.conf"
		unattended   = "/usr/bin/unattended-upgrade"
		periodic     = "/etc/apt/apt.conf.d/20auto-upgrades"
		enforce      = "/sys/fs/selinux/enforce"
		profiles     = "/sys/kernel/security/apparmor/profiles"
		switchedOn   = "APT::Periodic::Unattended-Upgrade \"1\";\n"
		automatic    = "$nrconf{restart} = 'a';\n"
		snippetLines = "# as shipped\nfor my $s (glob '/run/handoff/*') { }\n"
	)
	for _, tt := range []struct {
		name  string
		files files
		show  properties
		check string
		want  string // the beginning of the finding; "": there is none
	}{
		{"kernel", nil, nil, "kernel", "ok: Linux 6.1.0-18-amd64"},
		{"least kernel", files{"/proc/sys/kernel/osrelease": "5.10.0"}, nil, "kernel", "ok"},
		{"old kernel", files{"/proc/sys/kernel/osrelease": "5.4.0-generic"}, nil, "kernel", "failed: Linux 5.4.0-generic is too old"},
		{"older kernel", files{"/proc/sys/kernel/osrelease": "4.19.0"}, nil, "kernel", "failed"},
		{"odd kernel", files{"/proc/sys/kernel/osrelease": "six"}, nil, "kernel", "warning: the version of the kernel is not understood"},
		{"no /proc", files{"/proc/sys/kernel/osrelease": "deleted"}, nil, "kernel", "warning: not looked at: open /proc/sys/kernel/osrelease"},

		{"systemd", nil, manager("257.9-1~deb13u1"), "systemd", "ok: systemd 257.9-1~deb13u1"},
		{"systemd 252", nil, manager("252.38-1~deb12u1"), "systemd", "ok: systemd 252.38-1~deb12u1; units with Type=notify-reload need 253"},
		{"newest systemd", nil, manager("v262~rc1"), "systemd", "ok: systemd v262~rc1"},
		{"old systemd", nil, manager("249.11"), "systemd", "warning: systemd 249.11 is older than what is tested"},
		{"odd systemd", nil, manager("next"), "systemd", "warning: the version of systemd is not understood: next"},
		{"deaf systemd", nil, nil, "systemd", "warning: systemd cannot be asked, so nothing about units was looked at: no systemd here"},
		{"container", files{"/run/systemd/container": "systemd-nspawn\n"}, manager("257"), "systemd", "ok: systemd 257 in a container (systemd-nspawn)"},
		{"no systemd", files{"/proc/1/comm": "tini\n", "/run/systemd/system/keep": "deleted"}, nil, "systemd", "warning: PID 1 is tini, not systemd"},

		{"cgroup v2", nil, nil, "cgroup", "ok: cgroup v2"},
		{"hybrid", files{"/sys/fs/cgroup/cgroup.controllers": "deleted", "/sys/fs/cgroup/unified/cgroup.procs": ""}, nil, "cgroup", "warning: the old cgroup hierarchy"},
		{"no cgroup", files{"/sys/fs/cgroup/cgroup.controllers": "deleted"}, nil, "cgroup", "warning: no cgroup hierarchy"},
		{"no bus", files{"/run/dbus/system_bus_socket": "deleted"}, nil, "dbus", "warning: there is no system bus"},
		{"backlog", nil, nil, "backlog", "ok: up to 4096"},
		{"short backlog", files{"/proc/sys/net/core/somaxconn": "128\n"}, nil, "backlog", "warning: at most 128 connections"},
		{"files", nil, nil, "files", "ok: 1234 of unlimited"},
		{"many files", files{"/proc/sys/fs/file-max": "2000"}, nil, "files", "warning: 1234 of 2000"},
		{"low nr_open", files{"/proc/sys/fs/nr_open": "1024"}, nil, "files", "warning: no LimitNOFILE= can be above 1024"},
		{"odd file-max", files{"/proc/sys/fs/file-max": "18446744073709551615"}, nil, "files", "ok: 1234 of unlimited"},
		{"no number", files{"/proc/sys/fs/file-max": "x"}, nil, "files", "warning: not looked at: /proc/sys/fs/file-max has \"x\""},
		{"no run directory", nil, nil, "rundir", "ok: /run/handoff is not there yet"},
		{"run directory", files{"/run/handoff/app/x": ""}, nil, "rundir", "ok: /run/handoff is as it should be"},

		{"no SELinux", nil, nil, "selinux", "ok: there is none"},
		{"permissive", files{enforce: "0"}, nil, "selinux", "ok: permissive"},
		{"enforcing", files{enforce: "1"}, nil, "selinux", "ok: enforcing; /usr/bin/hdctl is labelled bin_t"},
		{"no AppArmor", nil, nil, "apparmor", "ok: there is none"},
		{"AppArmor", files{profiles: "/usr/sbin/ntpd (enforce)\nlsb_release (complain)\n"}, nil, "apparmor", "ok: 1 profile enforced, none for hdctl"},
		{"hdctl confined", files{profiles: "/usr/bin/hdctl (enforce)\n"}, nil, "apparmor", "warning: the profile /usr/bin/hdctl is enforced for hdctl"},
		{"hdctl complains", files{profiles: "/usr/bin/hdctl (complain)\n"}, nil, "apparmor", "ok"},
		{"no profiles", files{profiles: ""}, nil, "apparmor", "ok: no profiles"},

		{"no needrestart", nil, nil, "needrestart", "ok: it is not installed"},
		{"needrestart", files{needrestart: "#$nrconf{restart} = 'a';\n"}, nil, "needrestart", "warning: it offers to restart services"},
		{"needrestart by itself", files{needrestart: automatic}, nil, "needrestart", "failed: it restarts services by itself"},
		{"needrestart by itself elsewhere", files{needrestart: "", "/etc/needrestart/conf.d/50local.conf": automatic}, nil, "needrestart", "failed"},
		{"needrestart with the snippet", files{needrestart: automatic, snippet: snippetLines}, nil, "needrestart", "ok: it leaves services alone"},
		{"needrestart with a comment", files{needrestart: automatic, snippet: "# /run/handoff\n"}, nil, "needrestart", "failed"},

		{"no unattended upgrades", files{periodic: switchedOn}, nil, "unattended-upgrades", ""},
		{"unattended upgrades off", files{unattended: "", periodic: "// " + switchedOn}, nil, "unattended-upgrades", "ok: it is installed, but not switched on"},
		{"unattended upgrades off later", files{unattended: "", periodic: switchedOn, "/etc/apt/apt.conf.d/99local": "APT::Periodic::Unattended-Upgrade \"0\";"}, nil, "unattended-upgrades", "ok: it is installed, but not"},
		{"unattended upgrades", files{unattended: "", periodic: switchedOn}, nil, "unattended-upgrades", "ok: packages are upgraded by themselves"},
		{"unattended upgrades and needrestart", files{unattended: "", periodic: switchedOn, needrestart: ""}, nil, "unattended-upgrades", "warning: packages are upgraded by themselves, and then needrestart"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := doctor.System{Root: healthy.with(tt.files).root(t), Show: tt.show.show, Hdctl: "/usr/bin/hdctl"}
			s = s.WithLabel(func(string) (string, error) { return "system_u:object_r:bin_t:s0", nil })
			got := find(t, s.Host(t.Context()), tt.check)
			if tt.want == "" {
				assert.Empty(t, got)
				return
			}
			assert.Regexp(t, "^"+regexp.QuoteMeta(tt.want), got)
		})
	}
}

// A host without a fault has no warning; and one whose services are a user's has one
// thing more to look at.
func TestHealthyHost(t *testing.T) {
	leak.Check(t)
	s := doctor.System{Root: healthy.root(t), Show: manager("257.9").show}
	assert.Empty(t, bad(s.Host(t.Context())))
	assert.Empty(t, find(t, s.Host(t.Context()), "linger"))

	s.User, s.UserName = true, "ann"
	assert.Contains(t, find(t, s.Host(t.Context()), "linger"), "warning: the service manager of ann ends with the last login, and all services with it")
	s.Root = healthy.with(files{"/etc/systemd/logind.conf": "[Login]\n#KillUserProcesses=no\nKillUserProcesses=yes\n"}).root(t)
	assert.Contains(t, find(t, s.Host(t.Context()), "linger"), "(KillUserProcesses=)")
	s.Root = healthy.with(files{"/var/lib/systemd/linger/ann": ""}).root(t)
	assert.Equal(t, "ok: the services of ann go on after a logout", find(t, s.Host(t.Context()), "linger"))
	s.UserName = ""
	assert.Contains(t, find(t, s.Host(t.Context()), "linger"), "warning: not looked at")
}

// Who can write into the directory of control sockets can pretend to be a service.
func TestRunDirectoryMode(t *testing.T) {
	leak.Check(t)
	root := healthy.with(files{"/run/handoff/app/x": ""}).root(t)
	s := doctor.System{Root: root}
	require.NoError(t, os.Chmod(root+"/run/handoff", 0o775))
	assert.Contains(t, find(t, s.Host(t.Context()), "rundir"), "failed: /run/handoff has mode 0775")
}

// A program with the label of a home directory is one that systemd cannot execute.
func TestLabels(t *testing.T) {
	leak.Check(t)
	root := healthy.with(files{"/sys/fs/selinux/enforce": "1"}).root(t)
	for label, want := range map[string]string{
		"system_u:object_r:bin_t:s0":            "ok",
		"system_u:object_r:httpd_exec_t:s0":     "ok",
		"unconfined_u:object_r:user_home_t:s0":  "failed",
		"unconfined_u:object_r:admin_home_t:s0": "failed",
		"unconfined_u:object_r:user_tmp_t:s0":   "failed",
		"system_u:object_r:tmp_t:s0":            "failed",
		"system_u:object_r:default_t:s0":        "failed",
	} {
		s := doctor.System{Root: root, Hdctl: "/usr/bin/hdctl"}.WithLabel(func(string) (string, error) { return label, nil })
		assert.Regexp(t, "^"+want, find(t, s.Host(t.Context()), "selinux"), label)
	}
	s := doctor.System{Root: root, Hdctl: "/usr/bin/hdctl"}.WithLabel(func(string) (string, error) { return "", errors.New("no such attribute") })
	assert.Equal(t, "warning: not looked at: the label of /usr/bin/hdctl: no such attribute", find(t, s.Host(t.Context()), "selinux"))
}
