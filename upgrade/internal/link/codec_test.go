package link_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/internal/link"
)

// messages has one of each kind, with all fields set.
func messages() []link.Message {
	return []link.Message{
		link.Hello{
			Min: 1, Max: 3, Library: "v0.1.0", Service: "app", Version: "v2 <beta> ü", Generation: 7, PID: 4242,
			Invocation:  "0123456789abcdef0123456789abcdef",
			Predecessor: &link.Peer{Generation: 6, PID: 4100, Version: "v1"},
			Notify:      "/run/systemd/notify", WatchdogUsec: 3_000_000, Control: "/run/handoff/app/control.sock",
			Sockets: []link.Socket{
				{Key: "socket/http/0", Name: "http", Index: 0, Kind: 1, Network: "tcp", Address: "[::]:8080"},
				{Key: "socket/http/1", Name: "http", Index: 1, Kind: 1, Network: "unix", Address: "@app"},
			},
			SentAt: 1_700_000_000_000_000_001,
		},
		link.Refuse{Code: "incompatible", Message: "no common protocol"},
		link.Ready{Claimed: []string{"http", "echo"}},
		link.Serve{},
		link.Serving{},
		link.Confirmed{Next: 8, Last: json.RawMessage(`{"outcome":"confirmed"}`), Events: json.RawMessage(`[{"seq":1}]`), Totals: json.RawMessage(`{}`)},
		link.Meet{Generation: 5, PID: 3999, Version: "v0", Role: "drainer"},
		link.Report{
			Generation: 6, PID: 4100, Version: "v1", State: "draining", Started: 1, Since: 2, Deadline: 3,
			Counts: link.Counts{Total: 10, New: 1, Active: 2, Idle: 3, Stream: 4}, Oldest: 4,
			Cut: link.Counts{Total: 2, Stream: 2}, Final: true, RSS: 60 << 20,
		},
		link.Hurry{DeadlineUnixNano: 5},
		link.Stopping{Reason: "SIGTERM", DeadlineUnixNano: 6},
		link.Adopt{Generation: 8, Listeners: []link.Adoptable{{Name: "http", HTTP: true}, {Name: "echo", Sessions: true}}},
		link.Offer{
			ID: math.MaxUint64, Listener: "echo", Accepted: 7, Moved: 8, In: 9, Out: 10, Label: "user 1",
			Session: &link.Session{Version: 2, Data: []byte("\x00state"), File: true},
		},
		link.Answer{ID: math.MaxUint64, Code: "files", Message: "too many open files"},
		link.List{State: "idle", Listener: "http"},
		link.Unknown{Name: "teleport"},
	}
}

// files is the number of descriptors that m needs.
func filesOf(m link.Message) int {
	switch m.Kind() {
	case link.KindMeet, link.KindOffer:
		return 2
	case link.KindAdopt, link.KindList:
		return 1
	}
	return 0
}

func TestEncodeDecode(t *testing.T) {
	for _, m := range messages() {
		t.Run(string(m.Kind()), func(t *testing.T) {
			frame, err := link.Encode(m, filesOf(m))
			require.NoError(t, err)
			got, files, err := link.Decode(frame)
			require.NoError(t, err)
			assert.Equal(t, m, got)
			assert.Equal(t, filesOf(m), files)
		})
	}
}

// The format is a promise to the other generation, which may be another release.
func TestFrameFormat(t *testing.T) {
	for _, test := range []struct {
		message link.Message
		files   int
		want    string
	}{
		{link.Serve{}, 0, `{"kind":"serve","body":{}}`},
		{link.Hello{Min: 1, Max: 1, PID: 4242}, 1, `{"kind":"hello","fds":1,"body":{"min":1,"max":1,"pid":4242}}`},
		{
			link.Report{State: "draining", Counts: link.Counts{Total: 1, Idle: 1}},
			0,
			`{"kind":"report","body":{"generation":0,"pid":0,"state":"draining","total":1,"idle":1}}`,
		},
		{
			link.Offer{ID: 1, Listener: "http", Session: &link.Session{Version: 1, Data: []byte("abc")}},
			1,
			`{"kind":"offer","fds":1,"body":{"id":1,"listener":"http","session":{"version":1,"data":"YWJj"}}}`,
		},
		{link.Answer{ID: 1}, 0, `{"kind":"answer","body":{"id":1}}`},
		{link.List{}, 1, `{"kind":"list","fds":1,"body":{}}`},
		{link.Unknown{Name: "x", Unanswered: true}, 0, `{"kind":"unknown","body":{"name":"x"}}`},
	} {
		frame, err := link.Encode(test.message, test.files)
		require.NoError(t, err)
		assert.Equal(t, test.want, string(frame))
	}
}

func TestDecode(t *testing.T) {
	for _, test := range []struct {
		name  string
		frame string
		want  link.Message
	}{
		{"unknown field in the frame", `{"kind":"serve","priority":1,"body":{}}`, link.Serve{}},
		{"unknown field in the body", `{"kind":"hurry","body":{"deadline":5,"by":"main"}}`, link.Hurry{DeadlineUnixNano: 5}},
		{"no body", `{"kind":"serve"}`, link.Serve{}},
		{"null body", `{"kind":"ready","body":null}`, link.Ready{}},
		{"unknown kind", `{"kind":"teleport","body":[1,2,3]}`, link.Unknown{Name: "teleport", Unanswered: true}},
		{"answer to an unknown kind", `{"kind":"unknown","body":{"name":"teleport"}}`, link.Unknown{Name: "teleport"}},
		{"an answer cannot pretend to be none", `{"kind":"unknown","body":{"name":"teleport","Unanswered":true}}`, link.Unknown{Name: "teleport"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, files, err := link.Decode([]byte(test.frame))
			require.NoError(t, err)
			assert.Equal(t, test.want, m)
			assert.Zero(t, files)
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, test := range []struct {
		name  string
		frame string
		kind  link.Kind
		want  string
	}{
		{"nothing", "", "", "empty frame"},
		{"no JSON", "GET / HTTP/1.1\r\n\r\n", "", "invalid character"},
		{"cut off", `{"kind":"ser`, "", "unexpected end"},
		{"two frames", `{"kind":"serve"}{"kind":"serve"}`, "", "after top-level value"},
		{"no object", `["serve"]`, "", "cannot unmarshal"},
		{"no kind", `{"body":{}}`, "", "no kind"},
		{"kind of the wrong type", `{"kind":1}`, "", "cannot unmarshal"},
		{"long kind", `{"kind":"` + strings.Repeat("x", 65) + `"}`, "", "at most 64"},
		{"negative descriptors", `{"kind":"serve","fds":-1}`, "serve", "-1 file descriptors"},
		{"descriptors beyond an int", `{"kind":"serve","fds":99999999999999999999}`, "", "cannot unmarshal"},
		{"body of the wrong type", `{"kind":"hurry","body":"now"}`, "hurry", "cannot unmarshal"},
		{"field of the wrong type", `{"kind":"hurry","body":{"deadline":"now"}}`, "hurry", "cannot unmarshal"},
		{"hello without versions", `{"kind":"hello","body":{"pid":1}}`, "hello", "not a range"},
		{"hello with an empty range", `{"kind":"hello","body":{"min":3,"max":2}}`, "hello", "not a range"},
		{"negative PID", `{"kind":"hello","body":{"min":1,"max":1,"pid":-1}}`, "hello", "-1 is negative"},
		{"negative PID of the predecessor", `{"kind":"hello","body":{"min":1,"max":1,"predecessor":{"pid":-1}}}`, "hello", "-1 is negative"},
		{"negative index", `{"kind":"hello","body":{"min":1,"max":1,"sockets":[{"index":-1}]}}`, "hello", "-1 is negative"},
		{"negative next", `{"kind":"confirmed","body":{"next":-8}}`, "confirmed", "-8 is negative"},
		{"meet with one descriptor", `{"kind":"meet","fds":1,"body":{"generation":5,"pid":6}}`, "meet", "1 of 2 file descriptors"},
		{"meet with a negative PID", `{"kind":"meet","fds":2,"body":{"pid":-6}}`, "meet", "-6 is negative"},
		{"negative PID in a report", `{"kind":"report","body":{"pid":-6}}`, "report", "-6 is negative"},
		{"negative count", `{"kind":"report","body":{"total":-1}}`, "report", "-1 is negative"},
		{"negative cut", `{"kind":"report","body":{"cut":{"idle":-1}}}`, "report", "-1 is negative"},
		{"negative memory", `{"kind":"report","body":{"rss":-1}}`, "report", "-1 is negative"},
		{"negative deadline", `{"kind":"stopping","body":{"deadline":-1}}`, "stopping", "-1 is negative"},
		{"adopt without a descriptor", `{"kind":"adopt","body":{"generation":5}}`, "adopt", "0 of 1 file descriptors"},
		{"adopt with a negative generation", `{"kind":"adopt","fds":1,"body":{"generation":-5}}`, "adopt", "-5 is negative"},
		{"list without a descriptor", `{"kind":"list"}`, "list", "0 of 1 file descriptors"},
		{"offer without a descriptor", `{"kind":"offer","body":{"id":1}}`, "offer", "0 of 1 file descriptors"},
		{"offer without its session", `{"kind":"offer","fds":1,"body":{"id":1,"session":{"file":true}}}`, "offer", "1 of 2 file descriptors"},
		{"offer of a negative time", `{"kind":"offer","fds":1,"body":{"accepted":-1}}`, "offer", "-1 is negative"},
		{"offer that moved at a negative time", `{"kind":"offer","fds":1,"body":{"moved":-1}}`, "offer", "-1 is negative"},
		{"offer of negative bytes in", `{"kind":"offer","fds":1,"body":{"in":-1}}`, "offer", "-1 is negative"},
		{"offer of negative bytes out", `{"kind":"offer","fds":1,"body":{"out":-1}}`, "offer", "-1 is negative"},
		{"offer of a negative session", `{"kind":"offer","fds":1,"body":{"session":{"version":-1}}}`, "offer", "-1 is negative"},
		{"offer with a negative ID", `{"kind":"offer","fds":1,"body":{"id":-1}}`, "offer", "cannot unmarshal"},
		{"answer with a negative ID", `{"kind":"answer","body":{"id":-1}}`, "answer", "cannot unmarshal"},
		{"negative hurry", `{"kind":"hurry","body":{"deadline":-1}}`, "hurry", "-1 is negative"},
		{"too large", `{"kind":"serve","body":{"x":"` + strings.Repeat("x", link.MaxFrame) + `"}}`, "", "too large"},
		{"deep", strings.Repeat("[", link.MaxFrame), "", "exceeded max depth"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, files, err := link.Decode([]byte(test.frame))
			var refused *link.FrameError
			require.ErrorAs(t, err, &refused)
			assert.Equal(t, test.kind, refused.Kind)
			assert.ErrorContains(t, refused, test.want)
			assert.Nil(t, refused.Message)
			assert.Nil(t, m)
			assert.Zero(t, files)
		})
	}
}

// What a receiver would refuse is refused where the mistake was made.
func TestEncodeRefuses(t *testing.T) {
	for _, test := range []struct {
		name    string
		message link.Message
		files   int
		want    string
	}{
		{"nothing", nil, 0, "no message"},
		{"no versions", link.Hello{PID: 1}, 0, "not a range"},
		{"meet without files", link.Meet{Generation: 1, PID: 1}, 0, "0 of 2"},
		{"adopt without a file", link.Adopt{}, 0, "0 of 1"},
		{"list without a file", link.List{}, 0, "0 of 1"},
		{"offer without a file", link.Offer{}, 0, "0 of 1"},
		{"offer without the session's file", link.Offer{Session: &link.Session{File: true}}, 1, "1 of 2"},
		{"negative", &link.Report{PID: -1}, 0, "negative"},
		{"too many files", link.Serve{}, link.MaxFiles + 1, "too large: 17 file descriptors, at most 16"},
		{"too large", link.Refuse{Message: strings.Repeat("x", link.MaxFrame)}, 0, "at most 65536"},
		{"no JSON inside", link.Confirmed{Last: json.RawMessage("{")}, 0, "JSON"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := link.Encode(test.message, test.files)
			require.ErrorContains(t, err, test.want)
		})
	}
}

// A frame of exactly MaxFrame is good.
func TestFrameLimit(t *testing.T) {
	empty, err := link.Encode(link.Refuse{}, 0)
	require.NoError(t, err)
	m := link.Refuse{Message: strings.Repeat("x", link.MaxFrame-len(empty))}
	frame, err := link.Encode(m, 0)
	require.NoError(t, err)
	require.Len(t, frame, link.MaxFrame)
	got, _, err := link.Decode(frame)
	require.NoError(t, err)
	assert.Equal(t, m, got)

	m.Message += "x"
	_, err = link.Encode(m, 0)
	require.ErrorIs(t, err, link.ErrTooLarge)
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages() {
		frame, err := link.Encode(m, filesOf(m))
		require.NoError(f, err)
		f.Add(frame)
	}
	for _, frame := range []string{
		"", "{}", "null", `{"kind":"offer","fds":3}`, `{"kind":"teleport","fds":3}`, `{"kind":"unknown"}`,
		`{"kind":"offer","fds":1,"body":{"id":18446744073709551616}}`, `{"kind":"offer","fds":1,"body":{"session":{"data":"="}}}`, `{"KIND":"serve","kind":"hello"}`,
		`{"kind":"confirmed","body":{"next":1,"last":[[1.0e5, "\u2028<>&"]]}}`, "{\"kind\":\"\xff\"}",
	} {
		f.Add([]byte(frame))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		m, files, err := link.Decode(frame)
		if err != nil {
			var refused *link.FrameError
			require.ErrorAs(t, err, &refused)
			require.NotEmpty(t, refused.Error())
			require.Nil(t, m)
			require.Zero(t, files)
			return
		}
		require.NotNil(t, m)
		require.GreaterOrEqual(t, files, 0)
		if u, ok := m.(link.Unknown); ok && u.Unanswered {
			return // is not sent on
		}
		// What was understood can be said, and is understood in the same way.
		again, err := link.Encode(m, min(files, link.MaxFiles))
		if errors.Is(err, link.ErrTooLarge) {
			return // escapes make it longer
		}
		require.NoError(t, err)
		m2, _, err := link.Decode(again)
		require.NoError(t, err)
		third, err := link.Encode(m2, min(files, link.MaxFiles))
		require.NoError(t, err)
		require.Equal(t, string(again), string(third))
	})
}
