package upgrade

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func lookup(env map[string]string) func(string) (string, bool) {
	return func(key string) (string, bool) {
		v, ok := env[key]
		return v, ok
	}
}

func TestResolve(t *testing.T) {
	defaults := settings{
		readyTimeout: 30 * time.Second, probation: 2 * time.Second, drainTimeout: 10 * time.Minute,
		stopTimeout: 20 * time.Second, drainSpread: 10 * time.Second, maxDraining: 8,
		hangTimeout: 500 * time.Millisecond, stoppedTimeout: 5 * time.Second, stageTimeout: 30 * time.Minute,
	}
	tests := []struct {
		name    string
		options Options
		env     map[string]string
		want    func(*settings)
	}{
		{"defaults", Options{}, nil, func(*settings) {}},
		{"empty variables are none", Options{}, map[string]string{"HANDOFF_PROBATION": "", "HANDOFF_MAX_DRAINING": ""}, func(*settings) {}},
		{"code", Options{Probation: time.Minute, MaxDraining: 2}, nil, func(s *settings) { s.probation, s.maxDraining = time.Minute, 2 }},
		{
			"the unit wins over the code",
			Options{ReadyTimeout: time.Second, MaxDraining: 2, Control: "/code", NoSIGHUP: true},
			map[string]string{"HANDOFF_READY_TIMEOUT": "1m30s", "HANDOFF_MAX_DRAINING": "3", "HANDOFF_CONTROL": "/unit", "HANDOFF_SIGHUP": "on", "HANDOFF_OPERATOR_GROUP": "ops"},
			func(s *settings) {
				s.readyTimeout, s.maxDraining, s.control, s.operatorGroup = 90*time.Second, 3, "/unit", "ops"
			},
		},
		{
			"negative is none",
			Options{ReadyTimeout: -1, Probation: -1, DrainTimeout: -1},
			nil,
			func(s *settings) { s.readyTimeout, s.probation, s.drainTimeout = 0, 0, 0 },
		},
		{"zero in the unit is meant", Options{}, map[string]string{"HANDOFF_PROBATION": "0s"}, func(s *settings) { s.probation = 0 }},
		{
			"drains",
			Options{DrainDelay: time.Minute, Overflow: RefuseUpgrade, NoMigration: true},
			map[string]string{"HANDOFF_DRAIN_SPREAD": "0s", "HANDOFF_MIGRATE": "on"},
			func(s *settings) { s.drainDelay, s.drainSpread, s.overflow = time.Minute, 0, RefuseUpgrade },
		},
		{"overflow", Options{Overflow: RefuseUpgrade}, map[string]string{"HANDOFF_OVERFLOW": "hurry-oldest", "HANDOFF_MIGRATE": "off"}, func(s *settings) { s.noMigration = true }},
		{
			"staged, and hangs",
			Options{HangTimeout: -1, StageTimeout: time.Hour, Check: []string{"true"}},
			map[string]string{"HANDOFF_STOPPED_TIMEOUT": "1m", "HANDOFF_CHECK": "/bin/check -t  %b", "HANDOFF_ALLOW_BINARY": "on", "HANDOFF_PID_FILE": "/run/x.pid", "HANDOFF_STATE_DIR": "/var/x"},
			func(s *settings) {
				s.hangTimeout, s.stoppedTimeout, s.stageTimeout = 0, time.Minute, time.Hour
				s.check, s.allowBinary, s.pidFile, s.stateDir = []string{"/bin/check", "-t", "%b"}, true, "/run/x.pid", "/var/x"
			},
		},
		{"signals of nginx", Options{}, map[string]string{"HANDOFF_SIGNALS": "nginx"}, func(s *settings) { s.signals = NginxSignals() }},
		{"systemd's reload", Options{}, map[string]string{"HANDOFF_NOTIFY_RELOAD": "on"}, func(s *settings) { s.notifyReload = true }},
		{"a stop has an end", Options{StopTimeout: -1}, nil, func(s *settings) { s.stopTimeout = time.Millisecond }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := defaults
			tt.want(&want)
			got, err := tt.options.resolve(lookup(tt.env))
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
	for key, value := range map[string]string{
		"HANDOFF_READY_TIMEOUT": "90", "HANDOFF_DRAIN_TIMEOUT": "ten", "HANDOFF_MAX_DRAINING": "0", "HANDOFF_SIGHUP": "maybe",
		"HANDOFF_OVERFLOW": "panic", "HANDOFF_MIGRATE": "1", "HANDOFF_ALLOW_BINARY": "yes", "HANDOFF_SIGNALS": "apache", "HANDOFF_NOTIFY_RELOAD": "1",
	} {
		_, err := Options{}.resolve(lookup(map[string]string{key: value}))
		require.ErrorContains(t, err, key)
	}
}

func TestRequestTimeoutStaysBelowSystemds(t *testing.T) {
	s, err := Options{}.resolve(lookup(nil))
	require.NoError(t, err)
	assert.Less(t, s.requestTimeout(), 90*time.Second, "DefaultTimeoutStartSec=")
}

func TestServiceName(t *testing.T) {
	tests := []struct {
		name    string
		options Options
		env     environment
		cgroup  string
		want    string
	}{
		{"given", Options{Name: "shop.service"}, environment{bySystemd: true}, "", "shop"},
		{"runtime directory", Options{}, environment{bySystemd: true, runtime: []string{"/run/x", "/run/handoff/shop@1"}}, "0::/a.service", "shop@1"},
		{"unit", Options{}, environment{bySystemd: true}, "12:cpu:/\n0::/system.slice/shop.service\n", "shop"},
		{"not ours", Options{}, environment{}, "0::/system.slice/ssh.service\n", "upgrade.test"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, serviceName(tt.options, tt.env, tt.cgroup)) })
	}
}

func TestControlPath(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/xdg")
	path, own, reason := controlPath(settings{}, environment{bySystemd: true, runtime: []string{"/run/other", "/run/handoff/a"}}, "a")
	assert.Equal(t, []any{"/run/handoff/a/control.sock", false, ""}, []any{path, own, reason})
	path, _, reason = controlPath(settings{}, environment{bySystemd: true, runtime: []string{"/run/handoff/b"}}, "a")
	assert.Empty(t, path)
	assert.Contains(t, reason, "RuntimeDirectory=handoff/a")
	path, _, reason = controlPath(settings{control: "-"}, environment{}, "a")
	assert.Equal(t, []any{"", ""}, []any{path, reason})
	path, own, _ = controlPath(settings{control: "/x.sock"}, environment{bySystemd: true}, "a")
	assert.Equal(t, []any{"/x.sock", false}, []any{path, own})
}
