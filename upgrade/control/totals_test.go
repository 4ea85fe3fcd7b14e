package control_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
)

func TestDurations(t *testing.T) {
	empty := control.NewDurations(0.1, 1, 10)
	d := empty.Plus(0.1).Plus(0.2).Plus(11)
	assert.Equal(t, 3, d.Count)
	assert.InDelta(t, 11.3, d.Sum, 1e-9)
	assert.Equal(t, []control.Bucket{{Limit: 0.1, Count: 1}, {Limit: 1, Count: 2}, {Limit: 10, Count: 2}}, d.Buckets)
	assert.Equal(t, control.NewDurations(0.1, 1, 10), empty, "Plus leaves it as it was")

	// Over a link and the control API, between versions that have other limits.
	data, err := json.Marshal(d)
	require.NoError(t, err)
	var back control.Durations
	require.NoError(t, json.Unmarshal(data, &back))
	assert.Equal(t, d, back)
	assert.Equal(t, 3, back.Plus(0).Buckets[2].Count)
}
