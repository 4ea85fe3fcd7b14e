package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// streams reads one stream of server-sent events after the other, each for as
// long as the server sends it.
func (w *worker) streams(ctx, stopping context.Context) {
	r := request{
		method: http.MethodGet,
		head:   w.opts.head(fmt.Sprintf("GET /stream?ms=%d HTTP/1.1", w.opts.StreamPause.Milliseconds()), "Accept: text/event-stream\r\n"),
	}
	for until := time.Now(); w.wait(stopping, until) && w.begin(1); until = time.Now().Add(w.interval(reopen)) {
		goodbye, err := w.stream(ctx, stopping, r)
		if err != nil {
			w.end(err, 1)
			continue
		}
		w.rec.answered(w.kind, w.c.last, goodbye)
		w.drop()
	}
}

// stream reads one stream to its end, which is the server's goodbye, or that of
// the load. Events are numbered from 1, none may be missing.
func (w *worker) stream(ctx, stopping context.Context, r request) (goodbye bool, err error) {
	start := time.Now()
	if err := w.connect(ctx, stopping); err != nil {
		return false, err
	}
	resp, err := w.c.open(r, w.opts.Timeout)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	w.rec.waited(w.kind, time.Since(start))
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(ct, "text/event-stream") {
		return false, &phaseError{PhaseContent, fmt.Errorf("status %s, Content-Type %q", resp.Status, ct)}
	}
	w.c.last = originOf(resp.Header)

	seen := 0
	in := bufio.NewScanner(deadlineReader{w.c, resp.Body, w.opts.Timeout + w.opts.StreamPause})
	for in.Scan() {
		switch line := in.Text(); {
		case line == "":
		case line == "event: goodbye":
			goodbye = true
		case goodbye && strings.HasPrefix(line, "data:"):
		case !goodbye && line == fmt.Sprintf("data: %d", seen+1):
			seen++
			w.rec.message(w.kind)
		default:
			return false, &phaseError{PhaseContent, fmt.Errorf("%q came after event %d", line, seen)}
		}
	}
	switch err := w.c.ended(in.Err()); {
	case errors.Is(err, errStopped):
		return goodbye, nil
	case errors.Is(err, errAborted):
		return false, err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, &phaseError{PhaseRead, fmt.Errorf("after event %d: %w", seen, errTimeout)}
	case err != nil:
		return false, &phaseError{PhaseRead, fmt.Errorf("after event %d: %w", seen, err)}
	case !goodbye:
		return false, &phaseError{PhaseRead, fmt.Errorf("it ended after event %d without a goodbye", seen)}
	}
	return true, nil
}

// deadlineReader gives each read its own time, in which the end of the load may
// interrupt it.
type deadlineReader struct {
	c       *conn
	r       io.Reader
	timeout time.Duration
}

func (d deadlineReader) Read(p []byte) (int, error) {
	if err := d.c.arm(true, time.Now().Add(d.timeout)); err != nil {
		return 0, err
	}
	return d.r.Read(p)
}
