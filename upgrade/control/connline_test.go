package control_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
)

// plain is a line that is read the fast way.
const plain = `{"conn":{"generation":7,"pid":42,"listener":"http","peer":"192.0.2.1:5","state":"idle","doing":"GET /a",` +
	`"age_s":1.5,"quiet_s":0,"in_bytes":10,"out_bytes":20}}`

// What is decoded the fast way means the same to encoding/json.
func requireSame(t require.TestingT, line []byte) (fast bool) {
	got, ok := control.DecodeConn(line)
	if !ok {
		return false
	}
	var want control.Line
	require.NoError(t, json.Unmarshal(line, &want), "%q", line)
	require.Equal(t, control.Line{Conn: &got}, want, "%q", line)
	return true
}

func TestDecodeConn(t *testing.T) {
	for _, tt := range []struct {
		name     string
		old, new string // what is replaced in plain
		fast     bool
	}{
		{"as it is", "", "", true},
		{"doing nothing", `"doing":"GET /a",`, "", true},
		{"a doing that is empty", `"GET /a"`, `""`, true},
		{"empty strings", `"http"`, `""`, true},
		{"a state of the future", `"idle"`, `"asleep"`, true},
		{"UTF-8", "GET /a", "GET /世界/ü\u2028\ufffd<>&\x7f", true},
		{"the largest numbers", `"in_bytes":10`, `"in_bytes":999999999999999`, true},
		{"a fraction of 15 digits", "1.5", "1234567890.12345", true},
		{"a fraction with zeros", "1.5", "0.000000000000000", false},
		{"a fraction that is rounded", "1.5", "0.1", true},

		{"not UTF-8", "GET /a", "GET /\xff", false},
		{"half a character", "GET /a", "GET /\xe4\xb8", false},
		{"an escape", "GET /a", `GET /\u0061`, false},
		{"a quote", "GET /a", `GET /\"`, false},
		{"a backslash at the end", "GET /a", `GET /\`, false},
		{"a control character", "GET /a", "GET /\t", false},
		{"a larger number", `"in_bytes":10`, `"in_bytes":1000000000000000`, false},
		{"a number that is too large", `"in_bytes":10`, `"in_bytes":99999999999999999999`, false},
		{"a fraction of 16 digits", "1.5", "1234567890.123456", false},
		{"an exponent", "1.5", "1e3", false},
		{"an exponent after a fraction", "1.5", "1.5e3", false},
		{"negative", "1.5", "-1.5", false},
		{"a leading zero", "1.5", "01.5", false},
		{"no digit before the point", "1.5", ".5", false},
		{"no digit after the point", "1.5", "1.", false},
		{"no number", "1.5", "", false},
		{"a fraction where none can be", `"pid":42`, `"pid":42.0`, false},
		{"a new field", `"age_s"`, `"tls":true,"age_s"`, false},
		{"a new field at the end", `}}`, `,"tls":true}}`, false},
		{"another order", `"generation":7,"pid":42`, `"pid":42,"generation":7`, false},
		{"spaces", `:`, `: `, false},
		{"a space at the end", `}}`, `}} `, false},
		{"a carriage return", `}}`, "}}\r", false},
		{"something else at the end", `}}`, `}}}`, false},
		{"null", `"http"`, `null`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			line := strings.Replace(plain, tt.old, tt.new, 1)
			assert.Equal(t, tt.fast, requireSame(t, []byte(line)), line)
		})
	}
	for n := range plain {
		_, ok := control.DecodeConn([]byte(plain[:n]))
		assert.False(t, ok, "cut off at %d", n)
	}
}

// Both ways to write a line are read as what was written, by whichever way.
func TestDecodeConnOfAny(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ -~]{0,20}`), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
		seconds := rapid.OneOf(rapid.Float64(), rapid.Map(rapid.Int64Range(0, 1e13), func(ms int64) float64 { return float64(ms) / 1000 }))
		bytesOf := rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 1e16))
		c := control.Conn{
			Generation: rapid.Int().Draw(t, "generation"), PID: rapid.Int().Draw(t, "pid"),
			Listener: text.Draw(t, "listener"), Peer: text.Draw(t, "peer"), State: text.Draw(t, "state"), Doing: text.Draw(t, "doing"),
			Age: seconds.Draw(t, "age"), Quiet: seconds.Draw(t, "quiet"), In: bytesOf.Draw(t, "in"), Out: bytesOf.Draw(t, "out"),
		}
		escaped, err := json.Marshal(control.Line{Conn: &c})
		require.NoError(t, err)
		requireSame(t, escaped)
		requireSame(t, bytes.TrimSuffix(controld.AppendConn(nil, &c), []byte("\n")))
	})
}

// The fast way has to be the usual one.
func TestDecodeConnIsFastForAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := control.Conn{
			Generation: rapid.IntRange(0, 1e9).Draw(t, "generation"), PID: rapid.IntRange(0, 1<<22).Draw(t, "pid"),
			Listener: rapid.StringMatching(`[a-z.-]{1,20}`).Draw(t, "listener"),
			Peer:     rapid.SampledFrom([]string{"", "192.0.2.1:1", "[2001:db8::1%eth0]:65535", "@", "/run/x.sock"}).Draw(t, "peer"),
			State:    rapid.SampledFrom([]string{control.ConnNew, control.ConnActive, control.ConnIdle, control.ConnStream, control.ConnHijacked}).Draw(t, "state"),
			Doing:    rapid.StringMatching(`(|(GET|POST) /[ !#-\[\]-~ü世]{0,40})`).Draw(t, "doing"),
			Age:      float64(rapid.Int64Range(0, 1e14).Draw(t, "age")) / 1000,
			Quiet:    float64(rapid.Int64Range(0, 1e14).Draw(t, "quiet")) / 1000,
			In:       rapid.Int64Range(0, 1e15-1).Draw(t, "in"), Out: rapid.Int64Range(0, 1e15-1).Draw(t, "out"),
		}
		line := bytes.TrimSuffix(controld.AppendConn(nil, &c), []byte("\n"))
		got, ok := control.DecodeConn(line)
		require.True(t, ok, "%s", line)
		require.Equal(t, c, got)
	})
}

func FuzzConnLine(f *testing.F) {
	f.Add([]byte(plain))
	f.Add([]byte(strings.Replace(plain, `"doing":"GET /a",`, "", 1)))
	f.Add([]byte(strings.Replace(plain, "GET /a", "\u2028\xff\\u0000", 1)))
	f.Add([]byte(strings.Replace(plain, "1.5", "0.30000000000000004", 1)))
	f.Add([]byte(`{"end":{"total":1}}`))
	f.Fuzz(func(t *testing.T, line []byte) { requireSame(t, line) })
}
