package controld_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
)

// step is a step of an automatic upgrade.
const step = `{"share_pct":5,"time_s":30}`

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
		{"unknown fields", `{"canary":{"share":[0.5]},"x":null}`, defaults},
		{"all", `{"wait":"drained","queue":true,"timeout_s":42.5,"reason":"deploy 17","via":"systemctl"}`, control.UpgradeRequest{
			Wait: "drained", Queue: true, Timeout: 42.5, Reason: "deploy 17", Via: "systemctl",
		}},
		{"stage", `{"stage_pct":5,"stage_timeout_s":600,"timeout_s":-0}`, with(func(r *control.UpgradeRequest) { r.Stage, r.StageTimeout = 5, 600 })},
		{"whole stage", `{"stage_pct":100}`, with(func(r *control.UpgradeRequest) { r.Stage = 100 })},
		{"small stage", `{"stage_pct":0.01}`, with(func(r *control.UpgradeRequest) { r.Stage = 0.01 })},
		{"no stage", `{"stage_pct":-0,"stage_timeout_s":-0,"auto":null}`, defaults},
		{"auto", `{"auto":{}}`, with(func(r *control.UpgradeRequest) { r.Auto = new(control.Auto) })},
		{"auto and no stage", `{"stage_pct":0,"auto":{"steps":null,"later":1}}`, with(func(r *control.UpgradeRequest) { r.Auto = new(control.Auto) })},
		{
			"auto with all", `{"auto":{"steps":[{"share_pct":50,"time_s":0.001},{"share_pct":5,"time_s":86400}],"min_requests":10,"max_errors_pct":100,"max_slowdown":1}}`,
			with(func(r *control.UpgradeRequest) {
				r.Auto = &control.Auto{Steps: []control.Step{{Share: 50, Time: 0.001}, {Share: 5, Time: 86400}}, MinRequests: 10, MaxErrors: 100, MaxSlowdown: 1}
			}),
		},
		{"auto with zeros", `{"auto":{"min_requests":0,"max_errors_pct":-0,"max_slowdown":-0}}`, with(func(r *control.UpgradeRequest) { r.Auto = new(control.Auto) })},
		{"most steps", `{"auto":{"steps":[` + strings.TrimSuffix(strings.Repeat(step+",", 20), ",") + `]}}`, with(func(r *control.UpgradeRequest) {
			r.Auto = &control.Auto{Steps: slices.Repeat([]control.Step{{Share: 5, Time: 30}}, 20)}
		})},
		{"binary", `{"binary":"/opt/app v2/äpp"}`, with(func(r *control.UpgradeRequest) { r.Binary = "/opt/app v2/äpp" })},
		{"long binary", `{"binary":"/` + strings.Repeat("x", 4095) + `"}`, with(func(r *control.UpgradeRequest) { r.Binary = "/" + strings.Repeat("x", 4095) })},
		{"checks", `{"if_changed":true,"dry_run":true}`, with(func(r *control.UpgradeRequest) { r.IfChanged, r.DryRun = true, true })},
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
		{"negative stage", `{"stage_pct":-1}`, "field stage_pct"},
		{"more than all", `{"stage_pct":100.01}`, "field stage_pct"},
		{"type of stage", `{"stage_pct":"5%"}`, "field stage_pct: want a number"},
		{"stage timeout", `{"stage_timeout_s":86401}`, "field stage_timeout_s"},
		{"negative stage timeout", `{"stage_timeout_s":-1}`, "field stage_timeout_s"},
		{"auto and stage", `{"stage_pct":5,"auto":{}}`, "field auto excludes field stage_pct"},
		{"type of auto", `{"auto":true}`, "field auto: want an object"},
		{"type of steps", `{"auto":{"steps":{}}}`, "field auto.steps: want a list"},
		{"type of a step", `{"auto":{"steps":[5]}}`, "field auto.steps: want an object"},
		{"type of a share", `{"auto":{"steps":[{"share_pct":"5"}]}}`, "field auto.steps.share_pct: want a number"},
		{"too many steps", `{"auto":{"steps":[` + strings.TrimSuffix(strings.Repeat(step+",", 21), ",") + `]}}`, "field auto.steps: 21 steps"},
		{"step without a share", `{"auto":{"steps":[` + step + `,{"time_s":1}]}}`, "field auto.steps[1].share_pct: a step needs"},
		{"step with a negative share", `{"auto":{"steps":[{"share_pct":-5,"time_s":1}]}}`, "field auto.steps[0].share_pct"},
		{"step with more than all", `{"auto":{"steps":[{"share_pct":101,"time_s":1}]}}`, "field auto.steps[0].share_pct"},
		{"step without a time", `{"auto":{"steps":[{"share_pct":5}]}}`, "field auto.steps[0].time_s: a step needs"},
		{"null for a step", `{"auto":{"steps":[null]}}`, "field auto.steps[0].share_pct: a step needs"},
		{"step with a short time", `{"auto":{"steps":[{"share_pct":5,"time_s":1e-4}]}}`, "field auto.steps[0].time_s"},
		{"step with a long time", `{"auto":{"steps":[{"share_pct":5,"time_s":86401}]}}`, "field auto.steps[0].time_s"},
		{"step with a negative time", `{"auto":{"steps":[{"share_pct":5,"time_s":-1}]}}`, "field auto.steps[0].time_s"},
		{"negative requests", `{"auto":{"min_requests":-1}}`, "field auto.min_requests: -1"},
		{"half a request", `{"auto":{"min_requests":0.5}}`, "field auto.min_requests: want a whole number"},
		{"negative errors", `{"auto":{"max_errors_pct":-1}}`, "field auto.max_errors_pct"},
		{"more errors than requests", `{"auto":{"max_errors_pct":101}}`, "field auto.max_errors_pct"},
		{"faster than it was", `{"auto":{"max_slowdown":0.5}}`, "field auto.max_slowdown"},
		{"negative slowdown", `{"auto":{"max_slowdown":-2}}`, "field auto.max_slowdown"},
		{"relative binary", `{"binary":"bin/app"}`, "not an absolute path"},
		{"binary that is looked up", `{"binary":"app"}`, "not an absolute path"},
		{"type of binary", `{"binary":["/a"]}`, "field binary: want a string"},
		{"binary with a NUL", `{"binary":"/a\u0000"}`, "cannot be printed"},
		{"binary with a newline", `{"binary":"/a\nMAINPID=1"}`, "cannot be printed"},
		{"binary that writes backwards", `{"binary":"/a\u202eb"}`, "cannot be printed"},
		{"binary that is not UTF-8", "{\"binary\":\"/a\xff\"}", "cannot be printed"},
		{"too long binary", `{"binary":"/` + strings.Repeat("x", 4096) + `"}`, "at most 4096 bytes"},
		{"type of dry run", `{"dry_run":1}`, "field dry_run: want true or false"},
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

func TestDecodePromoteAndRollback(t *testing.T) {
	for body, want := range map[string]control.PromoteRequest{
		"":                                {Wait: control.WaitConfirmed, Via: control.ViaAPI},
		"{}":                              {Wait: control.WaitConfirmed, Via: control.ViaAPI},
		`{"share_pct":-0,"timeout_s":-0}`: {Wait: control.WaitConfirmed, Via: control.ViaAPI},
		`{"share_pct":0.5,"later":{}}`:    {Share: 0.5, Wait: control.WaitConfirmed, Via: control.ViaAPI},
		`{"share_pct":100,"wait":"drained","timeout_s":1.5,"reason":" a\nb ","via":"hdctl"}`: {
			Share: 100, Wait: control.WaitDrained, Timeout: 1.5, Reason: "a b", Via: control.ViaHdctl,
		},
		`{"reason":"` + strings.Repeat("x", 255) + `ü"}`: {Reason: strings.Repeat("x", 255), Wait: control.WaitConfirmed, Via: control.ViaAPI},
	} {
		got, e := controld.DecodePromote([]byte(body))
		require.Nil(t, e, body)
		assert.Equal(t, want, got, body)
		r, e := controld.DecodeRollback([]byte(body)) // knows no share
		require.Nil(t, e, body)
		assert.Equal(t, control.RollbackRequest{Wait: want.Wait, Timeout: want.Timeout, Reason: want.Reason, Via: want.Via}, r, body)
	}
}

func TestDecodePromoteAndRollbackRefuse(t *testing.T) {
	promote := func(body string) (any, *control.Error) { return controld.DecodePromote([]byte(body)) }
	rollback := func(body string) (any, *control.Error) { return controld.DecodeRollback([]byte(body)) }
	tests := []struct {
		name    string
		decode  func(string) (any, *control.Error)
		body    string
		message string
	}{
		{"promote: not JSON", promote, "50", "not a JSON object"},
		{"promote: type of share", promote, `{"share_pct":"50%"}`, "field share_pct: want a number"},
		{"promote: negative share", promote, `{"share_pct":-1}`, "field share_pct"},
		{"promote: more than all", promote, `{"share_pct":101}`, "field share_pct"},
		{"promote: overflow", promote, `{"share_pct":1e999}`, "field share_pct"},
		{"promote: wait", promote, `{"wait":"staged"}`, "field wait"},
		{"promote: timeout", promote, `{"timeout_s":-1}`, "field timeout_s"},
		{"promote: via", promote, `{"via":"signal"}`, "field via"},
		{"rollback: null", rollback, "null", "not a JSON object"},
		{"rollback: type of reason", rollback, `{"reason":1}`, "field reason: want a string"},
		{"rollback: wait", rollback, `{"wait":"rolled-back"}`, "field wait"},
		{"rollback: timeout", rollback, `{"timeout_s":86401}`, "field timeout_s"},
		{"rollback: via", rollback, `{"via":"method"}`, "field via"},
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
