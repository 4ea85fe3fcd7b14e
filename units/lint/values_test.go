package lint_test

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/units/lint"
)

var spans = []struct {
	text string
	want time.Duration // -1: none
}{
	{"0", 0},
	{"90", 90 * time.Second},
	{"1min 30s", 90 * time.Second},
	{"1min30s", 90 * time.Second},
	{"1.5s", 1500 * time.Millisecond},
	{"2m", 2 * time.Minute},
	{"2M", 2 * 2629800 * time.Second},
	{"300ms20s 5day", 5*24*time.Hour + 20*time.Second + 300*time.Millisecond},
	{"10usec 2us 3µs", 15 * time.Microsecond},
	{" 2 hr ", 2 * time.Hour},
	{"1 year", 31557600 * time.Second},
	{"1w 1hours 1seconds", 7*24*time.Hour + time.Hour + time.Second},
	{".5s", 500 * time.Millisecond},
	{"", -1},
	{"x", -1},
	{"5 x", -1},
	{"-1s", -1},
	{"1s infinity", -1},
	{"1.s", -1},
	{"s", -1},
}

func TestSpans(t *testing.T) {
	for _, tt := range spans {
		got, ok := units.ParseSpan(tt.text)
		assert.Equal(t, tt.want >= 0, ok, "%q", tt.text)
		if ok {
			assert.Equal(t, tt.want, got, "%q", tt.text)
		}
	}
	got, ok := units.ParseSpan("infinity")
	assert.True(t, ok)
	assert.Greater(t, got, 200*365*24*time.Hour)
	_, ok = units.ParseSpan("999999999999y")
	assert.False(t, ok)
}

// systemd reads time spans in the same way.
func TestSpansAsSystemd(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	for _, tt := range spans {
		if tt.text == "" {
			continue
		}
		out, err := exec.Command(analyze, "timespan", "--", tt.text).Output()
		match := regexp.MustCompile(`s: (\d+)\n`).FindSubmatch(out)
		if tt.want < 0 {
			assert.Error(t, err, "%q", tt.text)
			continue
		}
		require.NoError(t, err, "%q", tt.text)
		require.NotNil(t, match, "%q: %s", tt.text, out)
		usec, err := strconv.ParseInt(string(match[1]), 10, 64)
		require.NoError(t, err)
		assert.Equal(t, tt.want, time.Duration(usec)*time.Microsecond, "%q", tt.text)
	}
}

func TestWords(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"  a\tb ", []string{"a", "b"}},
		{`"a b" 'c d' e`, []string{"a b", "c d", "e"}},
		{`A="b c"d`, []string{"A=b cd"}},
		{`a\ b "\"" '\''`, []string{"a b", `"`, "'"}},
		{`"" ''`, []string{"", ""}},
		{`"a b`, []string{"a b"}},
	} {
		assert.Equal(t, tt.want, lint.Words(tt.text), "%q", tt.text)
	}
}

// The rules about HANDOFF_* know all variables of package upgrade, and no others.
func TestVariables(t *testing.T) {
	text, err := os.ReadFile("../../upgrade/options.go")
	require.NoError(t, err)
	read := make(map[string]bool)
	for _, m := range regexp.MustCompile(`"(HANDOFF_[A-Z_]+)"`).FindAllSubmatch(text, -1) {
		read[string(m[1])] = true
	}
	require.Contains(t, read, "HANDOFF_READY_TIMEOUT")
	for name := range read {
		_, ok := lint.Variables[name]
		assert.True(t, ok, "package upgrade knows %s", name)
	}
	for name := range lint.Variables {
		if name != "HANDOFF_PACKAGE_UPGRADE" && name != "HANDOFF_NOTIFY_RELOAD" {
			assert.True(t, read[name], "package upgrade does not know %s", name)
		}
	}
}
