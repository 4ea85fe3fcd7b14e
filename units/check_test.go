package units_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/units"
)

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*units.Service)
		want   string // "" is good
	}{
		{"good", func(*units.Service) {}, ""},
		{"no name", func(s *units.Service) { s.Name = "" }, "service name: is empty"},
		{"path in name", func(s *units.Service) { s.Name = "../app" }, "is not allowed"},
		{"suffix", func(s *units.Service) { s.Name = "app.service" }, "without the suffix"},
		{"template", func(s *units.Service) { s.Name = "app@" }, "template units"},
		{"specifier in name", func(s *units.Service) { s.Name = "a%n" }, "is not allowed"},
		{"long name", func(s *units.Service) { s.Name = strings.Repeat("a", 65) }, "longer than"},
		{"line in description", func(s *units.Service) { s.Description = "a\nExecStartPre=/bin/evil" }, "U+000A"},
		{"joining description", func(s *units.Service) { s.Description = `a\` }, "backslash"},
		{"no exec", func(s *units.Service) { s.Exec = "" }, "program: is empty"},
		{"relative exec", func(s *units.Service) { s.Exec = "app" }, "absolute"},
		{"unclean exec", func(s *units.Service) { s.Exec = "/usr/../app" }, "absolute"},
		{"directory", func(s *units.Service) { s.Exec = "/usr/bin/" }, "absolute"},
		{"prefix", func(s *units.Service) { s.Exec = "+/usr/bin/app" }, "absolute"},
		{"variable in exec", func(s *units.Service) { s.Exec = "/usr/$X" }, "quote"},
		{"line in exec", func(s *units.Service) { s.Exec = "/usr/bin/app\nUser=root" }, "U+000A"},
		{"relative hdctl", func(s *units.Service) { s.Hdctl = "hdctl" }, "path of hdctl"},
		{"line in argument", func(s *units.Service) { s.Args = []string{"a\nUser=root"} }, "U+000A"},
		{"carriage return", func(s *units.Service) { s.Args = []string{"a\rb"} }, "U+000D"},
		{"NUL", func(s *units.Service) { s.Args = []string{"a\x00"} }, "U+0000"},
		{"line separator", func(s *units.Service) { s.Args = []string{"a\u2028b"} }, "U+2028"},
		{"not UTF-8", func(s *units.Service) { s.Args = []string{"a\xff"} }, "UTF-8"},
		{"variable name", func(s *units.Service) { s.Environment = []units.Variable{{"A B", "x"}} }, "not a name"},
		{"variable digit", func(s *units.Service) { s.Environment = []units.Variable{{"1A", "x"}} }, "not a name"},
		{"variable without name", func(s *units.Service) { s.Environment = []units.Variable{{"", "x"}} }, "no name"},
		{"variable of an option", func(s *units.Service) { s.Environment = []units.Variable{{"HANDOFF_PROBATION", "x"}} }, "from an option"},
		{"variable of ours", func(s *units.Service) { s.Environment = []units.Variable{{"HANDOFF_SIGHUP", "off"}} }, ""},
		{"line in variable", func(s *units.Service) { s.Environment = []units.Variable{{"A", "x\ny"}} }, "U+000A"},
		{"user", func(s *units.Service) { s.User = "root; x" }, "not allowed"},
		{"user number", func(s *units.Service) { s.User = "1000" }, ""},
		{"user name", func(s *units.Service) { s.User = "_app-1" }, ""},
		{"number and letter", func(s *units.Service) { s.User = "1a" }, "not allowed"},
		{"line in group", func(s *units.Service) { s.Group = "a\nb" }, "not allowed"},
		{"operator group", func(s *units.Service) { s.OperatorGroup = "a b" }, "not allowed"},
		{"user with user manager", func(s *units.Service) { s.UserManager, s.User = true, "app" }, "cannot change"},
		{"socket owner with user manager", func(s *units.Service) {
			s.UserManager = true
			s.Sockets[0] = units.Socket{Name: "a", Listen: []units.Listen{{Address: "/run/a"}}, User: "x"}
		}, "cannot change its owner"},
		{"no ready timeout", func(s *units.Service) { s.ReadyTimeout = units.None }, "cannot be none"},
		{"no stop timeout", func(s *units.Service) { s.StopTimeout = units.None }, "cannot be none"},
		{"tiny", func(s *units.Service) { s.DrainTimeout = 1 }, "less than a millisecond"},
		{"negative", func(s *units.Service) { s.DrainTimeout = -time.Hour }, "less than a millisecond"},
		{"huge", func(s *units.Service) { s.ReadyTimeout = 1<<63 - 1 }, "more than a year"},
		{"fast watchdog", func(s *units.Service) { s.Watchdog = 100 * time.Millisecond }, "less than a second"},
		{"no watchdog by -1", func(s *units.Service) { s.Watchdog = units.None }, "cannot be none"},
		{"old systemd", func(s *units.Service) { s.Systemd = 246 }, "systemd 246: not a version from 247"},
		{"oldest systemd", func(s *units.Service) { s.Systemd = 247 }, ""},
		{"systemd of a year", func(s *units.Service) { s.Systemd = 2026 }, "not a version"},
		{"negative systemd", func(s *units.Service) { s.Systemd = -1 }, "not a version"},
		{"notify-reload", func(s *units.Service) { s.Systemd, s.NotifyReload = 253, true }, ""},
		{"notify-reload of an old systemd", func(s *units.Service) { s.NotifyReload = true }, "notify-reload: systemd 252 does not know it, but systemd 253 does"},
		{"notify-reload without SIGHUP", func(s *units.Service) {
			s.Systemd, s.NotifyReload, s.Environment = 257, true, []units.Variable{{"HANDOFF_SIGHUP", "off"}}
		}, "which HANDOFF_SIGHUP takes away"},
		{"profile", func(s *units.Service) { s.Profile = "paranoid" }, `profile "paranoid": neither plain nor strict`},
		{"strict in a home directory", func(s *units.Service) { s.Profile, s.Exec = units.Strict, "/home/me/app" }, "hides /home"},
		{"plain in a home directory", func(s *units.Service) { s.Exec = "/home/me/app" }, ""},
		{"strict for a user in a home directory", func(s *units.Service) { s.Profile, s.UserManager, s.Exec = units.Strict, true, "/home/me/app" }, ""},
		{"strict in /tmp", func(s *units.Service) { s.Profile, s.Hdctl = units.Strict, "/tmp/hdctl" }, "hides /tmp"},
		{"strict root", func(s *units.Service) { s.Profile, s.User = units.Strict, "root" }, "not for user root"},
		{"hang in probation", func(s *units.Service) { s.HangTimeout = 2 * time.Second }, "hang timeout 2s: not shorter than the probation 2s"},
		{"no hang timeout", func(s *units.Service) { s.HangTimeout = units.None }, ""},
		{"stopped and watchdog", func(s *units.Service) { s.Watchdog, s.StoppedTimeout = 3*time.Second, 3*time.Second }, "stopped timeout 3s: not shorter than the watchdog"},
		{"drain delay", func(s *units.Service) { s.DrainDelay = 10 * time.Minute }, "drain delay 10m0s: not shorter than the drain timeout"},
		{"negative stage timeout", func(s *units.Service) { s.StageTimeout = -time.Minute }, "stage timeout -1m0s: less than"},
		{"overflow", func(s *units.Service) { s.Overflow = "wait" }, `overflow "wait": neither hurry-oldest nor refuse`},
		{"check with a space", func(s *units.Service) { s.Check = []string{"/bin/sh", "-c", "a b"} }, "into a script"},
		{"line in check", func(s *units.Service) { s.Check = []string{"a\x00"} }, "U+0000"},
		{"line in command", func(s *units.Service) { s.Command = []string{"hdctl", "a\nUser=root"} }, "U+000A"},
		{"variable of an option that is set", func(s *units.Service) {
			s.AllowBinary, s.Environment = true, []units.Variable{{"HANDOFF_ALLOW_BINARY", "off"}}
		}, "from an option"},
		{"operator group by variable", func(s *units.Service) { s.Environment = []units.Variable{{"HANDOFF_OPERATOR_GROUP", "adm"}} }, "SupplementaryGroups"},
		{"max draining", func(s *units.Service) { s.MaxDraining = -1 }, "max draining"},
		{"no sockets", func(s *units.Service) { s.Sockets = nil }, "no sockets"},
		{"twice", func(s *units.Service) { s.Sockets = append(s.Sockets, s.Sockets[0]) }, "there are two"},
		{"address twice", func(s *units.Service) {
			s.Sockets = append(s.Sockets, units.Socket{Name: "b", Listen: []units.Listen{{Address: "8080"}}})
		}, "taken twice"},
		{"tcp and udp", func(s *units.Service) {
			s.Sockets = append(s.Sockets, units.Socket{Name: "b", Listen: []units.Listen{{units.Datagram, "8080"}}})
		}, ""},
		{"socket name", func(s *units.Service) { s.Sockets[0].Name = "a:b" }, "not allowed"},
		{"reserved by systemd", func(s *units.Service) { s.Sockets[0].Name = "stored" }, "sd_listen_fds"},
		{"reserved by us", func(s *units.Service) { s.Sockets[0].Name = "control" }, "control socket"},
		{"no address", func(s *units.Service) { s.Sockets[0].Listen = nil }, "no address"},
		{"mode of a port", func(s *units.Service) { s.Sockets[0].Mode = 0o600 }, "for unix sockets"},
		{"mode", func(s *units.Service) {
			s.Sockets[0] = units.Socket{Name: "a", Listen: []units.Listen{{Address: "/run/a"}}, Mode: 0o4755}
		}, "not a file mode"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := units.Service{Name: "app", Exec: "/usr/bin/app", Sockets: []units.Socket{http8080()}}
			tt.change(&s)
			err := s.Validate()
			files, renderErr := s.Render()
			if tt.want == "" {
				require.NoError(t, err)
				require.NoError(t, renderErr)
				return
			}
			require.ErrorContains(t, err, tt.want)
			require.Error(t, renderErr)
			assert.Nil(t, files)
		})
	}
}

// All that is wrong is said at once.
func TestValidateSaysAll(t *testing.T) {
	err := units.Service{}.Validate()
	require.ErrorContains(t, err, "service name")
	require.ErrorContains(t, err, "program")
	require.ErrorContains(t, err, "no sockets")
}

func TestParseListen(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want units.Listen
		err  string
	}{
		{"8080", units.Listen{units.Stream, "8080"}, ""},
		{"tcp:8080", units.Listen{units.Stream, "8080"}, ""},
		{"tcp:127.0.0.1:80", units.Listen{units.Stream, "127.0.0.1:80"}, ""},
		{"[::1]:80", units.Listen{units.Stream, "[::1]:80"}, ""},
		{"[fe80::1%eth0]:80", units.Listen{units.Stream, "[fe80::1%eth0]:80"}, ""},
		{"udp:5353", units.Listen{units.Datagram, "5353"}, ""},
		{"/run/app.sock", units.Listen{units.Stream, "/run/app.sock"}, ""},
		{"unix:/run/a:b", units.Listen{units.Stream, "/run/a:b"}, ""},
		{"unix:@app", units.Listen{units.Stream, "@app"}, ""},
		{"unixgram:/run/a", units.Listen{units.Datagram, "/run/a"}, ""},
		{"unixpacket:/run/a", units.Listen{units.Sequential, "/run/a"}, ""},
		{"", units.Listen{}, "is empty"},
		{"tcp:", units.Listen{}, "is empty"},
		{":8080", units.Listen{}, "write the port alone: 8080"},
		{"localhost:80", units.Listen{}, "want PORT"},
		{"tcp:example.org:80", units.Listen{}, "want PORT"},
		{"1::1:80:x", units.Listen{}, "want PORT"},
		{"80000", units.Listen{}, "want PORT"},
		{"-1", units.Listen{}, "want PORT"},
		{"0", units.Listen{}, "port 0"},
		{"127.0.0.1:0", units.Listen{}, "port 0"},
		{"udp:/run/a", units.Listen{}, "not of the kind"},
		{"unix:80", units.Listen{}, "not of the kind"},
		{"unixpacket:80", units.Listen{}, "is a unix socket"},
		{"run/app.sock", units.Listen{}, "want PORT"},
		{"/", units.Listen{}, "clean path"},
		{"/run//a", units.Listen{}, "clean path"},
		{"/run/a b", units.Listen{}, "space"},
		{`/run/a\`, units.Listen{}, "backslash"},
		{"/run/a\nUser=root", units.Listen{}, "U+000A"},
		{"@", units.Listen{}, "no name"},
		{"/" + strings.Repeat("a", 107), units.Listen{}, "longer than"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := units.ParseListen(tt.in)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
	assert.Equal(t, "Kind(7)", units.Kind(7).String())
}

func TestParseSocket(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want units.Socket
		err  string
	}{
		{"http=8080", http8080(), ""},
		{"admin=/run/a.sock,mode=0660,user=root,group=adm", units.Socket{Name: "admin", Listen: []units.Listen{{Address: "/run/a.sock"}}, Mode: 0o660, User: "root", Group: "adm"}, ""},
		{"a=unixgram:/run/a,group=adm", units.Socket{Name: "a", Listen: []units.Listen{{units.Datagram, "/run/a"}}, Group: "adm"}, ""},
		{"8080", units.Socket{}, "want NAME=ADDR"},
		{"a=/run/a,mode", units.Socket{}, `option "mode": want NAME=VALUE`},
		{"a=/run/a,", units.Socket{}, "want NAME=VALUE"},
		{"a=/run/a,mode=rw", units.Socket{}, "not an octal number"},
		{"a=/run/a,mode=0", units.Socket{}, "not an octal number"},
		{"a=/run/a,backlog=5", units.Socket{}, `option "backlog": not mode, user or group`},
		{"a=localhost:80", units.Socket{}, "want PORT"},
	} {
		t.Run(tt.in, func(t *testing.T) {
			got, err := units.ParseSocket(tt.in)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
}
