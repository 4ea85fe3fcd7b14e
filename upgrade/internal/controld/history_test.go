package controld_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
)

// historyFunc is Backend.History.
type historyFunc = func(ctx context.Context, limit int, emit func(control.Entry) error) error

// startHistory starts a server whose history is that of f.
func startHistory(t *testing.T, f historyFunc) (*controld.Server, string) {
	t.Helper()
	return start(t, controld.Config{Backend: &backend{history: f}})
}

// entry is the record of the upgrade to a generation.
func entry(to int) control.Entry {
	return control.Entry{
		Service: "app", Invocation: "0123456789abcdef", User: "deploy",
		DrainEnded: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Record: control.Record{
			Time: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC),
			Result: control.Result{
				Outcome: control.OutcomeFailed, From: to - 1, To: to, Output: []string{"a <line>", ""},
				Trigger: control.Trigger{Via: control.ViaHdctl, PID: 42, Reason: "nightly"},
				Error:   control.Errorf(control.CodeStartFailed, "exit status 3"),
			},
		},
	}
}

func TestHistory(t *testing.T) {
	const most = 1000
	var got int
	_, socket := startHistory(t, func(_ context.Context, limit int, emit func(control.Entry) error) error {
		got = limit
		if limit == 0 {
			limit = most
		}
		for i := range limit {
			if err := emit(entry(most - i)); err != nil {
				return err
			}
		}
		return nil
	})
	resp, body := ask(t, socket, "GET", "/v1/history", "")
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	requireHeader(t, resp)
	assert.Equal(t, "application/jsonl", resp.Header.Get("Content-Type"))
	assert.Zero(t, got)
	all := lines(t, body)
	require.Len(t, all, most)
	for i := range all {
		want := entry(most - i)
		require.Equal(t, control.Line{Entry: &want}, all[i])
	}
	assert.Contains(t, body, "a <line>", "for people, too")

	// The same by way of our own client.
	c := control.Client{Socket: socket}
	var listed []control.Entry
	require.NoError(t, c.History(t.Context(), 3, func(e control.Entry) { listed = append(listed, e) }))
	assert.Equal(t, 3, got)
	assert.Equal(t, []control.Entry{entry(most), entry(most - 1), entry(most - 2)}, listed)
	require.NoError(t, c.History(t.Context(), 0, nil))
	assert.Zero(t, got)
}

func TestHistoryOfNothing(t *testing.T) {
	_, socket := startHistory(t, func(context.Context, int, func(control.Entry) error) error { return nil })
	resp, body := ask(t, socket, "GET", "/v1/history", "")
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	requireHeader(t, resp)
	assert.Equal(t, "application/jsonl", resp.Header.Get("Content-Type"))
	assert.Empty(t, body)
	require.NoError(t, (&control.Client{Socket: socket}).History(t.Context(), 0, nil))
}

func TestHistoryBadRequest(t *testing.T) {
	called := make(chan int, 100)
	_, socket := startHistory(t, func(_ context.Context, limit int, _ func(control.Entry) error) error {
		called <- limit
		return nil
	})
	for _, query := range []string{"limit=-1", "limit=10001", "limit=all", "limit=", "limit=1&limit=1", "since=2026", "a=%zz"} {
		t.Run(query, func(t *testing.T) {
			resp, body := ask(t, socket, "GET", "/v1/history?"+query, "")
			r := requireError(t, resp, body, http.StatusBadRequest, control.CodeBadRequest)
			assert.NotEmpty(t, r.Error.Hint)
		})
	}
	err := (&control.Client{Socket: socket}).History(t.Context(), -1, nil)
	require.ErrorContains(t, err, "parameter limit")
	assert.Empty(t, called)
}

func TestHistoryFails(t *testing.T) {
	broken := entry(7)
	broken.Total = math.NaN()
	tests := []struct {
		name    string
		history historyFunc
		status  int // 200: the error is the last line, after one entry
		code    string
	}{
		{"refused", func(context.Context, int, func(control.Entry) error) error {
			return control.Errorf(control.CodeUnsupported, "no history is kept")
		}, http.StatusNotImplemented, control.CodeUnsupported},
		{"broken", func(context.Context, int, func(control.Entry) error) error {
			return errors.New("input/output error")
		}, http.StatusInternalServerError, control.CodeInternal},
		{"broken in the middle", func(_ context.Context, _ int, emit func(control.Entry) error) error {
			return errors.Join(emit(entry(7)), errors.New("input/output error"))
		}, http.StatusOK, control.CodeInternal},
		{"cannot be encoded", func(_ context.Context, _ int, emit func(control.Entry) error) error {
			return emit(broken)
		}, http.StatusInternalServerError, control.CodeInternal},
		{"cannot be encoded, and nobody minds", func(_ context.Context, _ int, emit func(control.Entry) error) error {
			_ = emit(entry(7))
			_ = emit(broken)
			_ = emit(entry(5)) // too late: it would look like the next one
			return nil
		}, http.StatusOK, control.CodeInternal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, socket := startHistory(t, tt.history)
			resp, body := ask(t, socket, "GET", "/v1/history", "")
			if tt.status != http.StatusOK {
				requireError(t, resp, body, tt.status, tt.code)
				return
			}
			all := lines(t, body)
			require.Len(t, all, 2, body)
			assert.Equal(t, 7, all[0].Entry.To)
			require.NotNil(t, all[1].Error, body)
			assert.Equal(t, tt.code, all[1].Error.Code)
		})
	}
}

// A client that leaves in the middle stops it.
func TestClientLeavesDuringHistory(t *testing.T) {
	begun, stopped := make(chan struct{}), make(chan error, 1)
	srv, socket := startHistory(t, func(_ context.Context, _ int, emit func(control.Entry) error) error {
		err := emit(entry(7))
		close(begun)
		for err == nil {
			err = emit(entry(6))
		}
		stopped <- err
		return err
	})
	c := dial(t, socket)
	_, err := io.WriteString(c, "GET /v1/history HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	wait(t, begun, "the history begins")
	_, err = bufio.NewReader(c).ReadString('{')
	require.NoError(t, err)
	require.NoError(t, c.Close())
	require.Error(t, wait(t, stopped, "emit says so"))
	require.Eventually(t, func() bool { served, _ := srv.Connections(); return served == 0 }, patience, time.Millisecond)
}

// A history that the end of the generation cuts short does not look complete.
func TestCloseDuringHistory(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before int  // entries before that
		heed   bool // the Backend returns what emit does
	}{
		{"before the first entry", 0, true},
		{"in the middle", 1, true},
		{"in the middle, unnoticed", 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			begun := make(chan struct{})
			srv, socket := startHistory(t, func(ctx context.Context, _ int, emit func(control.Entry) error) error {
				for range tt.before {
					_ = emit(entry(7))
				}
				close(begun)
				<-ctx.Done()
				if err := emit(entry(6)); tt.heed {
					return err
				}
				return nil
			})
			c := dial(t, socket)
			_, err := io.WriteString(c, "GET /v1/history HTTP/1.1\r\nHost: x\r\n\r\n")
			require.NoError(t, err)
			wait(t, begun, "the history begins")
			require.NoError(t, srv.Close())
			answer, err := io.ReadAll(c)
			require.NoError(t, err)
			resp, body := parse(t, "GET", string(answer))
			if tt.before == 0 {
				requireError(t, resp, body, http.StatusServiceUnavailable, control.CodeStopping)
				return
			}
			all := lines(t, body)
			require.Len(t, all, 2, strings.TrimSpace(body))
			require.NotNil(t, all[1].Error, body)
			assert.Equal(t, control.CodeStopping, all[1].Error.Code)
		})
	}
}
