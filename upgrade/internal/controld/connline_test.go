package controld_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
)

// requireAsEncoded compares a line with what all other lines are made with.
func requireAsEncoded(t require.TestingT, c control.Conn) {
	want, err := controld.Encode(control.Line{Conn: &c})
	require.NoError(t, err)
	require.Equal(t, string(want), string(controld.AppendConn(nil, &c)))
}

func TestAppendConn(t *testing.T) {
	got := controld.AppendConn([]byte("before\n"), &control.Conn{
		Generation: 7, PID: 42, Listener: "http", Peer: "192.0.2.1:5", State: control.ConnActive, Doing: "GET /a", Age: 1.5, Quiet: 0.025, In: 10, Out: 20,
	})
	assert.Equal(t, `before
{"conn":{"generation":7,"pid":42,"listener":"http","peer":"192.0.2.1:5","state":"active","doing":"GET /a","age_s":1.5,"quiet_s":0.025,"in_bytes":10,"out_bytes":20}}
`, string(got))
	requireAsEncoded(t, control.Conn{}) // doing is left out, all other fields are there
}

func TestAppendConnNumbers(t *testing.T) {
	for _, f := range []float64{
		0, math.Copysign(0, -1), 1, -1, 0.1, 0.01, 0.001, 0.0001, 0.101, 0.11, 1.5, 10, 100, 1000.25, 0.1 + 0.2, 1.0 / 3, 12345.678, -12345.678,
		1e-6, 9.99e-7, 1e-9, -1e-9, 1e-10, 1e-300, math.SmallestNonzeroFloat64, 1e20, 1e21, 1e22, 1e100, math.MaxFloat64,
		1e12 - 0.001, 1e12, 1e12 + 0.125, 999999999999.9989, 1 << 53, 1<<53 + 2, 1e15, 1e15 - 1, 1e16, 1e18,
	} {
		requireAsEncoded(t, control.Conn{Age: f, Quiet: -f})
	}
	for _, n := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64} {
		requireAsEncoded(t, control.Conn{Generation: int(n), PID: int(n), In: n, Out: -n})
	}
}

func TestAppendConnStrings(t *testing.T) {
	for _, s := range []string{
		"", "<a href=\"x\">&amp;</a>", `\`, `"`, "\x00\x01\x1f\x7f\b\f\n\r\t", "ü世🙂", "\u2027\u2028\u2029\u202a", "a\u2028", "\ufffd\ufeff\U0010ffff",
		"\xff", "a\xe4\xb8", "\xe4\xb8b", "\xed\xa0\x80", "\xc0\xaf", "\xf4\x90\x80\x80", "\x80\x80\"\x80", "\xe2\x80", "\xe2\x80\xa8\xe2\x80",
	} {
		requireAsEncoded(t, control.Conn{Listener: s, Peer: s, State: s, Doing: s})
	}
	for b := range 256 {
		requireAsEncoded(t, control.Conn{Peer: string([]byte{'a', byte(b), 'z'})})
	}
}

// No JSON has these; the line is one all the same.
func TestAppendConnWithoutNumber(t *testing.T) {
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		var l control.Line
		require.NoError(t, json.Unmarshal(controld.AppendConn(nil, &control.Conn{PID: 1, Age: f, Quiet: f}), &l))
		assert.Equal(t, &control.Conn{PID: 1}, l.Conn)
	}
}

func TestAppendConnAsEncoded(t *testing.T) {
	text := rapid.OneOf(
		rapid.String(),
		rapid.StringMatching(`[<>&"\\/ a-z\x{2028}\x{2029}\x{0000}-\x{001f}]*`),
		rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }),
	)
	seconds := rapid.OneOf(
		rapid.Float64(),
		rapid.Float64Range(-1e-5, 1e-5),
		rapid.Map(rapid.Uint64(), math.Float64frombits).Filter(func(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }),
		rapid.Map(rapid.Int64Range(-10, 1<<54), func(ms int64) float64 { return float64(ms) / 1000 }),
		rapid.Map(rapid.Int64Range(0, 1e9), func(n int64) float64 { return math.Nextafter(float64(n)/1000, 0) }),
	)
	rapid.Check(t, func(t *rapid.T) {
		requireAsEncoded(t, control.Conn{
			Generation: rapid.Int().Draw(t, "generation"), PID: rapid.Int().Draw(t, "pid"),
			Listener: text.Draw(t, "listener"), Peer: text.Draw(t, "peer"), State: text.Draw(t, "state"), Doing: text.Draw(t, "doing"),
			Age: seconds.Draw(t, "age"), Quiet: seconds.Draw(t, "quiet"),
			In: rapid.Int64().Draw(t, "in"), Out: rapid.Int64().Draw(t, "out"),
		})
	})
}

func TestAppendConnAllocatesNothing(t *testing.T) {
	c := control.Conn{Generation: 7, PID: 42, Listener: "http", Peer: "192.0.2.1:5", State: control.ConnActive, Doing: "GET /\"ü\xff", Age: 1.0 / 3, Quiet: 1e-9}
	buf := make([]byte, 0, 512)
	assert.Zero(t, testing.AllocsPerRun(100, func() { controld.AppendConn(buf, &c) }))
}
