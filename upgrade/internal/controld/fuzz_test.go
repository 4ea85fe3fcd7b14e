package controld_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
)

func FuzzUpgradeRequest(f *testing.F) {
	for _, s := range []string{
		"", "{}", "null", `{"wait":"drained","queue":true,"timeout_s":1.5,"reason":"x","via":"hdctl"}`,
		`{"timeout_s":-0}`, `{"timeout_s":1e-300}`, `{"reason":"\ud800\u0000\u202e"}`, `{"WAIT":"drained"}`, "{\"reason\":\"\xff\"}",
		`{"x":[[[[[[]]]]]]}`, `{} x`,
		`{"stage_pct":5,"stage_timeout_s":600}`, `{"stage_pct":-0}`, `{"stage_pct":1e-320}`, `{"stage_pct":5,"auto":{}}`,
		`{"auto":{"steps":[{"share_pct":5,"time_s":30},null],"min_requests":-1,"max_errors_pct":1,"max_slowdown":-0}}`, `{"auto":{"steps":[]}}`,
		`{"binary":"/opt/app","if_changed":true,"dry_run":true}`, `{"binary":"app"}`, `{"binary":"/\u0000"}`, "{\"binary\":\"/\xff\"}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, e := controld.DecodeUpgrade(body)
		if e != nil {
			requireRefused(t, req, e)
			return
		}
		requireRollout(t, req.Wait, req.Timeout, req.Reason, req.Via)
		requireShare(t, req.Stage)
		requireSeconds(t, req.StageTimeout)
		require.True(t, req.Binary == "" || strings.HasPrefix(req.Binary, "/") && !strings.Contains(req.Binary, "\x00"), "%q", req.Binary)
		requirePrintable(t, req.Binary, 4096)
		if a := req.Auto; a != nil {
			require.Zero(t, req.Stage)
			require.LessOrEqual(t, len(a.Steps), 20)
			for _, s := range a.Steps {
				require.Positive(t, s.Share)
				requireShare(t, s.Share)
				require.Positive(t, s.Time)
				requireSeconds(t, s.Time)
			}
			require.GreaterOrEqual(t, a.MinRequests, 0)
			requireShare(t, a.MaxErrors)
			require.True(t, a.MaxSlowdown == 0 || a.MaxSlowdown >= 1, "%g", a.MaxSlowdown)
			if len(a.Steps) == 0 {
				a.Steps = nil // an empty list is not encoded
			}
		}
		requireAgain(t, req, controld.DecodeUpgrade)
	})
}

func FuzzPromoteRequest(f *testing.F) {
	for _, s := range []string{
		"", "{}", "null", `{"share_pct":50,"wait":"drained","timeout_s":1.5,"reason":"x","via":"hdctl"}`, `{"share_pct":-0}`, `{"share_pct":1e-320}`,
		`{"share_pct":101}`, `{"reason":"\ud800\u0000\u202e"}`, "{\"reason\":\"\xff\"}", `{} x`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, e := controld.DecodePromote(body)
		if e != nil {
			requireRefused(t, req, e)
			return
		}
		requireRollout(t, req.Wait, req.Timeout, req.Reason, req.Via)
		requireShare(t, req.Share)
		requireAgain(t, req, controld.DecodePromote)
		_, e = controld.DecodeRollback(body) // has nothing of its own
		require.Nil(t, e)
	})
}

func FuzzDrainRequest(f *testing.F) {
	for _, s := range []string{"", "{}", "null", `{"undo":true,"reason":"x","via":"hdctl"}`, `{"reason":"\ud800\u0000\u202e"}`, "{\"reason\":\"\xff\"}", `{} x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, e := controld.DecodeDrain(body)
		pause, e2 := controld.DecodePause(body) // the same fields
		require.Equal(t, e, e2)
		require.Equal(t, req, control.DrainRequest(pause))
		if e != nil {
			requireRefused(t, req, e)
			return
		}
		require.Contains(t, []string{control.ViaSystemctl, control.ViaHdctl, control.ViaAPI}, req.Via)
		requirePrintable(t, req.Reason, 256)
		requireAgain(t, req, controld.DecodeDrain)
		_, e = controld.DecodeReconfigure(body) // all of them but undo
		require.Nil(t, e)
	})
}

func FuzzEndRequest(f *testing.F) {
	for _, s := range []string{"", "{}", "null", `{"generation":6,"grace_s":1.5,"kill":true,"via":"hdctl"}`, `{"grace_s":-0}`, `{"grace_s":-1e300}`, `{"generation":-1}`, `{"generation":1e2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, e := controld.DecodeEnd(body)
		if e != nil {
			requireRefused(t, req, e)
			return
		}
		require.Contains(t, []string{control.ViaSystemctl, control.ViaHdctl, control.ViaAPI}, req.Via)
		require.GreaterOrEqual(t, req.Generation, 0)
		require.True(t, req.Grace == -1 || req.Grace == 0 || req.Grace >= 0.001 && req.Grace <= 86400, "%g", req.Grace)
		requireAgain(t, req, controld.DecodeEnd)
	})
}

func FuzzConnsQuery(f *testing.F) {
	for _, s := range []string{
		"", "&", "=", "generation=7&state=idle&listener=http", "generation=-1", "generation=007", "generation=99999999999999999999",
		"state=new&state=new", "listener=%00", "listener=0", "listener=a+b", "%zz", "a;b", "x=%ff",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got, e := controld.DecodeConns(query)
		if e != nil {
			requireRefused(t, got, e)
			require.NotEmpty(t, e.Hint)
			return
		}
		require.GreaterOrEqual(t, got.Generation, 0)
		require.Contains(t, []string{"", control.ConnNew, control.ConnActive, control.ConnIdle, control.ConnStream, control.ConnHijacked}, got.State)
		requirePrintable(t, got.Listener, 255)

		// What was understood means the same when it is said again.
		v := url.Values{}
		if got.Generation != 0 {
			v.Set("generation", strconv.Itoa(got.Generation))
		}
		if got.State != "" {
			v.Set("state", got.State)
		}
		if got.Listener != "" {
			v.Set("listener", got.Listener)
		}
		second, e := controld.DecodeConns(v.Encode())
		require.Nil(t, e)
		require.Equal(t, got, second)
	})
}

func FuzzHistoryQuery(f *testing.F) {
	for _, s := range []string{"", "&", "=", "limit=10", "limit=-1", "limit=007", "limit=10001", "limit=99999999999999999999", "limit=1&limit=1", "%zz", "a;b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got, e := controld.DecodeHistory(query)
		if e != nil {
			requireRefused(t, got, e)
			require.NotEmpty(t, e.Hint)
			return
		}
		require.True(t, got >= 0 && got <= 10000, "%d", got)
		second, e := controld.DecodeHistory("limit=" + strconv.Itoa(got))
		require.Nil(t, e)
		require.Equal(t, got, second)
	})
}

func requireRefused(t *testing.T, req any, e *control.Error) {
	t.Helper()
	require.Equal(t, control.CodeBadRequest, e.Code)
	require.NotEmpty(t, e.Message)
	require.Zero(t, req)
}

// requireRollout checks what all requests have that are answered with a result.
func requireRollout(t *testing.T, wait string, timeout float64, reason, via string) {
	t.Helper()
	require.Contains(t, []string{control.WaitConfirmed, control.WaitDrained}, wait)
	require.Contains(t, []string{control.ViaSystemctl, control.ViaHdctl, control.ViaAPI}, via)
	requireSeconds(t, timeout)
	requirePrintable(t, reason, 256)
}

func requireSeconds(t *testing.T, v float64) {
	t.Helper()
	require.True(t, v == 0 && !math.Signbit(v) || v >= 0.001 && v <= 86400, "%g", v)
}

func requireShare(t *testing.T, v float64) {
	t.Helper()
	require.True(t, v >= 0 && !math.Signbit(v) && v <= 100, "%g", v)
}

func requirePrintable(t *testing.T, s string, limit int) {
	t.Helper()
	require.LessOrEqual(t, len(s), limit)
	require.True(t, utf8.ValidString(s))
	require.Equal(t, -1, strings.IndexFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }), "%q", s)
}

// requireAgain says again what was understood: it means the same.
func requireAgain[T any](t *testing.T, req T, decode func([]byte) (T, *control.Error)) {
	t.Helper()
	again, err := json.Marshal(req)
	require.NoError(t, err)
	second, e := decode(again)
	require.Nil(t, e)
	require.Equal(t, req, second)
}

// pairs is a listener whose connections are made by the test, without a path.
type pairs struct {
	accept chan net.Conn
	closed chan struct{}
}

func (p *pairs) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pairs) Close() error   { close(p.closed); return nil }
func (p *pairs) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// connect returns the client's end of a new connection. The kernel knows the
// other end of a socketpair as well as any: it is us.
func (p *pairs) connect(t testing.TB) *net.UnixConn {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		ends[i], err = net.FileConn(f)
		require.NoError(t, errors.Join(err, f.Close()))
	}
	p.accept <- ends[0]
	return ends[1].(*net.UnixConn)
}

// FuzzServer writes anything to a server, and demands an answer that is one, or
// none.
func FuzzServer(f *testing.F) {
	for _, s := range []string{
		"", "\x00", "\r\n\r\n",
		"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
		"HEAD /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /v1/events?follow=1 HTTP/1.0\r\n\r\n",
		"POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
		"POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n{x}",
		"POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"GET /v1/conns?generation=7&state=idle&listener=x HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"undo\":true}",
		"GET /v1/history?limit=5 HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /v1/promote HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n{\"share_pct\":50}",
		"POST /v1/rollback HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
		"POST /v1/pause HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"undo\":true}",
		"POST /v1/reconfigure HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
		"POST /v1/end HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n{\"generation\":6}",
		"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /v1/upgrade HTTP/1.1\r\nHost: x\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"GET /%00%1b HTTP/1.1\r\nHost: x\r\nExpect: y\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	ln := &pairs{make(chan net.Conn), make(chan struct{})}
	srv := controld.New(controld.Config{Backend: new(backend), ServiceUID: os.Getuid()})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	f.Cleanup(func() {
		require.NoError(f, srv.Close())
		require.NoError(f, <-served)
	})
	f.Fuzz(func(t *testing.T, request []byte) {
		c := ln.connect(t)
		defer c.Close()
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
		written := make(chan struct{})
		go func() {
			defer close(written)
			_, _ = c.Write(request)
			_ = c.CloseWrite() // so that an incomplete request is one
		}()
		answer, err := io.ReadAll(c)
		if err != nil {
			require.ErrorIs(t, err, unix.ECONNRESET)
		}
		<-written
		if len(answer) == 0 {
			return
		}
		r := bufio.NewReader(bytes.NewReader(answer))
		method, _, _ := bytes.Cut(bytes.TrimLeft(request, "\r\n"), []byte(" "))
		resp, err := http.ReadResponse(r, &http.Request{Method: string(method)})
		for err == nil && resp.StatusCode == http.StatusContinue {
			resp, err = http.ReadResponse(r, &http.Request{Method: string(method)})
		}
		require.NoError(t, err, "%q", answer)
		defer resp.Body.Close()
		requireHeader(t, resp)
		body, err := io.ReadAll(resp.Body)
		if err != nil { // it has left before the end of its upgrade
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			return
		}
		if resp.StatusCode != http.StatusOK && string(method) != http.MethodHead {
			var r controld.Refusal
			require.NoError(t, json.Unmarshal(body, &r), "%q", answer)
			require.NotNil(t, r.Error, "%q", answer)
			require.NotEmpty(t, r.Error.Code)
		}
	})
}
