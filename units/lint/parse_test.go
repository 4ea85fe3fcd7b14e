package lint_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/units/lint"
)

func parse(name, text string) *lint.Unit {
	u := &lint.Unit{Name: name}
	u.Parse(name, text)
	return u
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []lint.Setting
	}{
		{"nothing", "", nil},
		{"comments", "# a\n ; b\n[Service]\n#ExecStart=x\n", nil},
		{"white space", "\ufeff [Service]\t\r\n  User =\ta b \r\n", []lint.Setting{{"Service", "User", "a b", at(2)}}},
		{"no end of line", "[Service]\nUser=a", []lint.Setting{{"Service", "User", "a", at(2)}}},
		{"a value with =", "[Service]\nEnvironment=A=b=c\n", []lint.Setting{{"Service", "Environment", "A=b=c", at(2)}}},
		{"a line that goes on", "[Service]\nExecStart=a \\\n  b \\\n  c\nUser=d", []lint.Setting{
			{"Service", "ExecStart", "a  b  c", at(2)},
			{"Service", "User", "d", at(5)},
		}},
		{"a comment between", "[Service]\nExecStart=a \\\n# x\n; y \\\n b\nUser=d", []lint.Setting{
			{"Service", "ExecStart", "a  b", at(2)},
			{"Service", "User", "d", at(6)},
		}},
		{"an escaped backslash", "[Service]\nExecStart=a \\\\\nUser=d", []lint.Setting{
			{"Service", "ExecStart", `a \\`, at(2)},
			{"Service", "User", "d", at(3)},
		}},
		{"to the end", "[Service]\nUser=a\\", []lint.Setting{{"Service", "User", "a", at(2)}}},
		{"empty", "[Service]\nUser=a\nUser=", []lint.Setting{{"Service", "User", "a", at(2)}, {"Service", "User", "", at(3)}}},
		{"sections of others", "[X-Ours]\nA=b\nno setting\n[Service]\nUser=a", []lint.Setting{{"Service", "User", "a", at(5)}}},
		{"a section of sockets", "[Socket]\nA=b\n[Service]\nUser=a", []lint.Setting{{"Service", "User", "a", at(4)}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, parse("app.service", tt.text).Settings)
		})
	}
}

func at(line int) lint.Position { return lint.Position{File: "app.service", Line: line} }

// The lines of findings, for what is wrong in the form.
func TestSyntax(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"User=a\n", []string{"User= is in no section: systemd ignores the line"}},
		{"[Service\n", []string{`"[Service" is no header of a section: systemd ignores the line`}},
		{"[Service]\nKillMode: x\n", []string{`"KillMode: x" is no setting: systemd ignores the line`}},
		{"[Service]\nUser=\xff\n", []string{"a line is not UTF-8: systemd ignores the line"}},
		{"[Socket]\nBacklog=1\n", []string{"there is no section [Socket] in app.service: systemd ignores the line"}},
	} {
		var got []string
		for _, f := range lint.Check([]*lint.Unit{parse("app.service", tt.text)}, lint.Options{}) {
			if f.Rule == "syntax" {
				got = append(got, f.Message)
			}
		}
		assert.Equal(t, tt.want, got, "%q", tt.text)
	}
}

// What counts of several lines.
func TestDropIns(t *testing.T) {
	base, err := os.ReadFile("testdata/base/app.service")
	require.NoError(t, err)
	for _, tt := range []struct {
		name    string
		dropIns map[string]string
		want    []string // rules, and where
	}{
		{"none", nil, nil},
		{"the last one counts", map[string]string{"b.conf": "KillMode=control-group", "a.conf": "KillMode=mixed"}, nil},
		{"in the order of names", map[string]string{"a.conf": "KillMode=control-group", "b.conf": "KillMode=mixed"}, []string{"kill-mode b.conf:2"}},
		{"not parsed, not there", map[string]string{"a.conf": "KillMode=control-group\nKillMode=nonsense"}, nil},
		{"an empty value takes back", map[string]string{"a.conf": "KillMode=mixed\nKillMode="}, nil},
		{"also a list", map[string]string{"a.conf": "ExecReload=\nExecReload=/bin/kill -HUP $MAINPID"}, []string{"exec-reload-async a.conf:3"}},
		{"which grows otherwise", map[string]string{"a.conf": "ExecReload=/bin/true"}, nil},
		{"and is gone then", map[string]string{"a.conf": "RuntimeDirectory="}, []string{"runtime-directory app.service:8"}},
		{"what others are called", map[string]string{"a.txt": "KillMode=mixed"}, nil},
		{"an exception", map[string]string{"a.conf": "# hdctl: ignore kill-mode, oom-policy -- why not\nKillMode=mixed\nOOMPolicy=stop"}, nil},
		{"boolean", map[string]string{"a.conf": "SendSIGKILL=OFF"}, []string{"send-sigkill a.conf:2"}},
		{"TimeoutSec", map[string]string{"a.conf": "TimeoutSec=1min"}, nil},
		{"TimeoutSec, too short", map[string]string{"a.conf": "TimeoutSec=20"}, []string{"timeout-start a.conf:2", "timeout-stop a.conf:2"}},
		{"after another", map[string]string{"a.conf": "TimeoutSec=20\nTimeoutStartSec=1min 30s\nTimeoutStopSec=0.5min"}, nil},
		{"environment", map[string]string{"a.conf": "Environment=HANDOFF_STOP_TIMEOUT=2m 'HANDOFF_READY_TIMEOUT=78s'"}, []string{"timeout-start app.service:8", "timeout-stop app.service:8"}},
		{"environment, the last one", map[string]string{"a.conf": "Environment=HANDOFF_STOP_TIMEOUT=2m HANDOFF_STOP_TIMEOUT=1m"}, nil},
		{"no limit", map[string]string{"a.conf": "Environment=HANDOFF_READY_TIMEOUT=-1s"}, []string{"timeout-start a.conf:2"}},
		{"both infinity", map[string]string{"a.conf": "TimeoutSec=infinity"}, []string{"timeout-infinity a.conf:2"}},
		{"both of them", map[string]string{"a.conf": "TimeoutStartSec=0\nTimeoutStopSec=infinity"}, []string{"timeout-infinity a.conf:2", "timeout-infinity a.conf:3"}},
		{"several commands", map[string]string{"a.conf": "ExecReload=\nExecReload=/usr/bin/app --check ; /usr/bin/hdctl upgrade --queue app"}, nil},
		{"the first of two", map[string]string{"a.conf": "ExecReload=\nExecReload=/bin/true\nExecReload=/bin/false"}, []string{"exec-reload-async a.conf:3"}},
		{"--no-block", map[string]string{"a.conf": "ExecReload=\nExecReload=hdctl upgrade --queue --no-block app"}, []string{"exec-reload-async a.conf:3"}},
		{"no name", map[string]string{"a.conf": "ExecReload=\nExecReload=/usr/bin/hdctl upgrade --queue"}, []string{"exec-reload-name a.conf:3"}},
		{"by socket", map[string]string{"a.conf": "ExecReload=\nExecReload=/usr/bin/hdctl --socket /run/x upgrade --queue"}, nil},
		{"of a user", map[string]string{"a.conf": "ExecReload=\nExecReload=/usr/bin/hdctl --user upgrade --queue app"}, []string{"exec-reload-name a.conf:3"}},
		{"nginx", map[string]string{"a.conf": "KillSignal=QUIT\nEnvironment=HANDOFF_SIGNALS=nginx"}, nil},
		{"a number", map[string]string{"a.conf": "KillSignal=15"}, nil},
		{"old names", map[string]string{"a.conf": "[Unit]\nStartLimitIntervalSec=\n[Service]\nStartLimitInterval=0"}, nil},
		{"old names, not 0", map[string]string{"a.conf": "[Unit]\nStartLimitIntervalSec=\n[Service]\nStartLimitInterval=10"}, []string{"start-limit a.conf:5"}},
		{"no burst", map[string]string{"a.conf": "[Unit]\nStartLimitIntervalSec=10\nStartLimitBurst=0"}, nil},
		{"families taken away", map[string]string{"a.conf": "RestrictAddressFamilies=~AF_UNIX AF_PACKET"}, []string{"restrict-address-families a.conf:2"}},
		{"others taken away", map[string]string{"a.conf": "RestrictAddressFamilies=~AF_PACKET"}, nil},
		{"families in two lines", map[string]string{"a.conf": "RestrictAddressFamilies=AF_INET\nRestrictAddressFamilies=AF_UNIX"}, nil},
		{"allowed, and taken away", map[string]string{"a.conf": "RestrictAddressFamilies=AF_INET AF_UNIX\nRestrictAddressFamilies=~AF_UNIX"}, []string{"restrict-address-families a.conf:3"}},
		{"no families", map[string]string{"a.conf": "RestrictAddressFamilies=none"}, []string{"restrict-address-families a.conf:2"}},
		{"calls taken away", map[string]string{"a.conf": "SystemCallFilter=~@process:EPERM"}, []string{"system-call-filter a.conf:2"}},
		{"a shell that execs", map[string]string{"a.conf": "ExecStart=\nExecStart=/bin/bash -ec \"a && exec /usr/bin/app\""}, nil},
		{"a shell that does not", map[string]string{"a.conf": "ExecStart=\nExecStart=/bin/bash -ec \"exec 2>&1; /usr/bin/app\""}, []string{"exec-start-shell a.conf:3"}},
		{"a script", map[string]string{"a.conf": "ExecStart=\nExecStart=/bin/sh /usr/bin/start-app"}, nil},
		{"sudo", map[string]string{"a.conf": "ExecStart=\nExecStart=!/usr/bin/sudo -u app /usr/bin/app"}, []string{"exec-start-shell a.conf:3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write := func(name, text string) {
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
			}
			write("app.service", string(base))
			for name, text := range tt.dropIns {
				write("app.service.d/"+name, "[Service]\n"+text+"\n")
			}
			units, err := lint.LoadSite(filepath.Join(dir, "app.service"))
			require.NoError(t, err)
			var got []string
			for _, f := range lint.Check(units, lint.Options{}) {
				got = append(got, f.Rule+" "+filepath.Base(f.File)+":"+strconv.Itoa(f.Line))
			}
			assert.Equal(t, tt.want, got)
		})
	}
}

// FuzzParse: whatever is in a file, the linter says something about it, and ends.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"base/app.service", "base/app.socket", "exec-start-shell/bad.service"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(f, err)
		f.Add(string(text))
	}
	f.Add("[Service]\nExecStart=\\\n# x\n'\"; ; @-\nTimeoutSec=99999999999999y\nEnvironment=HANDOFF_X=%n\n")
	f.Fuzz(func(t *testing.T, text string) {
		service, socket := parse("app.service", text), parse("app.socket", text)
		lines := strings.Count(text, "\n") + 1
		for _, s := range service.Settings {
			if s.Line < 1 || s.Line > lines || s.Name == "" || strings.ContainsAny(s.Name+s.Section, "\n=") {
				t.Errorf("%q: %+v", text, s)
			}
		}
		for _, finding := range lint.Check([]*lint.Unit{service, socket}, lint.Options{}) {
			if finding.Line < 0 || finding.Line > lines || finding.Message == "" {
				t.Errorf("%q: %+v", text, finding)
			}
		}
	})
}
