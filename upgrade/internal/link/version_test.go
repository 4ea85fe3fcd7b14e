package link_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/internal/link"
)

func TestNegotiate(t *testing.T) {
	for _, test := range []struct {
		name         string
		ours, theirs link.Range
		want         int // 0: none
	}{
		{"same", link.Range{1, 1}, link.Range{1, 1}, 1},
		{"they are newer", link.Range{1, 2}, link.Range{1, 5}, 2},
		{"they are older", link.Range{2, 5}, link.Range{1, 3}, 3},
		{"they touch", link.Range{3, 5}, link.Range{1, 3}, 3},
		{"they are too new", link.Range{1, 2}, link.Range{3, 4}, 0},
		{"they are too old", link.Range{3, 4}, link.Range{1, 2}, 0},
		{"they say nothing", link.Range{1, 2}, link.Range{}, 0},
		{"they say nonsense", link.Range{1, 2}, link.Range{2, 1}, 0},
		{"we say nonsense", link.Range{2, 1}, link.Range{1, 2}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, r := range [][2]link.Range{{test.ours, test.theirs}, {test.theirs, test.ours}} {
				version, err := link.Negotiate(r[0], r[1])
				assert.Equal(t, test.want, version)
				if test.want > 0 {
					require.NoError(t, err)
					continue
				}
				var none *link.VersionError
				require.ErrorAs(t, err, &none)
				assert.Equal(t, link.VersionError{Ours: r[0], Theirs: r[1]}, *none)
			}
		})
	}
}

func TestVersionErrorNamesBothRanges(t *testing.T) {
	_, err := link.Negotiate(link.Range{Min: 1, Max: 1}, link.Range{Min: 2, Max: 4})
	require.EqualError(t, err, "no common protocol: this generation speaks version 1, the other one versions 2 to 4")
}

func TestSupported(t *testing.T) {
	version, err := link.Negotiate(link.Supported(), link.Hello{Min: link.MinVersion, Max: link.MaxVersion}.Range())
	require.NoError(t, err)
	assert.Equal(t, link.MaxVersion, version)
}
