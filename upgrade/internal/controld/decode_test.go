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

func TestDecodePauseAndReconfigure(t *testing.T) {
	for body, want := range map[string]control.PauseRequest{
		"":                         {Via: control.ViaAPI},
		"{}":                       {Via: control.ViaAPI},
		`{"undo":true,"for":"1h"}`: {Undo: true, Via: control.ViaAPI},
		`{"undo":null,"reason":" black\nfriday\u001b ","via":"hdctl"}`: {Reason: "black friday\ufffd", Via: control.ViaHdctl},
		`{"reason":"` + strings.Repeat("x", 255) + `ü"}`:               {Reason: strings.Repeat("x", 255), Via: control.ViaAPI},
	} {
		got, e := controld.DecodePause([]byte(body))
		require.Nil(t, e, body)
		assert.Equal(t, want, got, body)
		r, e := controld.DecodeReconfigure([]byte(body)) // knows no undo
		require.Nil(t, e, body)
		assert.Equal(t, control.ReconfigureRequest{Reason: want.Reason, Via: want.Via}, r, body)
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

func TestDecodeCommandsRefuse(t *testing.T) {
	drain := func(body string) (any, *control.Error) { return controld.DecodeDrain([]byte(body)) }
	end := func(body string) (any, *control.Error) { return controld.DecodeEnd([]byte(body)) }
	pause := func(body string) (any, *control.Error) { return controld.DecodePause([]byte(body)) }
	reconfigure := func(body string) (any, *control.Error) { return controld.DecodeReconfigure([]byte(body)) }
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
		{"pause: not JSON", pause, "undo", "not a JSON object"},
		{"pause: type of undo", pause, `{"undo":1}`, "field undo: want true or false"},
		{"pause: type of reason", pause, `{"reason":[]}`, "field reason: want a string"},
		{"pause: via", pause, `{"via":"method"}`, "field via"},
		{"reconfigure: not JSON", reconfigure, "[]", "not a JSON object"},
		{"reconfigure: truncated", reconfigure, `{"reason":"`, "not JSON"},
		{"reconfigure: type of reason", reconfigure, `{"reason":1}`, "field reason: want a string"},
		{"reconfigure: via", reconfigure, `{"via":"signal"}`, "field via"},
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
