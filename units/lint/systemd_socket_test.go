package lint_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/testbed"
)

// demonstrateSockets are demonstrations with sockets.
func demonstrateSockets() []demonstration {
	return []demonstration{
		{
			"start-limit",
			map[string]string{
				"limit.socket":    socket(9001, "TriggerLimitIntervalSec=0"),
				"limit.service":   service("ExecStart=/bin/false", "Restart=always", "RestartSec=1ms"),
				"nolimit.socket":  socket(9002, "TriggerLimitIntervalSec=0"),
				"nolimit.service": service("ExecStart=/bin/false", "Restart=always", "RestartSec=1ms", "Unit.StartLimitIntervalSec=0"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "limit.socket", "nolimit.socket")
				poke(t, tb, 9001)
				poke(t, tb, 9002)
				waitForProperty(t, tb, "limit.socket", "Result", "service-start-limit-hit")
				_, err := tb.Dial(t.Context(), "tcp", "127.0.0.1:9001")
				assert.ErrorContains(t, err, "connection refused")
				tb.WaitFor(t, "more than five restarts", func() bool { return len(show(tb, "nolimit.service", "NRestarts")) >= 2 })
				poke(t, tb, 9002)
				tb.MustSystemctl(t, "stop", "nolimit.socket", "nolimit.service")
			},
		},
		{
			"trigger-limit",
			map[string]string{
				"trigger.socket":  socket(9003),
				"trigger.service": service("ExecStart=/bin/true", "Unit.StartLimitIntervalSec=0"), // and never accepts
			},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "trigger.socket")
				poke(t, tb, 9003)
				waitForProperty(t, tb, "trigger.socket", "Result", "trigger-limit-hit")
				_, err := tb.Dial(t.Context(), "tcp", "127.0.0.1:9003")
				assert.ErrorContains(t, err, "connection refused")
			},
		},
		{
			"part-of",
			map[string]string{
				"part.socket":   socket(9004, "Unit.PartOf=part.service"),
				"part.service":  service("ExecStart=/bin/sleep 1000"),
				"apart.socket":  socket(9005),
				"apart.service": service("ExecStart=/bin/sleep 1000", "Unit.Requires=apart.socket"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "part.socket", "apart.socket")
				tb.MustSystemctl(t, "start", "part.service", "apart.service")
				tb.MustSystemctl(t, "stop", "part.service", "apart.service")
				assert.Equal(t, "inactive", show(tb, "part.socket", "ActiveState"))
				assert.Equal(t, "active", show(tb, "apart.socket", "ActiveState"))
			},
		},
		{
			"fd-name",
			map[string]string{
				"noname.socket":  socket(9006),
				"noname.service": service("Type=oneshot", `ExecStart=/bin/sh -c 'echo "$LISTEN_FDNAMES" > /run/noname'`, "Unit.Requires=noname.socket"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "noname.service")
				assert.Equal(t, "noname.socket", content(t, tb, "/run/noname"))
			},
		},
		{
			"accept",
			map[string]string{
				"accept.socket":   socket(9007, "Accept=yes"),
				"accept@.service": service("Type=oneshot", `ExecStart=/bin/sh -c 'echo "$LISTEN_FDNAMES" > /run/accept'`),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "accept.socket")
				poke(t, tb, 9007)
				assert.Equal(t, "connection", content(t, tb, "/run/accept"))
			},
		},
		{
			"exec-start-shell",
			map[string]string{
				"shell.socket":  socket(9008),
				"shell.service": service("Type=oneshot", `ExecStart=/bin/sh -c 'sh -c "echo $$LISTEN_PID $$$$$$$$ > /run/shell"; true'`, "Unit.Requires=shell.socket"),
				"exec.socket":   socket(9009),
				"exec.service":  service("Type=oneshot", `ExecStart=/bin/sh -c 'true; exec sh -c "echo \\$$LISTEN_PID \\$$\\$$ > /run/exec"'`, "Unit.Requires=exec.socket"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "shell.service", "exec.service")
				var listen, self int
				scan(t, content(t, tb, "/run/shell"), &listen, &self)
				assert.NotEqual(t, listen, self)
				scan(t, content(t, tb, "/run/exec"), &listen, &self)
				assert.Equal(t, listen, self)
			},
		},
		{
			"flush-pending",
			map[string]string{
				"flush.socket":  socket(9010, "FlushPending=yes"),
				"flush.service": service("ExecStart=/bin/sleep 1000"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "flush.socket")
				conn := poke(t, tb, 9010)
				waitForProperty(t, tb, "flush.service", "ActiveState", "active")
				tb.MustSystemctl(t, "stop", "flush.service")
				_, err := conn.Read(make([]byte, 1)) // it was waiting
				assert.Error(t, err)
			},
		},
		{
			"socket-required",
			map[string]string{
				"loose.socket":  socket(9011),
				"loose.service": service("ExecStart=/bin/sh -c 'echo \"fds=$LISTEN_FDS\" > /run/loose; exec sleep 1000'"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "loose.service")
				assert.Equal(t, "fds=", content(t, tb, "/run/loose"))
				assert.Equal(t, "inactive", show(tb, "loose.socket", "ActiveState"))
				fails(t, tb, "start", "loose.socket")
			},
		},
		{
			"socket-service",
			map[string]string{
				"pair.service":      service("ExecStart=/bin/sh -c 'echo \"fds=$LISTEN_FDS\" > /run/pair; exec sleep 1000'", "Unit.Wants=pair-admin.socket"),
				"pair-admin.socket": socket(9012),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "pair.service")
				assert.Equal(t, "fds=", content(t, tb, "/run/pair"))
				assert.NotEqual(t, "active", show(tb, "pair-admin.socket", "ActiveState")) // there is no pair-admin.service
			},
		},
		{
			"socket-user",
			map[string]string{
				"dynamic.socket":  socket(9013, "SocketUser=dynamic", "ListenStream=/run/dynamic.sock"),
				"dynamic.service": service("ExecStart=/bin/sleep 1000", "DynamicUser=yes"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				fails(t, tb, "start", "dynamic.socket")
				assert.Equal(t, "failed", show(tb, "dynamic.socket", "ActiveState"))
			},
		},
		{
			"socket-in-runtime-directory",
			map[string]string{
				"dir.socket":  socket(9014, "ListenStream=/run/dir/app.sock"),
				"dir.service": service("ExecStart=/bin/sleep 1000", "RuntimeDirectory=dir"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "dir.socket")
				tb.MustRun(t, "test", "-S", "/run/dir/app.sock")
				tb.MustSystemctl(t, "start", "dir.service")
				tb.MustSystemctl(t, "stop", "dir.service")
				require.NotZero(t, tb.Run(t.Context(), "test", "-S", "/run/dir/app.sock").ExitCode)
				assert.Equal(t, "active", show(tb, "dir.socket", "ActiveState"))
			},
		},
	}
}
