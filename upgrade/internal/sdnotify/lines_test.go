package sdnotify_test

import (
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/internal/sdnotify"
)

func TestLines(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{sdnotify.Ready, "READY=1"},
		{sdnotify.Stopping, "STOPPING=1"},
		{sdnotify.Watchdog, "WATCHDOG=1"},
		{sdnotify.MainPID(4242), "MAINPID=4242"},
		{sdnotify.Errno(unix.EIO), "ERRNO=5"},
		{sdnotify.ExtendTimeout(2 * time.Second), "EXTEND_TIMEOUT_USEC=2000000"},
		{sdnotify.ExtendTimeout(0), "EXTEND_TIMEOUT_USEC=1"},
		{sdnotify.ExtendTimeout(-time.Second), "EXTEND_TIMEOUT_USEC=1"},
		{sdnotify.Status("serving generation 7"), "STATUS=serving generation 7"},
		{sdnotify.Status(""), "STATUS="},
		{sdnotify.Status("failed:\nMAINPID=1\r\nREADY=1"), "STATUS=failed: MAINPID=1  READY=1"},
		{sdnotify.Status("a\x00b\tc\xffd"), "STATUS=a b c\uFFFDd"},
		{sdnotify.Status("grün"), "STATUS=grün"},
		{sdnotify.Status(strings.Repeat("x", 1024)), "STATUS=" + strings.Repeat("x", 1024)},
		{sdnotify.Status(strings.Repeat("x", 1025)), "STATUS=" + strings.Repeat("x", 1021) + "…"},
		{sdnotify.Status("xy" + strings.Repeat("ü", 600)), "STATUS=xy" + strings.Repeat("ü", 509) + "…"},
		{sdnotify.Status("x" + strings.Repeat("€", 600)), "STATUS=x" + strings.Repeat("€", 340) + "…"},
		{sdnotify.Status(strings.Repeat("€", 600)), "STATUS=" + strings.Repeat("€", 340) + "…"},
	} {
		assert.Equal(t, test.want, test.got)
	}
}

func FuzzStatus(f *testing.F) {
	f.Add("serving\nREADY=1\x00\xff")
	f.Add(strings.Repeat("\xe2\x82", 700))
	f.Fuzz(func(t *testing.T, text string) {
		line := sdnotify.Status(text)
		require.True(t, strings.HasPrefix(line, "STATUS="))
		require.True(t, utf8.ValidString(line))
		require.NotContains(t, line, "\n")
		require.NotContains(t, line, "\r")
		require.NotContains(t, line, "\x00")
		require.LessOrEqual(t, len(line), len("STATUS=")+1024)
	})
}

// The time is systemd's CLOCK_MONOTONIC, in microseconds: systemd ignores a
// RELOADING=1 that it takes for older than its signal.
func TestReloading(t *testing.T) {
	clock := func() int64 {
		var now unix.Timespec
		require.NoError(t, unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
		return now.Nano() / 1000
	}
	before := clock()
	text := sdnotify.Reloading()
	after := clock()
	usec, ok := strings.CutPrefix(text, "RELOADING=1\nMONOTONIC_USEC=")
	require.True(t, ok, "%q", text)
	n, err := strconv.ParseInt(usec, 10, 64)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, n, before)
	assert.LessOrEqual(t, n, after)
}
