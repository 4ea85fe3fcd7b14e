package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// events is a stream of server-sent events whose data is the generation.
type events struct {
	net.Conn
	body io.Closer
	in   *bufio.Reader
}

func openEvents(ctx context.Context, dial Dial) (wire, error) {
	c, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	// The end of ctx ends the opening, not what was opened.
	cut := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	resp, err := request(c)
	if !cut() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return &events{c, resp.Body, bufio.NewReader(resp.Body)}, nil
}

func request(c net.Conn) (*http.Response, error) {
	const text = "GET /sse HTTP/1.1\r\nHost: kinds\r\nAccept: text/event-stream\r\n\r\n"
	if _, err := io.WriteString(c, text); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodGet})
	if err != nil {
		return nil, err
	}
	if t := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(t, "text/event-stream") {
		return nil, fmt.Errorf("status %s, Content-Type %q", resp.Status, t)
	}
	return resp, nil
}

func (*events) send(context.Context, string) error { return errors.ErrUnsupported }

func (e *events) receive() (Answer, Goodbye, error) {
	for goodbye := None; ; {
		line, err := e.in.ReadString('\n')
		switch {
		case err == io.EOF: // that of the answer, which is complete
			return Answer{}, goodbye, err
		case err != nil:
			return Answer{}, None, err
		case line == "\n":
		case line == "event: goodbye\n":
			goodbye = Event
		case goodbye == None:
			data, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "data: ")
			generation, err := strconv.Atoi(data)
			if !found || err != nil {
				return Answer{}, None, fmt.Errorf("event %q is no generation", line)
			}
			return Answer{Generation: generation}, None, nil
		}
	}
}

func (e *events) close() { e.Close() }
