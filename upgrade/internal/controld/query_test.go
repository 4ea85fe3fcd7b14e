package controld_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
)

func TestDecodeFollow(t *testing.T) {
	for query, want := range map[string]bool{
		"": false, "follow=1": true, "follow=0": false, "follow=true": true, "since=5": false, "since=5&follow=1": true,
	} {
		got, e := controld.DecodeFollow(query)
		require.Nil(t, e, query)
		assert.Equal(t, want, got, query)
	}
	for _, query := range []string{"follow", "follow=", "follow=yes", "follow=%zz", "a;follow=1"} {
		_, e := controld.DecodeFollow(query)
		require.NotNil(t, e, query)
	}
}

func TestDecodeConns(t *testing.T) {
	for query, want := range map[string]control.ConnFilter{
		"":                 {},
		"&":                {},
		"generation=7":     {Generation: 7},
		"state=hijacked":   {State: control.ConnHijacked},
		"listener=a%20b":   {Listener: "a b"},
		"listener=b%C3%BC": {Listener: "bü"},
		"state=idle&generation=007&listener=http": {Generation: 7, State: control.ConnIdle, Listener: "http"},
		"listener=" + strings.Repeat("x", 255):    {Listener: strings.Repeat("x", 255)},
	} {
		got, e := controld.DecodeConns(query)
		require.Nil(t, e, query)
		assert.Equal(t, want, got, query)
	}
}

func TestDecodeConnsRefuses(t *testing.T) {
	tests := []struct{ name, query, message, hint string }{
		{"unknown", "peer=192.0.2.1", `no parameter "peer"`, "generation, state, listener"},
		{"unknown beside a good one", "state=idle&sort=age", `no parameter "sort"`, "generation, state, listener"},
		{"other case", "State=idle", `no parameter "State"`, "generation, state, listener"},
		{"without a name", "=7", `no parameter ""`, "generation, state, listener"},
		{"twice", "state=idle&state=new", `parameter "state" is given 2 times`, "once"},
		{"the same twice", "generation=7&generation=7", `parameter "generation" is given 2 times`, "once"},
		{"not a number", "generation=new", "parameter generation", "without the parameter"},
		{"no number", "generation", "parameter generation", "without the parameter"},
		{"zero", "generation=0", "parameter generation", "numbered from 1"},
		{"negative", "generation=-1", "parameter generation", "numbered from 1"},
		{"fraction", "generation=1.5", "parameter generation", "numbered from 1"},
		{"hexadecimal", "generation=0x7", "parameter generation", "numbered from 1"},
		{"huge", "generation=9223372036854775808", "parameter generation", "numbered from 1"},
		{"unknown state", "state=draining", `no "draining"`, "new, active, idle, stream, hijacked"},
		{"state in capitals", "state=IDLE", `no "IDLE"`, "new, active, idle, stream, hijacked"},
		{"empty state", "state=", `no ""`, "new, active, idle, stream, hijacked"},
		{"empty listener", "listener=", "parameter listener is empty", "without the parameter"},
		{"long listener", "listener=" + strings.Repeat("x", 256), "parameter listener", "status"},
		{"control characters", "listener=a%1b%5b2J", "parameter listener", "status"},
		{"not UTF-8", "listener=a%ff", "parameter listener", "status"},
		{"bad escape", "listener=%zz", "cannot be read", "%XX"},
		{"semicolon", "state=idle;generation=7", "cannot be read", "&"},
		{"long", strings.Repeat("x", 10000) + "=1", "no parameter", "listener"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, e := controld.DecodeConns(tt.query)
			require.NotNil(t, e)
			assert.Equal(t, control.CodeBadRequest, e.Code)
			assert.Contains(t, e.Message, tt.message)
			assert.Contains(t, e.Hint, tt.hint)
			assert.Less(t, len(e.Message), 300)
			assert.NotContains(t, e.Message, "\x1b")
			assert.Zero(t, got)
		})
	}
	_, e := controld.DecodeConns("b=1&a=1&c=1")
	assert.Contains(t, e.Message, `"a"`, "always the same")
}

func TestDecodeHistory(t *testing.T) {
	for query, want := range map[string]int{"": 0, "&": 0, "limit=0": 0, "limit=1": 1, "limit=007": 7, "limit=10000": 10000} {
		got, e := controld.DecodeHistory(query)
		require.Nil(t, e, query)
		assert.Equal(t, want, got, query)
	}
}

func TestDecodeHistoryRefuses(t *testing.T) {
	tests := []struct{ name, query, message, hint string }{
		{"unknown", "since=2026-01-01", `no parameter "since"`, "there is: limit"},
		{"unknown beside a good one", "limit=5&outcome=failed", `no parameter "outcome"`, "there is: limit"},
		{"other case", "Limit=5", `no parameter "Limit"`, "there is: limit"},
		{"twice", "limit=5&limit=6", `parameter "limit" is given 2 times`, "once"},
		{"not a number", "limit=all", "parameter limit", "all that is kept"},
		{"empty", "limit=", "parameter limit", "all that is kept"},
		{"negative", "limit=-1", "parameter limit", "all that is kept"},
		{"with a sign", "limit=%2b1", "parameter limit", "all that is kept"},
		{"fraction", "limit=1.5", "parameter limit", "all that is kept"},
		{"too many", "limit=10001", "between 0 and 10000", "all that is kept"},
		{"huge", "limit=18446744073709551617", "parameter limit", "all that is kept"},
		{"bad escape", "limit=%zz", "cannot be read", "%XX"},
		{"control characters", "limit=%1b%5b2J", "parameter limit", "all that is kept"},
		{"long", "limit=" + strings.Repeat("1", 10000), "parameter limit", "all that is kept"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, e := controld.DecodeHistory(tt.query)
			require.NotNil(t, e)
			assert.Equal(t, control.CodeBadRequest, e.Code)
			assert.Contains(t, e.Message, tt.message)
			assert.Contains(t, e.Hint, tt.hint)
			assert.Less(t, len(e.Message), 300)
			assert.NotContains(t, e.Message, "\x1b")
			assert.Zero(t, got)
		})
	}
}
