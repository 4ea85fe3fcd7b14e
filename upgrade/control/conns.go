package control

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// Conns calls on for each open connection that f selects, in the order of the
// service's list, which is in no order that is promised. on may be nil, is called
// by the calling goroutine, and may keep what it gets. Who may command may ask.
//
// A list is made while connections come and go. It has all that were open all the
// time, and of the others it may have some. It is complete if the error is nil and
// [ConnsEnd.Missing] is empty; a service that goes away before the end is an
// error of [CodeUnknown], when on may have seen a part of the list.
//
// The service drops a client that does not read for some seconds: on should
// not wait for anybody. To end the list early, cancel ctx.
func (c *Client) Conns(ctx context.Context, f ConnFilter, on func(Conn)) (*ConnsEnd, error) {
	resp, _, err := c.do(ctx, http.MethodGet, "/v1/conns"+f.query(), nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()

	var end *ConnsEnd
	var d connDecoder
	var conn Conn
	err = c.scan(ctx, resp.Body, connsRoom, func(line []byte) error {
		if d.decode(line, &conn) {
			if on != nil {
				on(conn)
			}
			return nil
		}
		l, err := c.decodeLine(line)
		switch {
		case err != nil:
			return err
		case l.Conn != nil:
			if on != nil {
				on(*l.Conn)
			}
		case l.Error != nil:
			return l.Error
		case l.End != nil:
			end = l.End
			return errEnough
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case end == nil:
		return nil, c.lost(ctx, io.EOF)
	}
	return end, nil
}

// connsRoom is for some hundred lines: a list may be long.
const connsRoom = 128 << 10

// query returns f as the query of an address, with its question mark.
func (f ConnFilter) query() string {
	v := make(url.Values)
	if f.Generation != 0 {
		v.Set("generation", strconv.Itoa(f.Generation))
	}
	if f.State != "" {
		v.Set("state", f.State)
	}
	if f.Listener != "" {
		v.Set("listener", f.Listener)
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}
