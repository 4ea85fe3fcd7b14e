package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/hdctl/handoff/upgrade/control"
)

func TestPercent(t *testing.T) {
	for text, want := range map[string]percent{"5%": 5, "5": 5, "0.5%": 0.5, "100%": 100, "0.001": 0.001} {
		var p percent
		if assert.NoError(t, p.UnmarshalText([]byte(text)), text) {
			assert.Equal(t, want, p, text)
		}
	}
	for _, text := range []string{"", "%", "0", "0%", "-1%", "100.1%", "NaN", "Inf", "5 %", "5%%", "a"} {
		var p percent
		assert.Error(t, p.UnmarshalText([]byte(text)), text)
	}
	for want, p := range map[string]percent{"5%": 5, "0.5%": 0.5, "95%": 100 - 5.0000000001, "33.33%": 100.0 / 3} {
		assert.Equal(t, want, p.String())
	}
}

func TestRolloutStep(t *testing.T) {
	for text, want := range map[string]control.Step{"5%:30s": {Share: 5, Time: 30}, "100:1h30m": {Share: 100, Time: 5400}} {
		var s rolloutStep
		if assert.NoError(t, s.UnmarshalText([]byte(text)), text) {
			assert.Equal(t, want, control.Step(s), text)
		}
	}
	for _, text := range []string{"", "5%", "5%:", ":30s", "5%:30", "5%:0s", "5%:-1s", "0%:30s", "5%:30s:1m"} {
		var s rolloutStep
		assert.Error(t, s.UnmarshalText([]byte(text)), text)
	}
	assert.Equal(t, 90*time.Second, stepsTime(nil), "the default steps of control.Auto")
	assert.Equal(t, 150*time.Second, stepsTime([]control.Step{{Share: 1, Time: 60}, {Share: 50, Time: 90}}))
}

func TestLatency(t *testing.T) {
	for seconds, want := range map[float64]string{
		0: "-", -1: "-", 0.00000041: "0µs", 0.00041: "410µs", 0.0009994: "999µs", 0.0009996: "1.0ms",
		0.00187: "1.9ms", 0.00994: "9.9ms", 0.012: "12ms", 2.043: "2.04s",
	} {
		assert.Equal(t, want, latency(seconds), "%g", seconds)
	}
}
