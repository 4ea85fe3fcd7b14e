package statedir_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/internal/statedir"
)

// source counts what is read of it.
type source struct {
	*bytes.Reader
	read int
	fail error
}

func (s *source) ReadAt(b []byte, off int64) (int, error) {
	if s.fail != nil {
		return 0, s.fail
	}
	s.read += len(b)
	return s.Reader.ReadAt(b, off)
}

func TestReadsNoMoreThanNeeded(t *testing.T) {
	var b bytes.Buffer
	for n := range 10_000 {
		fmt.Fprintf(&b, `{"n":%d,"text":"%s"}`+"\n", n, text(80))
	}
	size := int64(b.Len())
	for _, test := range []struct{ limit, atMost int }{{1, 16 << 10}, {100, 16 << 10}, {1000, 7 * 16 << 10}} {
		s := &source{Reader: bytes.NewReader(b.Bytes())}
		records, err := statedir.ReadLines(s, size, size, test.limit)
		require.NoError(t, err)
		assert.Equal(t, down(9999, 10_000-test.limit), decode(t, records))
		assert.LessOrEqual(t, s.read, test.atMost)
	}
	s := &source{Reader: bytes.NewReader(b.Bytes())}
	records, err := statedir.ReadLines(s, size, 50_000, 0)
	require.NoError(t, err)
	assert.Len(t, records, 50_000*10_000/int(size))
	assert.Equal(t, 50_000, s.read)
}

func TestReadFaults(t *testing.T) {
	broken := errors.New("broken")
	_, err := statedir.ReadLines(&source{fail: broken}, 100, 100, 0)
	require.ErrorIs(t, err, broken)
	// A file that was truncated after its size was asked for.
	records, err := statedir.ReadLines(strings.NewReader(`{"n":1}`+"\n"), 1000, 1000, 0)
	require.NoError(t, err)
	assert.Empty(t, records)
}

// FuzzReadLines compares with the obvious way: split all, and turn around.
func FuzzReadLines(f *testing.F) {
	f.Add([]byte("{}\n{\"a\":1}\n"), 0, 100, 1)
	f.Add([]byte("{}\n{\"a\":1"), 1, 5, 1)
	f.Add([]byte("\n\n{}\r\n \t{}\x00{"), 0, 7, 20_000)
	f.Add([]byte("{\"a\":\"\n\"}"), 0, 1<<20, 70_000)
	f.Add([]byte(`{"a":"#"}`+"\n{}\n"), 0, 1<<21, 66_000)
	f.Fuzz(func(t *testing.T, content []byte, limit, most, repeat int) {
		// "#" stands for much, which a fuzzer would not come to by itself.
		if repeat = abs(repeat) % 200_000; bytes.Count(content, []byte("#")) <= 3 {
			content = bytes.ReplaceAll(content, []byte("#"), bytes.Repeat([]byte("x"), repeat))
		}
		limit, most = abs(limit)%100, abs(most)%(2<<20)
		got, err := statedir.ReadLines(bytes.NewReader(content), int64(len(content)), int64(most), limit)
		require.NoError(t, err)

		seen := content
		if len(seen) > most {
			// What is cut off at the beginning is no line.
			_, seen, _ = bytes.Cut(seen[len(seen)-most:], []byte("\n"))
		}
		var want []json.RawMessage
		for line := range bytes.SplitSeq(seen, []byte("\n")) {
			if len(line) >= statedir.MaxLine {
				continue
			}
			line = bytes.Trim(line, " \t\r")
			if bytes.HasPrefix(line, []byte("{")) && json.Valid(line) {
				want = append(want, line)
			}
		}
		slices.Reverse(want)
		if limit > 0 {
			want = want[:min(limit, len(want))]
		}
		require.Equal(t, want, got)
	})
}

func abs(n int) int {
	if n < 0 {
		n = -(n + 1)
	}
	return n
}

var _ io.ReaderAt = (*source)(nil)
