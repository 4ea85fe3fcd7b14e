package lint_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/testbed"
)

// demonstrateProcesses are demonstrations with more than one process in a service.
func demonstrateProcesses() []demonstration {
	return []demonstration{
		{
			"notify-access",
			map[string]string{
				"main.service": binaryAs("main", childTakeBack, "NotifyAccess=main"),
				"all.service":  binaryAs("all", childTakeBack, "NotifyAccess=all"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "main.service", "all.service")
				for _, unit := range []string{"main.service", "all.service"} {
					waitForProperty(t, tb, unit, "StatusText", "successor") // all has been said
				}
				first := func(unit string) int {
					pids, err := tb.Pids(unit)
					require.NoError(t, err)
					require.Len(t, pids, 2)
					return pids[0]
				}
				assert.NotEqual(t, first("main.service"), tb.MainPID("main.service"), "it was not heard any more")
				assert.Equal(t, first("all.service"), tb.MainPID("all.service"))
			},
		},
		{
			"kill-mode",
			map[string]string{
				"mixed.service": binaryAs("mixed", childHandover, "NotifyAccess=all", "KillMode=mixed", long),
				"group.service": binaryAs("group", childHandover, "NotifyAccess=all"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				for _, unit := range []string{"mixed.service", "group.service"} {
					tb.MustSystemctl(t, "start", unit)
					waitForProperty(t, tb, unit, "StatusText", "successor")
					tb.MustSystemctl(t, "stop", unit)
				}
				for _, name := range []string{childHandover, childSuccessor} {
					assert.False(t, exists(tb, "/run/mixed.finished."+name), "%s was killed", name)
					assert.True(t, exists(tb, "/run/group.finished."+name), "%s had its time", name)
				}
			},
		},
		{
			"exec-stop",
			map[string]string{
				"nostop.service": binaryAs("nostop", childOrphan, "NotifyAccess=all", long),
				"stop.service": binaryAs("stop", childOrphan, "NotifyAccess=all",
					"ExecStop=/bin/sh -c 'kill $MAINPID; while kill -0 $MAINPID; do sleep 0.05; done'"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				for _, unit := range []string{"nostop.service", "stop.service"} {
					tb.MustSystemctl(t, "start", unit)
					waitForProperty(t, tb, unit, "StatusText", "successor")
					tb.WaitFor(t, "the end of the first process", func() bool {
						pids, err := tb.Pids(unit)
						return err == nil && len(pids) == 1
					})
					tb.MustSystemctl(t, "stop", unit)
				}
				assert.False(t, exists(tb, "/run/nostop.finished."+childSuccessor), "it was killed")
				assert.True(t, exists(tb, "/run/stop.finished."+childSuccessor), "it had its time")
			},
		},
		{
			"pid-file",
			map[string]string{
				// The file has the PID of another process of the service.
				"pidfile.service": service("Type=notify", "NotifyAccess=all", "PIDFile=/run/pidfile.pid", "ExecReload=/bin/true",
					"ExecStart=/bin/sh -c 'sleep 1000 & old=$$!; systemd-notify --ready; echo $$old > /run/pidfile.pid; wait'"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "pidfile.service")
				old := content(t, tb, "/run/pidfile.pid")
				require.NotEqual(t, old, show(tb, "pidfile.service", "MainPID"))
				tb.MustSystemctl(t, "reload", "pidfile.service")
				assert.Equal(t, old, show(tb, "pidfile.service", "MainPID"))
			},
		},
		{
			"exit-type",
			map[string]string{
				"cgroup.service":   service("ExitType=cgroup", "ExecStart=/bin/sh -c 'sleep 1000 & exit 0'", "Restart=always"),
				"exitmain.service": service("ExecStart=/bin/sh -c 'sleep 1000 & exit 0'", "Restart=no"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "cgroup.service", "exitmain.service")
				waitForProperty(t, tb, "exitmain.service", "ActiveState", "inactive")
				waitForProperty(t, tb, "cgroup.service", "MainPID", "0")
				assert.Equal(t, "active", show(tb, "cgroup.service", "ActiveState"))
				assert.Equal(t, "0", show(tb, "cgroup.service", "NRestarts"))
			},
		},
	}
}

// scan reads two numbers.
func scan(t *testing.T, text string, a, b *int) {
	t.Helper()
	_, err := fmt.Sscan(text, a, b)
	require.NoError(t, err, "%q", text)
}
