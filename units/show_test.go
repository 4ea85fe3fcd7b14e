package units_test

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/units"
)

func TestParseShow(t *testing.T) {
	out, err := os.ReadFile("testdata/show/252.txt")
	require.NoError(t, err)
	values := units.ParseShow(string(out), units.DriftProperties())
	assert.Len(t, values, 14)
	assert.Equal(t, "4096", values["LimitNOFILE"])
	assert.Equal(t, "/etc/nothere.env (ignore_errors=yes)\n/etc/app.env (ignore_errors=no)\n/etc/more/*.env (ignore_errors=no)", values["EnvironmentFiles"])
	assert.Equal(t,
		[]string{"A=1", "B=two words", "C=app.service", "D=$HOME", `E=quo"te`, `F=back\slash`, "OVER=unit", "LINE=a\nb", "UNI=é\x01"},
		units.Words(values["Environment"]))
	assert.Equal(t,
		[]string{"/etc/systemd/system/app.service.d/x y.conf", "/etc/systemd/system/app.service.d/z.conf"},
		units.Words(values["DropInPaths"]))

	// A newline in an argument, and what looks like a property but was not asked for.
	values = units.ParseShow("ExecStart={ path=/bin/sh ; argv[]=/bin/sh -c a\nB=c ; ignore_errors=no }\nUser=\n", []string{"ExecStart", "User"})
	assert.Equal(t, map[string]string{"ExecStart": "{ path=/bin/sh ; argv[]=/bin/sh -c a\nB=c ; ignore_errors=no }", "User": ""}, values)
	assert.Empty(t, units.ParseShow("", []string{"User"}))
}

func TestWords(t *testing.T) {
	for list, want := range map[string][]string{
		"":                               nil,
		"  ":                             nil,
		"a  b":                           {"a", "b"},
		`"a b" c`:                        {"a b", "c"},
		`a="b c"d`:                       {"a=b cd"},
		`"" a`:                           {"", "a"},
		`"\x41\102\u00e9\U0001f600\s\q"`: {"ABé😀 q"},
		`"\x4" \u12 \777`:                {"x4", "u12", "777"},
		`a\`:                             {`a\`},
		`"open`:                          {"open"},
	} {
		assert.Equal(t, want, units.Words(list), "%s", list)
	}
}

// FuzzWords checks that nothing panics.
func FuzzWords(f *testing.F) {
	f.Add(`A=1 "B=two \"words\"" C=\x41\u00e9`)
	f.Fuzz(func(_ *testing.T, list string) { units.Words(list) })
}

func TestSystemctlFails(t *testing.T) {
	leak.Check(t)
	t.Setenv("PATH", "/no/such")
	_, err := units.Systemctl(false)(t.Context(), "app.service", "User")
	assert.ErrorContains(t, err, "systemctl show: ")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = units.Systemctl(true)(ctx, "app.service", "User")
	assert.Error(t, err)
}
