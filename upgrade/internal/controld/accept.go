package controld

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hdctl/handoff/upgrade/control"
)

// listener takes the credentials of each client and counts connections.
type listener struct {
	net.Listener
	server *Server
}

// Accept returns the next connection that can be answered: always a *conn.
func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err // net/http looks into it
		}
		if c := l.server.admit(nc); c != nil {
			return c, nil
		}
	}
}

// admit makes a conn of nc, for which there may be a place or not. It returns
// nil if there is not even one to say so.
func (s *Server) admit(nc net.Conn) *conn {
	peer, err := s.authority.peerOf(nc)
	if err != nil {
		s.log.LogAttrs(context.Background(), slog.LevelDebug, "control client is unknown", slog.Any("err", err))
	}
	c := &conn{Conn: nc, peer: peer, version: s.versionInfo}
	switch {
	case s.served.add(s.limits.conns(peer.Command)):
		c.release = s.served.done
	case s.surplus.add(s.limits.Conns):
		// It gets its answer from the handler: one that comes before the
		// request is not understood by all clients.
		c.busy = true
		c.release = s.surplus.done
	default:
		// Nobody waits for this one. There is room in the buffer of a new
		// connection; the deadline is for surprises.
		_ = nc.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		_, _ = nc.Write(rawError(s.versionInfo(), statusOf(control.CodeBusy), errBusy()))
		_ = nc.Close()
		return nil
	}
	return c
}

// connState gives places back. StateClosed is the last that net/http does with a
// connection: the handler has returned, and what it wrote is sent.
func (s *Server) connState(nc net.Conn, state http.ConnState) {
	c, ok := nc.(*conn)
	if !ok || state != http.StateClosed {
		return
	}
	if c.request {
		s.requests.done()
	}
	c.release()
}

// conn is a connection with what is known about it.
type conn struct {
	net.Conn
	peer    Peer
	busy    bool                   // one too many
	release func()                 // gives its place back
	version func() control.Version // of the service

	request bool        // its request is counted in Server.requests
	handled atomic.Bool // a request has reached the handler
	spoiled bool        // Write has answered instead of net/http; used only before handled is set
}

type connKey struct{}

// connOf returns the connection of a request.
func connOf(ctx context.Context) *conn { return ctx.Value(connKey{}).(*conn) }

// Write is in the way of the answers that net/http gives by itself to requests
// that it cannot understand, so that these are JSON, too. Each is one call, with
// status line, header and a line of text.
func (c *conn) Write(p []byte) (int, error) {
	if c.handled.Load() {
		return c.Conn.Write(p)
	}
	if !c.spoiled {
		c.spoiled = true
		status, e := explain(p)
		if _, err := c.Conn.Write(rawError(c.version(), status, e)); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// CloseWrite is used by net/http for a client that is still sending: a close
// could destroy what it has not read yet.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// explain translates an answer of net/http.
func explain(answer []byte) (int, *control.Error) {
	status := http.StatusBadRequest
	line, _, _ := bytes.Cut(answer, []byte("\r\n"))
	if f := bytes.Fields(line); len(f) >= 2 {
		if n, err := strconv.Atoi(string(f[1])); err == nil && n >= 400 && n <= 599 {
			status = n
		}
	}
	_, text, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
	if len(text) == 0 {
		text = []byte(http.StatusText(status))
	}
	code := control.CodeBadRequest
	if status == http.StatusRequestHeaderFieldsTooLarge {
		code = control.CodeTooLarge
	}
	return status, control.Errorf(code, "this is no request that could be understood: %s", printable(string(text), maxReason)).
		WithHint("the control socket speaks HTTP/1.1: curl --unix-socket PATH http://handoff/v1/status")
}
