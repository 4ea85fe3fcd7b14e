package units_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/units"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { leak.Main(m) }

func http8080() units.Socket {
	return units.Socket{Name: "http", Listen: []units.Listen{{Address: "8080"}}}
}

// versions are those of Debian 12, of Debian 13, and the newest.
var versions = []int{252, 257, 262}

// examples are rendered into testdata/NAME/, and checked by systemd-analyze.
func examples() map[string]units.Service {
	all := map[string]units.Service{
		"minimal": {Name: "app", Exec: "/usr/bin/app", Sockets: []units.Socket{http8080()}},
		"full": {
			Name: "app", Description: `100% "app"`, Exec: "/opt/my app/bin", Args: []string{"--name", "a b", "", "$HOME", "50%", `"\'`, ";"},
			Environment: []units.Variable{{"GOMAXPROCS", "2"}, {"GREETING", `say "hello" $USER 100%`}},
			User:        "app", Group: "www-data", OperatorGroup: "adm", Watchdog: 30 * time.Second, Hdctl: "/opt/bin/hdctl",
			ReadyTimeout: 2 * time.Minute, Probation: units.None, DrainTimeout: units.None, StopTimeout: 1500 * time.Millisecond, MaxDraining: 3,
			Sockets: []units.Socket{
				{Name: "admin", Listen: []units.Listen{{Address: "/run/app-admin.sock"}, {Address: "@app%x"}}, Mode: 0o660, User: "app", Group: "adm"},
				{Name: "http", Listen: []units.Listen{{Address: "127.0.0.1:8080"}, {Address: "[::1]:8080"}}},
				{Name: "dgram", Listen: []units.Listen{{units.Datagram, "5353"}}},
				{Name: "seq", Listen: []units.Listen{{units.Sequential, "/run/app.seq"}}},
			},
		},
		"dynamic-user": {Name: "app", Exec: "/usr/bin/app", DynamicUser: true, Sockets: []units.Socket{http8080()}},
		"user-manager": {Name: "app", Exec: "/usr/bin/app", UserManager: true, Sockets: []units.Socket{http8080()}},
		"options": {
			Name: "app", Exec: "/usr/bin/app", Sockets: []units.Socket{http8080()}, Watchdog: 4 * time.Second,
			DrainDelay: time.Minute, DrainSpread: units.None, HangTimeout: time.Second, StageTimeout: time.Hour, Overflow: units.Refuse,
			Check: []string{"/usr/bin/app", "-t", "50%"}, AllowBinary: true, NoMigration: true,
			Command: []string{"hdctl", "unit", "generate", "app", "--listen=http=8080", "--description=it's", "--exec=/usr/bin/app"},
		},
		"strict-operators": {Name: "app", Exec: "/usr/bin/app", Profile: units.Strict, OperatorGroup: "adm", Sockets: []units.Socket{http8080()}},
		"strict-user":      {Name: "app", Exec: "/usr/bin/app", Profile: units.Strict, User: "app", Sockets: []units.Socket{http8080()}},
		"strict-unix": {Name: "app", Exec: "/usr/bin/app", Profile: units.Strict, Systemd: units.MinSystemd, Sockets: []units.Socket{
			{Name: "http", Listen: []units.Listen{{Address: "/run/app.sock"}}},
		}},
	}
	for _, profile := range []units.Profile{units.Plain, units.Strict} {
		for _, version := range versions {
			for _, user := range []bool{false, true} {
				for _, notify := range []bool{false, true} {
					if notify && version < 253 {
						continue
					}
					name := fmt.Sprintf("%s-%d", profile, version)
					if user {
						name += "-user"
					}
					if notify {
						name += "-notify"
					}
					all[name] = units.Service{
						Name: "app", Exec: "/usr/bin/app", Sockets: []units.Socket{http8080()},
						Profile: profile, Systemd: version, UserManager: user, NotifyReload: notify,
					}
				}
			}
		}
	}
	return all
}

func TestGolden(t *testing.T) {
	for name, s := range examples() {
		t.Run(name, func(t *testing.T) {
			files, err := s.Render()
			require.NoError(t, err)
			dir := filepath.Join("testdata", name)
			if *update {
				require.NoError(t, os.RemoveAll(dir))
				require.NoError(t, os.MkdirAll(dir, 0o755))
				for file, content := range files {
					require.NoError(t, os.WriteFile(filepath.Join(dir, file), content, 0o644))
				}
			}
			entries, err := os.ReadDir(dir)
			require.NoError(t, err, "run the test with -update")
			require.Len(t, files, len(entries))
			for _, e := range entries {
				want, err := os.ReadFile(filepath.Join(dir, e.Name()))
				require.NoError(t, err)
				assert.Equal(t, string(want), string(files[e.Name()]), e.Name())
			}
			again, err := s.Render()
			require.NoError(t, err)
			assert.Equal(t, files, again)
		})
	}
}

// newer are lines that only a later systemd than 252 knows: one that is older than
// they are cannot be asked about them.
var newer = map[string]int{"Type=notify-reload": 253, "ProtectControlGroups=strict": 257, "PrivateBPF=yes": 258}

// Units for a systemd have what only a later one knows nowhere in them, and those for
// a later one have it.
func TestOnlyWhatSystemdKnows(t *testing.T) {
	for name, s := range examples() {
		files, err := s.Render()
		require.NoError(t, err)
		for line, since := range newer {
			has := strings.Contains(string(files["app.service"]), "\n"+line+"\n")
			if s.Systemd < since {
				assert.False(t, has, "%s: %s", name, line)
			} else if s.Profile == units.Strict && s.NotifyReload && !s.UserManager {
				assert.True(t, has, "%s: %s", name, line)
			}
		}
		if s.Systemd == units.MinSystemd {
			assert.NotContains(t, string(files["app.service"]), "PrivateIPC=")
		}
	}
}

// TestExposure has systemd judge the strict profile, without running it.
func TestExposure(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: nobody has judged the sandbox")
	}
	for name, s := range examples() {
		if s.Profile != units.Strict || s.UserManager || s.Systemd > systemdVersion(t, analyze) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "app.service")
			files, err := s.Render()
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(file, files["app.service"], 0o644))
			out, _ := exec.Command(analyze, "security", "--offline=true", "--no-pager", file).CombinedOutput()
			m := regexp.MustCompile(`exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
			require.NotNil(t, m, "%s", out)
			exposure, err := strconv.ParseFloat(string(m[1]), 64)
			require.NoError(t, err)
			limit := 1.5
			if s.OperatorGroup != "" {
				limit = 1.6 // that group has to exist inside
			}
			assert.LessOrEqual(t, exposure, limit, "%s", out)
		})
	}
}

// What systemd itself says about the units: nothing.
func TestSystemdVerifies(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: nobody has checked the units")
	}
	truth, err := exec.LookPath("true") // verify looks whether the programs exist
	require.NoError(t, err)
	host := systemdVersion(t, analyze)
	for name, s := range examples() {
		t.Run(name, func(t *testing.T) {
			s.Exec, s.Hdctl = truth, truth
			if s.User != "" {
				s.User = "daemon"
			}
			dir := t.TempDir()
			files, err := s.Render()
			require.NoError(t, err)
			for file, content := range files {
				// Manual pages need not be installed where this runs.
				content = bytes.ReplaceAll(content, []byte("\nDocumentation="), []byte("\n#Documentation="))
				for line, since := range newer {
					if host < since {
						content = bytes.ReplaceAll(content, []byte("\n"+line+"\n"), []byte("\n"))
					}
				}
				require.NoError(t, os.WriteFile(filepath.Join(dir, file), content, 0o644))
			}
			args := []string{"verify", "--recursive-errors=no"}
			if s.UserManager {
				args = append(args, "--user")
			}
			for _, file := range slices.Sorted(maps.Keys(files)) {
				args = append(args, filepath.Join(dir, file))
			}
			cmd := exec.Command(analyze, args...)
			cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
			assert.Empty(t, string(out))
		})
	}
}

// systemdVersion is the version of an installed systemd.
func systemdVersion(t *testing.T, analyze string) int {
	t.Helper()
	out, err := exec.Command(analyze, "--version").Output()
	require.NoError(t, err)
	var version int
	_, err = fmt.Sscanf(string(out), "systemd %d", &version)
	require.NoError(t, err)
	return version
}

// settings returns the values of a setting, in their order.
func settings(t *testing.T, content []byte, section, name string) []string {
	t.Helper()
	sections, err := unit.DeserializeSections(bytes.NewReader(content))
	require.NoError(t, err)
	var values []string
	for _, s := range sections {
		for _, e := range s.Entries {
			if s.Section == section && e.Name == name {
				values = append(values, e.Value)
			}
		}
	}
	return values
}

// Each setting without which an upgrade, a fall back or a stop would go wrong.
func TestWhatTheDesignRestsOn(t *testing.T) {
	s := examples()["full"]
	files, err := s.Render()
	require.NoError(t, err)
	service := files["app.service"]
	for _, tt := range []struct{ section, name, want string }{
		{"Service", "Type", "notify"},
		{"Service", "NotifyAccess", "all"},
		{"Service", "KillMode", "control-group"},
		{"Service", "Restart", "always"},
		{"Service", "RestartSec", "100ms"},
		{"Service", "OOMPolicy", "continue"},
		{"Service", "RuntimeDirectory", "handoff/app"},
		{"Service", "RuntimeDirectoryMode", "0755"},
		{"Service", "StateDirectory", "handoff/app"},
		{"Service", "StateDirectoryMode", "0750"},
		{"Service", "ExecReload", "/opt/bin/hdctl upgrade --queue app"},
		{"Service", "WatchdogSec", "30s"},
		{"Service", "SupplementaryGroups", "adm"},
		{"Unit", "StartLimitIntervalSec", "0"},
		{"Unit", "Requires", "app-admin.socket app.socket app-dgram.socket app-seq.socket"},
		{"Unit", "After", "app-admin.socket app.socket app-dgram.socket app-seq.socket"},
		{"Install", "Also", "app-admin.socket app.socket app-dgram.socket app-seq.socket"},
	} {
		assert.Equal(t, tt.want, strings.Join(settings(t, service, tt.section, tt.name), " "), tt.name)
	}
	for file, name := range map[string]string{"app.socket": "http", "app-admin.socket": "admin", "app-dgram.socket": "dgram", "app-seq.socket": "seq"} {
		for _, tt := range []struct{ section, name, want string }{
			{"Socket", "FileDescriptorName", name},
			{"Socket", "Service", "app.service"},
			{"Socket", "TriggerLimitIntervalSec", "0"},
			{"Install", "WantedBy", "sockets.target"},
			// With PartOf= a stop of the service would close the socket, and
			// with RemoveOnStop= or FlushPending= clients would be lost.
			{"Unit", "PartOf", ""},
			{"Socket", "RemoveOnStop", ""},
			{"Socket", "FlushPending", ""},
			{"Socket", "Accept", ""},
			{"Socket", "ReusePort", ""},
		} {
			assert.Equal(t, tt.want, strings.Join(settings(t, files[file], tt.section, tt.name), " "), "%s: %s", file, tt.name)
		}
	}
}

// systemd must lose its patience after the service has lost its own, always.
func TestTimeouts(t *testing.T) {
	for _, tt := range []struct {
		ready, probation, stop time.Duration
		wantStart, wantStop    string
	}{
		{0, 0, 0, "90s", "25s"},
		{time.Second, units.None, time.Second, "90s", "6s"},
		{63 * time.Second, 2 * time.Second, 0, "90s", "25s"},
		{64 * time.Second, 2 * time.Second, 0, "91s", "25s"},
		{10 * time.Minute, time.Minute, time.Hour, "685s", "3605s"},
		{10 * time.Minute, 1500 * time.Millisecond, 1, "", ""},
		{10 * time.Minute, 1500 * time.Millisecond, 2500*time.Millisecond + time.Microsecond, "626500ms", "7500001us"},
	} {
		s := units.Service{
			Name: "app", Exec: "/usr/bin/app", Sockets: []units.Socket{http8080()},
			ReadyTimeout: tt.ready, Probation: tt.probation, StopTimeout: tt.stop,
		}
		files, err := s.Render()
		if tt.wantStart == "" {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, []string{tt.wantStart}, settings(t, files["app.service"], "Service", "TimeoutStartSec"))
		assert.Equal(t, []string{tt.wantStop}, settings(t, files["app.service"], "Service", "TimeoutStopSec"))
	}
}

func TestSocketUnitNames(t *testing.T) {
	sock := func(name string) units.Socket { return units.Socket{Name: name} }
	for _, tt := range []struct {
		sockets []units.Socket
		want    string
	}{
		{[]units.Socket{sock("echo")}, "app.socket"},
		{[]units.Socket{sock("echo"), sock("dgram")}, "app.socket app-dgram.socket"},
		{[]units.Socket{sock("echo"), sock("http")}, "app-echo.socket app.socket"},
	} {
		s := units.Service{Name: "app", Sockets: tt.sockets}
		var got []string
		for i := range s.Sockets {
			got = append(got, s.SocketUnitName(i))
		}
		assert.Equal(t, tt.want, strings.Join(got, " "))
	}
}
