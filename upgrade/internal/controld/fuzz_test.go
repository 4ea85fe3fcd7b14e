package controld_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
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
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, e := controld.DecodeUpgrade(body)
		if e != nil {
			requireRefused(t, req, e)
			return
		}
		require.Contains(t, []string{control.WaitConfirmed, control.WaitDrained}, req.Wait)
		require.Contains(t, []string{control.ViaSystemctl, control.ViaHdctl, control.ViaAPI}, req.Via)
		require.True(t, req.Timeout == 0 || req.Timeout >= 0.001 && req.Timeout <= 86400, "%g", req.Timeout)
		requirePrintable(t, req.Reason)
		requireAgain(t, req, controld.DecodeUpgrade)
	})
}

func FuzzDrainRequest(f *testing.F) {
	for _, s := range []string{"", "{}", "null", `{"undo":true,"reason":"x","via":"hdctl"}`, `{"reason":"\ud800\u0000\u202e"}`, "{\"reason\":\"\xff\"}", `{} x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, e := controld.DecodeDrain(body)
		if e != nil {
			requireRefused(t, req, e)
			return
		}
		require.Contains(t, []string{control.ViaSystemctl, control.ViaHdctl, control.ViaAPI}, req.Via)
		requirePrintable(t, req.Reason)
		requireAgain(t, req, controld.DecodeDrain)
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
		require.LessOrEqual(t, len(got.Listener), 255)
		requirePrintable(t, got.Listener)

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

func requireRefused(t *testing.T, req any, e *control.Error) {
	t.Helper()
	require.Equal(t, control.CodeBadRequest, e.Code)
	require.NotEmpty(t, e.Message)
	require.Zero(t, req)
}

func requirePrintable(t *testing.T, s string) {
	t.Helper()
	require.LessOrEqual(t, len(s), 256)
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
