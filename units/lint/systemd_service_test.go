package lint_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/hdctl/handoff/test/testbed"
)

// demonstrateService are demonstrations with a service alone.
func demonstrateService() []demonstration {
	return []demonstration{
		{
			"syntax",
			map[string]string{"syntax.service": service("ExecStart=/bin/sleep 1000", "Restart: always")},
			func(t *testing.T, tb *testbed.Testbed) {
				assert.Equal(t, "no", show(tb, "syntax.service", "Restart"))
			},
		},
		{
			"wrong-section",
			map[string]string{
				"wrong.service": service("ExecStart=/bin/sleep 1000", "StartLimitIntervalSec=0"),
				"right.service": service("ExecStart=/bin/sleep 1000", "Unit.StartLimitIntervalSec=0"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				assert.Equal(t, "10s", show(tb, "wrong.service", "StartLimitIntervalUSec"))
				assert.Equal(t, "0", show(tb, "right.service", "StartLimitIntervalUSec"))
			},
		},
		{
			"default-dependencies",
			map[string]string{
				"nodeps.service": service("ExecStart=/bin/sleep 1000", "Unit.DefaultDependencies=no"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				assert.NotContains(t, show(tb, "nodeps.service", "Conflicts"), "shutdown.target")
				assert.Contains(t, show(tb, "right.service", "Conflicts"), "shutdown.target")
			},
		},
		{
			"type-notify",
			map[string]string{"simple.service": service("ExecStart=/bin/sleep 1000")},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "simple.service") // it is never ready
				assert.Equal(t, "active", show(tb, "simple.service", "ActiveState"))
			},
		},
		{
			"notify-reload-version",
			map[string]string{"nr.service": service("Type=notify-reload", "ExecStart=/bin/sleep 1000")},
			func(t *testing.T, tb *testbed.Testbed) {
				want := "notify-reload"
				if tb.Version() < 253 {
					want = "simple"
				}
				assert.Equal(t, want, show(tb, "nr.service", "Type"))
			},
		},
		{
			"exec-start-ignore",
			map[string]string{"dash.service": service("Type=oneshot", "ExecStart=-/bin/false")},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "dash.service")
				assert.Equal(t, "success", show(tb, "dash.service", "Result"))
			},
		},
		{
			"exec-reload-missing",
			map[string]string{"noreload.service": binaryAs("noreload", childReady)},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "noreload.service")
				assert.Contains(t, fails(t, tb, "reload", "noreload.service"), "Job type reload is not applicable")
			},
		},
		{
			"exec-reload-async",
			map[string]string{
				"async.service": binaryAs("async", childReady, "ExecReload=/bin/sh -c 'kill -HUP $MAINPID'"),
				"sync.service":  binaryAs("sync", childReady, "ExecReload=/bin/false"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "async.service", "sync.service")
				tb.MustSystemctl(t, "reload", "async.service") // although it ignores the signal
				assert.Contains(t, fails(t, tb, "reload", "sync.service"), "Job for sync.service failed")
				assert.Equal(t, "active", show(tb, "sync.service", "ActiveState"))
			},
		},
		{
			"exec-reload-ignore",
			map[string]string{"ignore.service": binaryAs("ignore", childReady, "ExecReload=-/bin/false")},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "ignore.service")
				tb.MustSystemctl(t, "reload", "ignore.service")
			},
		},
		{
			"timeout-start",
			map[string]string{"slow.service": binaryAs("slow", childReady, "ExecReload=/bin/sleep 1000", "TimeoutStartSec=2s")},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "slow.service")
				fails(t, tb, "reload", "slow.service")
				assert.Equal(t, "active", show(tb, "slow.service", "ActiveState"))
			},
		},
		{
			"timeout-infinity",
			map[string]string{"zero.service": service("ExecStart=/bin/sleep 1000", "TimeoutStopSec=0")},
			func(t *testing.T, tb *testbed.Testbed) {
				assert.Equal(t, "infinity", show(tb, "zero.service", "TimeoutStopUSec"))
			},
		},
		{
			"timeout-stop",
			map[string]string{"impatient.service": binaryAs("impatient", childReady, "TimeoutStopSec=10ms", long)},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "impatient.service")
				tb.MustSystemctl(t, "stop", "impatient.service")
				assert.Equal(t, "timeout", show(tb, "impatient.service", "Result"))
				assert.False(t, exists(tb, "/run/impatient.finished."+childReady))
			},
		},
		{
			"runtime-max",
			map[string]string{"max.service": service("ExecStart=/bin/sleep 1000", "RuntimeMaxSec=100ms")},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "max.service")
				waitForProperty(t, tb, "max.service", "Result", "timeout")
			},
		},
		{
			"restart-prevent",
			map[string]string{"prevent.service": service("ExecStart=/bin/false", "Restart=always", "RestartSec=0", "RestartPreventExitStatus=1")},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.Systemctl("start", "prevent.service")
				waitForProperty(t, tb, "prevent.service", "ActiveState", "failed")
				assert.Equal(t, "0", show(tb, "prevent.service", "NRestarts"))
			},
		},
		{
			"remain-after-exit",
			map[string]string{"remain.service": service("ExecStart=/bin/true", "Restart=always", "RemainAfterExit=yes")},
			func(t *testing.T, tb *testbed.Testbed) {
				tb.MustSystemctl(t, "start", "remain.service")
				waitForProperty(t, tb, "remain.service", "SubState", "exited")
				assert.Equal(t, "active", show(tb, "remain.service", "ActiveState"))
				assert.Equal(t, "0", show(tb, "remain.service", "NRestarts"))
			},
		},
		{
			"oom-policy",
			map[string]string{"oom.service": service("ExecStart=/bin/sleep 1000")},
			func(t *testing.T, tb *testbed.Testbed) {
				assert.Equal(t, "stop", show(tb, "oom.service", "OOMPolicy")) // the default
			},
		},
		{
			"restrict-address-families",
			map[string]string{
				"family.service": binaryAs("family", childReady, "RestrictAddressFamilies=AF_INET AF_INET6"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				fails(t, tb, "start", "family.service")
				tb.WaitFor(t, "the reason in the journal", func() bool {
					entries, err := tb.Journal("--unit=family.service")
					return err == nil && slices.ContainsFunc(entries, func(e testbed.JournalEntry) bool {
						return strings.Contains(e.Message, "address family not supported by protocol")
					})
				})
			},
		},
		{
			"system-call-filter",
			map[string]string{
				"filter.service":  service("Type=oneshot", "ExecStart=/bin/sh -c '/bin/true; exit 0'", "SystemCallFilter=@system-service", "SystemCallFilter=~@process"),
				"filter2.service": service("Type=oneshot", "ExecStart=/bin/sh -c '/bin/true; exit 0'", "SystemCallFilter=@system-service", "SystemCallFilter=~@privileged"),
			},
			func(t *testing.T, tb *testbed.Testbed) {
				fails(t, tb, "start", "filter.service")
				tb.MustSystemctl(t, "start", "filter2.service")
			},
		},
		{
			"unset-environment",
			map[string]string{"unset.service": binaryAs("unset", childReady, "UnsetEnvironment=NOTIFY_SOCKET")},
			func(t *testing.T, tb *testbed.Testbed) {
				fails(t, tb, "start", "unset.service")
			},
		},
	}
}
