package controld_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
)

// connsFunc is Backend.Conns.
type connsFunc = func(ctx context.Context, f control.ConnFilter, emit func([]byte) error) (*control.ConnsEnd, error)

// startConns starts a server that lists connections with f.
func startConns(t *testing.T, f connsFunc) (*controld.Server, string) {
	t.Helper()
	return start(t, controld.Config{Backend: &backend{conns: f}})
}

// oneConn is a line, and what it says.
func oneConn(doing string) []byte {
	return controld.AppendConn(nil, &control.Conn{Generation: 7, State: control.ConnActive, Doing: doing})
}

func TestConns(t *testing.T) {
	conns := manyConns(2500)
	var got control.ConnFilter
	_, socket := startConns(t, func(_ context.Context, f control.ConnFilter, emit func([]byte) error) (*control.ConnsEnd, error) {
		got = f
		end, err := emitAll(conns, emit)
		end.Missing = []control.MissingConns{{Generation: 5, Reason: "does not answer"}}
		return end, err
	})
	resp, body := ask(t, socket, "GET", "/v1/conns?state=idle&generation=7&listener=http", "")
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	requireHeader(t, resp)
	assert.Equal(t, "application/jsonl", resp.Header.Get("Content-Type"))
	assert.Equal(t, control.ConnFilter{Generation: 7, State: control.ConnIdle, Listener: "http"}, got)
	all := lines(t, body)
	require.Len(t, all, len(conns)+1)
	for i := range conns {
		require.Equal(t, control.Line{Conn: &conns[i]}, all[i])
	}
	end := &control.ConnsEnd{Total: len(conns), Missing: []control.MissingConns{{Generation: 5, Reason: "does not answer"}}}
	assert.Equal(t, control.Line{End: end}, all[len(conns)])

	// The same by way of our own client.
	c := control.Client{Socket: socket}
	var listed []control.Conn
	gotEnd, err := c.Conns(t.Context(), control.ConnFilter{Listener: "a b&c"}, func(c control.Conn) { listed = append(listed, c) })
	require.NoError(t, err)
	assert.Equal(t, conns, listed)
	assert.Equal(t, end, gotEnd)
	assert.Equal(t, control.ConnFilter{Listener: "a b&c"}, got)
}

func TestConnsOfNobody(t *testing.T) {
	_, socket := startConns(t, func(_ context.Context, _ control.ConnFilter, emit func([]byte) error) (*control.ConnsEnd, error) {
		return new(control.ConnsEnd), emit(nil)
	})
	resp, body := ask(t, socket, "GET", "/v1/conns", "")
	assert.Equal(t, http.StatusOK, resp.StatusCode)
	assert.Equal(t, `{"end":{"total":0}}`+"\n", body)
}

func TestConnsBadRequest(t *testing.T) {
	called := make(chan struct{}, 100)
	_, socket := startConns(t, func(context.Context, control.ConnFilter, func([]byte) error) (*control.ConnsEnd, error) {
		called <- struct{}{}
		return nil, nil
	})
	for _, query := range []string{"peer=x", "generation=x", "generation=0", "state=draining", "listener=", "state=new&state=idle", "a=%zz"} {
		t.Run(query, func(t *testing.T) {
			resp, body := ask(t, socket, "GET", "/v1/conns?"+query, "")
			r := requireError(t, resp, body, http.StatusBadRequest, control.CodeBadRequest)
			assert.NotEmpty(t, r.Error.Hint)
		})
	}
	assert.Empty(t, called)
}

func TestConnsFails(t *testing.T) {
	noGeneration := control.Errorf(control.CodeGeneration, "there is no generation 3").WithHint("there are 6 and 7")
	tests := []struct {
		name   string
		conns  connsFunc
		status int // 200: the error is the last line, after one connection
		code   string
	}{
		{"refused", func(context.Context, control.ConnFilter, func([]byte) error) (*control.ConnsEnd, error) {
			return nil, noGeneration
		}, http.StatusNotFound, control.CodeGeneration},
		{"broken", func(context.Context, control.ConnFilter, func([]byte) error) (*control.ConnsEnd, error) {
			return nil, errors.New("no memory")
		}, http.StatusInternalServerError, control.CodeInternal},
		{"no end", func(context.Context, control.ConnFilter, func([]byte) error) (*control.ConnsEnd, error) {
			return nil, nil
		}, http.StatusInternalServerError, control.CodeInternal},
		{"refused in the middle", func(_ context.Context, _ control.ConnFilter, emit func([]byte) error) (*control.ConnsEnd, error) {
			return nil, errors.Join(emit(oneConn("x")), noGeneration)
		}, http.StatusOK, control.CodeGeneration},
		{"no end in the middle", func(_ context.Context, _ control.ConnFilter, emit func([]byte) error) (*control.ConnsEnd, error) {
			return nil, emit(oneConn("x"))
		}, http.StatusOK, control.CodeInternal},
		{"half a line", func(_ context.Context, _ control.ConnFilter, emit func([]byte) error) (*control.ConnsEnd, error) {
			_ = emit(oneConn("x"))
			_ = emit([]byte(`{"conn":{"genera`))
			return &control.ConnsEnd{Total: 2}, emit(oneConn("y")) // too late
		}, http.StatusOK, control.CodeInternal},
		{"half a line that nobody minds", func(_ context.Context, _ control.ConnFilter, emit func([]byte) error) (*control.ConnsEnd, error) {
			_ = emit(oneConn("x"))
			_ = emit([]byte(`{"conn":{"genera`))
			return &control.ConnsEnd{Total: 2}, nil
		}, http.StatusOK, control.CodeInternal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, socket := startConns(t, tt.conns)
			resp, body := ask(t, socket, "GET", "/v1/conns", "")
			if tt.status != http.StatusOK {
				requireError(t, resp, body, tt.status, tt.code)
				return
			}
			all := lines(t, body)
			require.Len(t, all, 2, body)
			assert.Equal(t, "x", all[0].Conn.Doing)
			require.NotNil(t, all[1].Error, body)
			assert.Equal(t, tt.code, all[1].Error.Code)
		})
	}
}

// A client that leaves in the middle of a list stops it, also one that emits
// less than any buffer holds.
func TestClientLeavesDuringConns(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int
	}{{"little", 10}, {"much", 64 << 10}} {
		t.Run(tt.name, func(t *testing.T) {
			begun, stopped := make(chan struct{}), make(chan error, 1)
			srv, socket := startConns(t, func(ctx context.Context, _ control.ConnFilter, emit func([]byte) error) (*control.ConnsEnd, error) {
				line := oneConn(strings.Repeat("x", tt.size))
				err := emit(line)
				close(begun)
				if tt.size < 1000 {
					<-ctx.Done()
				}
				for err == nil {
					err = emit(line)
				}
				stopped <- err
				return nil, err
			})
			c := dial(t, socket)
			_, err := io.WriteString(c, "GET /v1/conns HTTP/1.1\r\nHost: x\r\n\r\n")
			require.NoError(t, err)
			wait(t, begun, "the list begins")
			require.NoError(t, c.Close())
			require.Error(t, wait(t, stopped, "emit says so"))
			require.Eventually(t, func() bool { served, _ := srv.Connections(); return served == 0 }, patience, time.Millisecond)
			resp, _ := ask(t, socket, "GET", "/v1/version", "")
			assert.Equal(t, http.StatusOK, resp.StatusCode)
		})
	}
}

// A list that the end of the generation cuts short says so, whether it had begun
// or not, and does not look complete.
func TestCloseDuringConns(t *testing.T) {
	for _, tt := range []struct {
		name  string
		begin bool
		end   *control.ConnsEnd // what a Backend returns that does not look at errors
	}{
		{"before the first line", false, nil},
		{"in the middle", true, nil},
		{"in the middle, unnoticed", true, new(control.ConnsEnd)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			begun := make(chan struct{})
			srv, socket := startConns(t, func(ctx context.Context, _ control.ConnFilter, emit func([]byte) error) (*control.ConnsEnd, error) {
				if tt.begin {
					_ = emit(oneConn("x"))
				}
				close(begun)
				<-ctx.Done()
				err := emit(oneConn("y"))
				if tt.end != nil {
					return tt.end, nil
				}
				return nil, err
			})
			c := dial(t, socket)
			_, err := io.WriteString(c, "GET /v1/conns HTTP/1.1\r\nHost: x\r\n\r\n")
			require.NoError(t, err)
			wait(t, begun, "the list begins")
			require.NoError(t, srv.Close())
			answer, err := io.ReadAll(c)
			require.NoError(t, err)
			resp, body := parse(t, "GET", string(answer))
			if !tt.begin {
				requireError(t, resp, body, http.StatusServiceUnavailable, control.CodeStopping)
				return
			}
			all := lines(t, body)
			require.Len(t, all, 2, body)
			require.NotNil(t, all[1].Error, body)
			assert.Equal(t, control.CodeStopping, all[1].Error.Code)
		})
	}
}

// Nothing waits for the rest of the list: what a piece has, a client sees.
func TestConnsArriveMeanwhile(t *testing.T) {
	goOn := make(chan struct{})
	_, socket := startConns(t, func(_ context.Context, _ control.ConnFilter, emit func([]byte) error) (*control.ConnsEnd, error) {
		conns := manyConns(1000)
		_, err := emitAll(conns, emit)
		<-goOn
		return new(control.ConnsEnd), err
	})
	resp, err := client(socket).Do(newRequest("GET", "/v1/conns", ""))
	require.NoError(t, err)
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	for range 900 { // all but the last few KiB
		_, err := r.ReadString('\n')
		require.NoError(t, err)
	}
	close(goOn)
	_, err = io.Copy(io.Discard, r)
	require.NoError(t, err)
}
