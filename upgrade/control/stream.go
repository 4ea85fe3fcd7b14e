package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
)

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
	err := c.stream(ctx, path, func(l Line) error {
		if l.Event != nil {
			return on(*l.Event)
		}
		return nil
	})
	if err == nil && follow {
		err = c.lost(ctx, io.EOF)
	}
	return err
}

// History calls on for each upgrade that the service has on record, the newest
// first, at most limit of them, or, with a limit of 0, for all. on may be nil, and
// is called by the calling goroutine. Who may connect may ask.
//
// The list is complete if the error is nil; otherwise on may have seen a part of
// it.
func (c *Client) History(ctx context.Context, limit int, on func(Entry)) error {
	path := "/v1/history"
	if limit != 0 {
		path += "?limit=" + strconv.Itoa(limit)
	}
	return c.stream(ctx, path, func(l Line) error {
		if l.Entry != nil && on != nil {
			on(*l.Entry)
		}
		return nil
	})
}

// stream asks for lines and calls on for each, but for those that are errors: they
// end the call, as those of on do.
func (c *Client) stream(ctx context.Context, path string, on func(Line) error) error {
	resp, _, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return c.lines(ctx, resp.Body, func(l Line) error {
		if l.Error != nil {
			return l.Error
		}
		return on(l)
	})
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
