package link_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/link"
)

// Whatever a peer sends, with whatever descriptors: Receive returns a message or
// a FrameError for each datagram, in order, no descriptor is left open, and the
// link goes on.
func TestReceiveGarbage(t *testing.T) {
	leak.Check(t)
	valid := make([]string, 0, len(messages()))
	for _, m := range messages() {
		frame, err := link.Encode(m, filesOf(m))
		require.NoError(t, err)
		valid = append(valid, string(frame))
	}
	frames := rapid.OneOf(
		rapid.SampledFrom(valid),
		rapid.Just(""),
		rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "bytes")) }),
		rapid.Custom(func(t *rapid.T) string { // a valid frame with one byte changed, or cut off
			frame := []byte(rapid.SampledFrom(valid).Draw(t, "frame"))
			at := rapid.IntRange(0, len(frame)-1).Draw(t, "at")
			if rapid.Bool().Draw(t, "cut") {
				return string(frame[:at])
			}
			frame[at] = rapid.Byte().Draw(t, "byte")
			return string(frame)
		}),
		rapid.Custom(func(t *rapid.T) string { // any kind, any number of descriptors announced
			kind := rapid.SampledFrom([]string{"meet", "serve", "offer", "teleport", "unknown", ""}).Draw(t, "kind")
			return fmt.Sprintf(`{"kind":%q,"fds":%d}`, kind, rapid.IntRange(-1, 20).Draw(t, "fds"))
		}),
		rapid.Just(strings.Repeat(" ", link.MaxFrame+1)),
	)
	tracers := newTracers(t, 20)
	_, fds := writers(tracers)

	rapid.Check(t, func(rt *rapid.T) {
		conn, peer := connectRaw(rt)
		defer conn.Close()
		defer peer.close(rt)
		for range rapid.IntRange(1, 10).Draw(rt, "n") {
			n := rapid.OneOf(rapid.Just(0), rapid.IntRange(0, len(fds))).Draw(rt, "descriptors")
			peer.send(rt, frames.Draw(rt, "frame"), fds[:n]...)
			m, files, err := conn.Receive()
			if err != nil {
				var refused *link.FrameError
				require.ErrorAs(rt, err, &refused)
				require.Nil(rt, m)
				require.Nil(rt, files)
				continue
			}
			require.NotNil(rt, m)
			if len(files) > 0 {
				require.Len(rt, files, n)
			}
			closeFiles(rt, files)
		}
		peer.send(rt, `{"kind":"serving"}`)
		m, _ := next(rt, conn)
		require.Equal(rt, link.Serving{}, m)
	})
	requireGone(t, tracers)
}
