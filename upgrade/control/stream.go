package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// Upgrade asks for an upgrade and waits for its end. on, which may be nil, is
// called for each event on the way, by the calling goroutine.
//
// A nil error means that the new generation serves and is confirmed. Otherwise
// the error says why not, and the result is nil only if the context ended or if
// the service was never asked. Where the service gave none, the client makes
// one: [OutcomeRefused], or [OutcomeUnknown] if it went away or broke down in
// between. Only [Client.Status] can then tell what happened.
//
// A context that ends stops the waiting, not the upgrade. To limit the upgrade
// itself, set the Timeout of the request.
//
// A request that waits in the queue is sent back when the upgrade before it has
// made another generation the main one; it is sent to that one then, with what
// is left of its time.
func (c *Client) Upgrade(ctx context.Context, req UpgradeRequest, on func(Event)) (*Result, error) {
	began, timeout := time.Now(), req.Timeout
	for range maxMoves {
		r, err := c.upgradeOnce(ctx, req, on)
		if e, ok := errors.AsType[*Error](err); !ok || !req.Queue || e.Code != CodeNotMain {
			return r, err
		}
		if timeout > 0 {
			req.Timeout = timeout - time.Since(began).Seconds()
			if req.Timeout <= 0 {
				late := Errorf(CodeTimedOut, "the time was over before it was its turn")
				return &Result{Outcome: OutcomeTimedOut, Error: late}, late
			}
		}
	}
	e := Errorf(CodeNotMain, "the main generation changed %d times while the request waited for its turn", maxMoves)
	return &Result{Outcome: OutcomeRefused, Error: e}, e
}

// maxMoves is how often a request in the queue follows the main generation.
const maxMoves = 20

func (c *Client) upgradeOnce(ctx context.Context, req UpgradeRequest, on func(Event)) (*Result, error) {
	resp, asked, err := c.do(ctx, http.MethodPost, "/v1/upgrade", req)
	if !asked {
		return nil, err
	}
	if err != nil {
		return resultOf(err), err
	}
	defer resp.Body.Close()

	var result *Result
	err = c.lines(ctx, resp.Body, func(l Line) error {
		switch {
		case l.Event != nil:
			if on != nil {
				on(*l.Event)
			}
		case l.Error != nil:
			return l.Error
		case l.Result != nil:
			result = l.Result
			return errEnough
		}
		return nil
	})
	if err == nil && result == nil {
		err = c.lost(ctx, io.EOF)
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return &Result{Outcome: OutcomeUnknown, Error: e}, e // it had begun
	}
	if err != nil {
		return nil, err
	}
	if result.Outcome == OutcomeConfirmed {
		return result, nil
	}
	if result.Error == nil {
		result.Error = Errorf(CodeInternal, "the upgrade ended as %q, without a reason", result.Outcome)
	}
	return result, result.Error
}

// resultOf is the result that goes with an error that came instead of a stream.
func resultOf(err error) *Result {
	e, ok := errors.AsType[*Error](err)
	switch {
	case !ok:
		return nil
	case e.Code == CodeUnknown, e.Code == CodeInternal:
		return &Result{Outcome: OutcomeUnknown, Error: e}
	}
	return &Result{Outcome: OutcomeRefused, Error: e}
}

// Events calls on for each event that the service remembers, oldest first, and
// with follow for each that comes after, until the context ends. An error that
// on returns ends the call and is returned.
//
// The events come from one generation. With follow, the stream ends with an
// error of [CodeUnknown] when that one is gone; a caller that asks again gets
// the events of the generation that then is main, and can drop those that it
// knows by [Event.Time] and [Event.Seq].
func (c *Client) Events(ctx context.Context, follow bool, on func(Event) error) error {
	path := "/v1/events"
	if follow {
		path += "?follow=1"
	}
	resp, _, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	err = c.lines(ctx, resp.Body, func(l Line) error {
		switch {
		case l.Event != nil:
			return on(*l.Event)
		case l.Error != nil:
			return l.Error
		}
		return nil
	})
	if err == nil && follow {
		err = c.lost(ctx, io.EOF)
	}
	return err
}

// errEnough is returned by the callback of lines to end the reading.
var errEnough = errors.New("enough")

// lines calls on for each line of r. Empty lines, and lines in which this version
// knows no field, are for on to ignore. For the rest see scan.
func (c *Client) lines(ctx context.Context, r io.Reader, on func(Line) error) error {
	return c.scan(ctx, r, 4<<10, func(line []byte) error {
		l, err := c.decodeLine(line)
		if err != nil {
			return err
		}
		return on(l)
	})
}

// decodeLine decodes any line of a stream; an empty one, too.
func (c *Client) decodeLine(line []byte) (Line, error) {
	var l Line
	if len(bytes.TrimSpace(line)) == 0 {
		return l, nil
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return Line{}, Errorf(CodeUnknown, "the answer on %s is not what it should be: %v", c.Socket, err).
			WithHint("ask for its status")
	}
	return l, nil
}

// scan calls on for each line of r, which is on's during the call only. It
// returns nil at the end of the stream or after errEnough. A line without its
// newline is a stream that broke, and is not looked at. Room is the size of its
// buffer to begin with.
func (c *Client) scan(ctx context.Context, r io.Reader, room int, on func(line []byte) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, room), maxLine)
	s.Split(wholeLines)
	for s.Scan() {
		if err := on(s.Bytes()); errors.Is(err, errEnough) {
			return nil
		} else if err != nil {
			return err
		}
	}
	switch err := s.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return Errorf(CodeUnknown, "the answer on %s has a line of more than %d MiB", c.Socket, maxLine>>20).
			WithHint("ask for its status")
	case err != nil:
		return c.lost(ctx, err)
	}
	return nil
}

// wholeLines is bufio.ScanLines without the last line that has no newline.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF {
		return len(data), nil, nil
	}
	return 0, nil, nil
}
