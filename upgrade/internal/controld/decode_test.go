package controld_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
)

func TestDecodeUpgrade(t *testing.T) {
	defaults := control.UpgradeRequest{Wait: control.WaitConfirmed, Via: control.ViaAPI}
	with := func(set func(*control.UpgradeRequest)) control.UpgradeRequest {
		r := defaults
		set(&r)
		return r
	}
	tests := []struct {
		name, body string
		want       control.UpgradeRequest
	}{
		{"empty", "", defaults},
		{"blank", " \r\n", defaults},
		{"no fields", "{}\n", defaults},
		{"nulls", `{"wait":null,"timeout_s":null}`, defaults},
		{"unknown fields", `{"stage":{"share":[0.5]},"x":null}`, defaults},
		{"all", `{"wait":"drained","queue":true,"timeout_s":42.5,"reason":"deploy 17","via":"systemctl"}`, control.UpgradeRequest{
			Wait: "drained", Queue: true, Timeout: 42.5, Reason: "deploy 17", Via: "systemctl",
		}},
		{"longest timeout", `{"timeout_s":86400}`, with(func(r *control.UpgradeRequest) { r.Timeout = 86400 })},
		{"shortest timeout", `{"timeout_s":1e-3}`, with(func(r *control.UpgradeRequest) { r.Timeout = 0.001 })},
		{"reason of several lines", `{"reason":" a\nb\tc\u001b[2J\u202ed "}`, with(func(r *control.UpgradeRequest) { r.Reason = "a b c\ufffd[2J\ufffdd" })},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, e := controld.DecodeUpgrade([]byte(tt.body))
			require.Nil(t, e)
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestDecodeUpgradeRefuses(t *testing.T) {
	tests := []struct{ name, body, message string }{
		{"not JSON", "upgrade", "not a JSON object"},
		{"form", "wait=drained", "not a JSON object"},
		{"null", "null", "not a JSON object"},
		{"array", "[]", "not a JSON object"},
		{"number", "1", "not a JSON object"},
		{"truncated", `{"wait":"dra`, "not JSON"},
		{"trailing garbage", `{} {}`, "not JSON"},
		{"deep", `{"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`, "not JSON"},
		{"wait", `{"wait":"serving"}`, "field wait"},
		{"type of wait", `{"wait":1}`, "field wait"},
		{"type of queue", `{"queue":"yes"}`, "field queue: want true or false"},
		{"type of timeout", `{"timeout_s":"90s"}`, "field timeout_s: want a number"},
		{"type of reason", `{"reason":{}}`, "field reason: want a string"},
		{"via", `{"via":"signal"}`, "field via"}, // these are made by the service
		{"negative", `{"timeout_s":-1}`, "field timeout_s"},
		{"NaN", `{"timeout_s":NaN}`, "not JSON"},
		{"huge", `{"timeout_s":86401}`, "field timeout_s"},
		{"overflow", `{"timeout_s":1e999}`, "field timeout_s"},
		{"would be rounded to none", `{"timeout_s":1e-10}`, "field timeout_s"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, e := controld.DecodeUpgrade([]byte(tt.body))
			require.NotNil(t, e)
			assert.Equal(t, control.CodeBadRequest, e.Code)
			assert.Contains(t, e.Message, tt.message)
			assert.Less(t, len(e.Message), 300)
			assert.Zero(t, got)
		})
	}
}

func TestDecodeDrain(t *testing.T) {
	for body, want := range map[string]control.DrainRequest{
		"":                          {Via: control.ViaAPI},
		"{}":                        {Via: control.ViaAPI},
		`{"undo":true,"share":0.5}`: {Undo: true, Via: control.ViaAPI},
		`{"undo":null,"reason":" disk\nfull\u001b ","via":"hdctl"}`: {Reason: "disk full\ufffd", Via: control.ViaHdctl},
		`{"reason":"` + strings.Repeat("x", 300) + `"}`:             {Reason: strings.Repeat("x", 256), Via: control.ViaAPI},
	} {
		got, e := controld.DecodeDrain([]byte(body))
		require.Nil(t, e, body)
		assert.Equal(t, want, got, body)
	}
}

func TestDecodeEnd(t *testing.T) {
	for body, want := range map[string]control.EndRequest{
		"":                 {Via: control.ViaAPI},
		"{}":               {Via: control.ViaAPI},
		`{"generation":0}`: {Via: control.ViaAPI},
		`{"generation":6,"grace_s":1.5,"kill":true,"via":"systemctl","later":[]}`: {Generation: 6, Grace: 1.5, Kill: true, Via: control.ViaSystemctl},
		`{"grace_s":-0}`:    {Via: control.ViaAPI},
		`{"grace_s":-7}`:    {Grace: -1, Via: control.ViaAPI},
		`{"grace_s":1e-3}`:  {Grace: 0.001, Via: control.ViaAPI},
		`{"grace_s":86400}`: {Grace: 86400, Via: control.ViaAPI},
	} {
		got, e := controld.DecodeEnd([]byte(body))
		require.Nil(t, e, body)
		assert.Equal(t, want, got, body)
	}
}

func TestDecodeDrainAndEndRefuse(t *testing.T) {
	drain := func(body string) (any, *control.Error) { return controld.DecodeDrain([]byte(body)) }
	end := func(body string) (any, *control.Error) { return controld.DecodeEnd([]byte(body)) }
	tests := []struct {
		name    string
		decode  func(string) (any, *control.Error)
		body    string
		message string
	}{
		{"drain: not JSON", drain, "undo", "not a JSON object"},
		{"drain: null", drain, "null", "not a JSON object"},
		{"drain: truncated", drain, `{"undo":tr`, "not JSON"},
		{"drain: type of undo", drain, `{"undo":1}`, "field undo: want true or false"},
		{"drain: type of reason", drain, `{"reason":1}`, "field reason: want a string"},
		{"drain: via", drain, `{"via":"signal"}`, "field via"},
		{"end: not JSON", end, "6", "not a JSON object"},
		{"end: trailing garbage", end, "{}{}", "not JSON"},
		{"end: type of generation", end, `{"generation":"6"}`, "field generation: want a whole number"},
		{"end: fraction of a generation", end, `{"generation":6.5}`, "field generation: want a whole number"},
		{"end: negative generation", end, `{"undo":true,"generation":-1}`, "field generation: -1"},
		{"end: huge generation", end, `{"generation":99999999999999999999}`, "field generation"},
		{"end: type of grace", end, `{"grace_s":"5s"}`, "field grace_s: want a number"},
		{"end: grace that would be rounded to the default", end, `{"grace_s":1e-10}`, "field grace_s"},
		{"end: huge grace", end, `{"grace_s":86401}`, "field grace_s"},
		{"end: type of kill", end, `{"kill":"TERM"}`, "field kill: want true or false"},
		{"end: via", end, `{"via":"me"}`, "field via"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, e := tt.decode(tt.body)
			require.NotNil(t, e)
			assert.Equal(t, control.CodeBadRequest, e.Code)
			assert.Contains(t, e.Message, tt.message)
			assert.Less(t, len(e.Message), 300)
			assert.Zero(t, got)
		})
	}
}

func TestPrintable(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"plain", "plain"},
		{"grüße 世界 🙂", "grüße 世界 🙂"},
		{"a\x00b\x7fc\u0085d\u2028e", "a\ufffdb\ufffdc d e"},
		{"bad \xff\xfe", "bad \ufffd\ufffd"},
		{strings.Repeat("x", 300), strings.Repeat("x", 256)},
		{strings.Repeat("x", 255) + "ü", strings.Repeat("x", 255)},
		{strings.Repeat("x", 254) + "ü", strings.Repeat("x", 254) + "ü"},
		{strings.Repeat("x", 255) + " y", strings.Repeat("x", 255)},
	} {
		got := controld.Printable(tt.in, 256)
		assert.Equal(t, tt.want, got)
		assert.True(t, utf8.ValidString(got))
	}
}
