package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"syscall"
)

// Limits of what a client reads: a service that is broken, or that is not the
// one it seems to be, cannot fill the client's memory.
const (
	maxBody   = 8 << 20  // of an answer that is one JSON value
	maxLine   = 1 << 20  // of one line of a stream; a stream has no limit
	maxHeader = 64 << 10 // of the headers of an answer
)

// Client talks to one service. Its zero value, with Socket set, is ready; it
// holds no connection between two calls, so there is nothing to close. It is
// safe for concurrent use, as long as its fields do not change.
//
// No call has a time limit but that of its context. A context that ends makes
// the call return an error that wraps [context.Canceled] or
// [context.DeadlineExceeded]; all other errors are an [*Error].
type Client struct {
	// Socket is the path of the service's control socket, see [DefaultSocket].
	Socket string

	// Dial, if not nil, makes the connections instead: Socket is then only
	// named in errors.
	Dial func(ctx context.Context) (net.Conn, error)

	// Newer, if not nil, is called after each answer of a service whose
	// control API is newer than [APIVersion]: what it says may then be more
	// than this client understands. It gets the service's API version and the
	// version of its library.
	Newer func(api int, library string)
}

// Status asks for a snapshot of the service. Who may connect may ask.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	s := new(Status)
	if err := c.get(ctx, "/v1/status", s); err != nil {
		return nil, err
	}
	return s, nil
}

// Version asks what runs.
func (c *Client) Version(ctx context.Context) (*Version, error) {
	v := new(Version)
	if err := c.get(ctx, "/v1/version", v); err != nil {
		return nil, err
	}
	return v, nil
}

// get asks for one JSON value and decodes it into v.
func (c *Client) get(ctx context.Context, path string, v any) error {
	return c.call(ctx, http.MethodGet, path, nil, v)
}

// call sends one request, with a body or nil, and decodes its answer, one JSON
// value, into v.
func (c *Client) call(ctx context.Context, method, path string, body, v any) error {
	resp, _, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return c.lost(ctx, err)
	case len(data) > maxBody:
		return Errorf(CodeTooLarge, "the answer on %s is longer than %d MiB", c.Socket, maxBody>>20)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return Errorf(CodeInternal, "the answer on %s is not what it should be: %v", c.Socket, err)
	}
	return nil
}

// do sends one request on a connection of its own. The caller closes the body
// of the response, and with it the connection. Every error is final: an answer
// that is not 200 is returned as the error that it carries. asked is false if
// the request certainly did not reach the service.
func (c *Client) do(ctx context.Context, method, path string, body any) (resp *http.Response, asked bool, err error) {
	var payload io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, false, Errorf(CodeBadRequest, "encode the request: %v", err)
		}
		payload = bytes.NewReader(data)
	}
	// The host is for the Host header only.
	req, err := http.NewRequestWithContext(ctx, method, "http://handoff"+path, payload)
	if err != nil {
		return nil, false, Errorf(CodeBadRequest, "make the request: %v", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	// A transport for each request: with keep-alives it would hold on to a
	// generation that is about to leave, and somebody would have to close it.
	t := &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	resp, err = t.RoundTrip(req)
	if err != nil {
		_, notSent := errors.AsType[*dialError](err)
		return nil, !notSent, c.requestError(ctx, err)
	}
	c.checkVersion(resp.Header)
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, true, c.refusal(resp)
	}
	return resp, true, nil
}

// dialError marks an error of dial, so that an ENOENT from there is never
// confused with anything that happens later.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var conn net.Conn
	var err error
	if c.Dial != nil {
		conn, err = c.Dial(ctx)
	} else {
		conn, err = new(net.Dialer).DialContext(ctx, "unix", c.Socket)
	}
	if err != nil {
		return nil, &dialError{err}
	}
	return conn, nil
}

// requestError says what a failed round trip means.
func (c *Client) requestError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("no answer on %s: %w", c.Socket, ctx.Err())
	}
	if _, ok := errors.AsType[*dialError](err); !ok {
		return c.lost(ctx, err)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Errorf(CodeNotRunning, "the service is not running: there is no %s", c.Socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return Errorf(CodeNotRunning, "the service is not running: nobody listens on %s", c.Socket)
	case errors.Is(err, fs.ErrPermission): // EACCES, EPERM
		return Errorf(CodePermission, "no permission to connect to %s", c.Socket).
			WithHint("root, the service's user and its operator group may; try it with sudo")
	case errors.Is(err, syscall.EAGAIN):
		// connect(2) on a unix socket does not wait for room in the backlog.
		return Errorf(CodeUnknown, "the service does not accept connections on %s", c.Socket)
	}
	return Errorf(CodeUnknown, "connect to the service: %v", err)
}

// lost is the error for a connection that ended before the answer did.
func (c *Client) lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("wait for the answer on %s: %w", c.Socket, ctx.Err())
	}
	detail := "the connection was closed"
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		detail = err.Error()
	}
	return Errorf(CodeUnknown, "the service went away without an answer: %s", detail).
		WithHint("ask for its status")
}

// refusal decodes the error that an answer carries, and makes one up for an
// answer that carries none.
func (c *Client) refusal(resp *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxLine))
	var line Line
	if err == nil && json.Unmarshal(data, &line) == nil && line.Error != nil && line.Error.Code != "" {
		return line.Error
	}
	code := CodeInternal
	switch resp.StatusCode {
	case http.StatusForbidden:
		code = CodePermission
	case http.StatusNotFound:
		code = CodeNotFound
	case http.StatusMethodNotAllowed:
		code = CodeMethod
	}
	return Errorf(code, "the service answered %s", resp.Status)
}

func (c *Client) checkVersion(h http.Header) {
	if c.Newer == nil {
		return
	}
	if api, err := strconv.Atoi(h.Get(HeaderAPI)); err == nil && api > APIVersion {
		c.Newer(api, h.Get(HeaderVersion))
	}
}
