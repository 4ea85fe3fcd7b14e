package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// webSockets opens one WebSocket after the other, each for as long as the server
// keeps it.
func (w *worker) webSockets(ctx, stopping context.Context) {
	for until := time.Now(); w.wait(stopping, until) && w.begin(1); until = time.Now().Add(w.interval(reopen)) {
		start := time.Now()
		from, goodbye, err := w.webSocket(ctx, stopping)
		switch {
		case err == nil:
			w.rec.answered(w.kind, from, goodbye)
		case ctx.Err() != nil:
			w.rec.aborted(w.kind)
		default:
			w.endOn(err, history{born: start, last: from, requests: 1})
		}
	}
}

// webSocket sends messages at random intervals, which must come back as they are,
// until a close frame comes or the load ends. A message that crosses a close
// frame on the wire is lost, as the protocol has it, and no failure.
func (w *worker) webSocket(ctx, stopping context.Context) (from origin, goodbye bool, err error) {
	start := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, from, err := w.handshake(ctx)
	if err != nil {
		return from, false, err
	}
	w.rec.waited(w.kind, time.Since(start))
	go s.read(ctx)
	defer func() {
		cancel()
		<-s.ended
	}()

	for n := 1; ; n++ {
		pause := time.NewTimer(w.interval(w.opts.WebSocket))
		select {
		case <-pause.C:
		case <-s.ended:
			pause.Stop()
			return from, true, closing(s.err)
		case got := <-s.messages:
			pause.Stop()
			return from, false, &phaseError{PhaseContent, fmt.Errorf("%q came unasked", got)}
		case <-stopping.Done():
			pause.Stop()
			return from, false, nil
		}
		if closed, err := s.echo(ctx, fmt.Sprintf("message %d", n), w.opts.Timeout); closed || err != nil {
			return from, closed, err
		}
		w.rec.message(w.kind)
	}
}

// socket is an open WebSocket. It is read all the time, for that is how a close
// frame is noticed.
type socket struct {
	ws       *websocket.Conn
	messages chan string
	ended    chan struct{} // closed when read is over
	err      error         // why; valid then
}

// handshake opens a WebSocket on a connection of its own.
func (w *worker) handshake(ctx context.Context) (*socket, origin, error) {
	ctx, cancel := context.WithTimeout(ctx, w.opts.Timeout)
	defer cancel()
	// This transport never retries: that it does on used connections only.
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			start := time.Now()
			c, err := w.opts.Dial(ctx)
			if err != nil {
				return nil, &phaseError{PhaseDial, err}
			}
			w.rec.dialed(w.kind, time.Since(start))
			return c, nil
		},
	}
	ws, resp, err := websocket.Dial(ctx, "ws://"+w.opts.Host+"/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		var p *phaseError
		if !errors.As(err, &p) {
			p = &phaseError{PhaseRead, err}
		}
		return nil, origin{}, p
	}
	s := &socket{ws: ws, messages: make(chan string), ended: make(chan struct{})}
	return s, originOf(resp.Header), nil
}

// read reads until the connection or ctx ends. It closes the connection.
func (s *socket) read(ctx context.Context) {
	defer close(s.ended)
	defer s.ws.CloseNow()
	for {
		var text []byte
		if _, text, s.err = s.ws.Read(ctx); s.err != nil {
			return
		}
		select {
		case s.messages <- string(text):
		case <-ctx.Done():
			s.err = ctx.Err()
			return
		}
	}
}

// echo sends a message and waits for it to come back. closed: a close frame came
// instead.
func (s *socket) echo(ctx context.Context, message string, timeout time.Duration) (closed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	werr := s.ws.Write(ctx, websocket.MessageText, []byte(message))
	select {
	case <-s.ended: // after a close frame a write fails, too
		return true, closing(s.err)
	case got := <-s.messages:
		if got != message {
			return false, &phaseError{PhaseContent, fmt.Errorf("sent %q, %q came back", message, got)}
		}
		return false, nil
	case <-ctx.Done():
		if werr != nil {
			return false, &phaseError{PhaseWrite, werr}
		}
		return false, &phaseError{PhaseRead, fmt.Errorf("%w (%s)", errTimeout, timeout)}
	}
}

// closing is nil if the connection ended with a polite close frame.
func closing(err error) error {
	var frame websocket.CloseError
	if errors.As(err, &frame) {
		switch frame.Code {
		case websocket.StatusNormalClosure, websocket.StatusGoingAway, websocket.StatusServiceRestart:
			return nil
		}
	}
	return &phaseError{PhaseRead, err}
}
