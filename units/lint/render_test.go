package lint_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/units/lint"
)

// What package units writes has no findings, whatever it is asked for.
func TestRendered(t *testing.T) {
	listen := func(text string) units.Listen {
		l, err := units.ParseListen(text)
		require.NoError(t, err)
		return l
	}
	sockets := [][]units.Socket{
		{{Name: "http", Listen: []units.Listen{listen("8080")}}},
		{
			{Name: "admin", Listen: []units.Listen{listen("/run/app-admin.sock"), listen("@app%x")}, Mode: 0o660, User: "root", Group: "adm"},
			{Name: "http", Listen: []units.Listen{listen("127.0.0.1:8080"), listen("[::1]:8080")}},
			{Name: "dgram", Listen: []units.Listen{listen("udp:5353")}},
		},
	}
	changes := [][]func(*units.Service){
		{
			func(*units.Service) {},
			func(s *units.Service) { s.User, s.Group, s.OperatorGroup = "app", "www-data", "adm" },
			func(s *units.Service) { s.DynamicUser, s.OperatorGroup = true, "adm" },
			func(s *units.Service) { s.UserManager = true },
		},
		{
			func(*units.Service) {},
			func(s *units.Service) {
				s.ReadyTimeout, s.Probation, s.StopTimeout = 10*time.Minute, time.Minute, time.Hour
			},
			func(s *units.Service) {
				s.Probation, s.DrainTimeout, s.StopTimeout = units.None, units.None, time.Millisecond
			},
		},
		{
			func(*units.Service) {},
			func(s *units.Service) { s.Watchdog, s.MaxDraining, s.Hdctl = time.Second, 1, "/opt/bin/hdctl" },
			func(s *units.Service) {
				s.Exec, s.Args = "/opt/my app/bin", []string{"--name", "a b", "", "$HOME", "50%", `"\'`, ";", "-c"}
				s.Environment = []units.Variable{{Name: "A", Value: `say "hello" $USER 100%`}, {Name: "HANDOFF_MIGRATE", Value: "off"}}
			},
		},
	}
	n := 0
	for _, some := range sockets {
		for _, a := range changes[0] {
			for _, b := range changes[1] {
				for _, c := range changes[2] {
					for _, extra := range newer {
						s := units.Service{Name: "app", Exec: "/usr/bin/app", Sockets: slices.Clone(some)}
						a(&s)
						b(&s)
						c(&s)
						systemd := extra(&s)
						if s.UserManager {
							for i := range s.Sockets {
								s.Sockets[i].User, s.Sockets[i].Group = "", ""
							}
						}
						files, err := s.Render()
						require.NoError(t, err, "%+v", s)
						var list []*lint.Unit
						for _, name := range slices.Sorted(maps.Keys(files)) {
							u := &lint.Unit{Name: name}
							u.Parse(name, string(files[name]))
							list = append(list, u)
						}
						o := lint.Options{Systemd: systemd, UserManager: s.UserManager}
						assert.Empty(t, lint.Check(list, o), fmt.Sprintf("%+v", s))
						n++
					}
				}
			}
		}
	}
	t.Logf("%d services", n)
}

// newer are the options for profiles and versions of systemd. They return the
// version that the units are for.
var newer = []func(*units.Service) int{
	func(*units.Service) int { return 0 },
	func(s *units.Service) int { s.Profile, s.Systemd = units.Strict, 252; return s.Systemd },
	func(s *units.Service) int { s.Profile, s.Systemd = units.Strict, 262; return s.Systemd },
	func(s *units.Service) int { s.NotifyReload, s.Systemd = true, 253; return s.Systemd },
	func(s *units.Service) int {
		s.Profile, s.NotifyReload, s.Systemd = units.Strict, true, 257
		return s.Systemd
	},
}
