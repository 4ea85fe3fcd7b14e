package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
)

// Kind is a kind of long-lived connection.
type Kind string

// The kinds of connections, and on which socket of the service they are.
const (
	SSE       Kind = "sse"       // server-sent events, GET /sse on "http"
	WebSocket Kind = "websocket" // GET /ws on "http"
	GRPC      Kind = "grpc"      // the stream Chat on "grpc"
	Raw       Kind = "raw"       // lines on "raw"
	Session   Kind = "session"   // lines on "session", which move to the next generation
)

// Kinds are all kinds.
func Kinds() []Kind { return []Kind{SSE, WebSocket, GRPC, Raw, Session} }

// Socket is the name of the service's socket that a kind of connection is made to.
func (k Kind) Socket() string {
	switch k {
	case SSE, WebSocket:
		return "http"
	}
	return string(k)
}

// Polite is the goodbye that is due to a kind of connection.
func (k Kind) Polite() Goodbye {
	switch k {
	case SSE:
		return Event
	case WebSocket:
		return CloseFrame
	case GRPC:
		return Unavailable
	}
	return Line
}

// Goodbye is the way in which a connection ended.
type Goodbye string

// The ways to say goodbye, and not to.
const (
	None        Goodbye = "none" // end of file, a reset, anything else: nobody said it
	Event       Goodbye = "event: goodbye"
	CloseFrame  Goodbye = "close frame 1001"
	Unavailable Goodbye = "status Unavailable"
	Line        Goodbye = "goodbye line"
)

// Dial connects to the socket of a kind.
type Dial func(ctx context.Context) (net.Conn, error)

// Answer is what came back for a text.
type Answer struct {
	Generation int    // that answered
	Count      int    // of the lines that the session has had; 0 for kinds that do not count
	Text       string // as sent, but for the lines that the service gives a meaning
}

// Conn is an open connection. Its methods may be called from several goroutines,
// except that one question is asked at a time.
type Conn struct {
	kind    Kind
	wire    wire
	pushes  bool // the server speaks by itself, and is not asked
	answers chan Answer
	closing chan struct{}
	once    sync.Once
	asked   int

	ended   chan struct{} // closed when the connection is over
	goodbye Goodbye       // valid then
	err     error         // likewise
}

// wire is the protocol of a kind.
type wire interface {
	send(ctx context.Context, text string) error
	// receive returns the next answer, or an error and how the connection ended.
	receive() (Answer, Goodbye, error)
	// close has receive return.
	close()
}

// Open opens a connection, and has the server answer once: then it is one that
// the service knows. ctx is for the opening only.
func Open(ctx context.Context, kind Kind, dial Dial) (*Conn, error) {
	var w wire
	var err error
	switch kind {
	case SSE:
		w, err = openEvents(ctx, dial)
	case WebSocket:
		w, err = openWebSocket(ctx, dial)
	case GRPC:
		w, err = openChat(ctx, dial)
	case Raw, Session:
		w, err = openLines(ctx, dial)
	default:
		err = errors.ErrUnsupported
	}
	if err != nil {
		return nil, fmt.Errorf("open a connection of kind %s: %w", kind, err)
	}
	c := &Conn{
		kind: kind, wire: w, pushes: kind == SSE,
		answers: make(chan Answer), closing: make(chan struct{}), ended: make(chan struct{}),
	}
	go c.read()
	if _, err := c.Alive(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// read reads until the connection is over.
func (c *Conn) read() {
	defer close(c.ended)
	for {
		a, goodbye, err := c.wire.receive()
		if err != nil {
			c.goodbye, c.err = goodbye, err
			return
		}
		if c.pushes {
			select {
			case c.answers <- a: // somebody is waiting for the next one
			default:
			}
			continue
		}
		select {
		case c.answers <- a:
		case <-c.closing:
		}
	}
}

// Kind is the kind of the connection.
func (c *Conn) Kind() Kind { return c.kind }

// Ask sends a text, without a line feed, and returns the answer. If ctx ends first,
// the connection is of no use any more. It fails with [errors.ErrUnsupported] on
// kinds where the client has nothing to say ([SSE]).
func (c *Conn) Ask(ctx context.Context, text string) (Answer, error) {
	if c.pushes {
		return Answer{}, fmt.Errorf("ask on a connection of kind %s: %w", c.kind, errors.ErrUnsupported)
	}
	if err := c.wire.send(ctx, text); err != nil {
		return Answer{}, fmt.Errorf("send on a connection of kind %s: %w", c.kind, err)
	}
	return c.next(ctx)
}

// next waits for an answer.
func (c *Conn) next(ctx context.Context) (Answer, error) {
	select {
	case a := <-c.answers:
		return a, nil
	case <-c.ended:
		return Answer{}, fmt.Errorf("a connection of kind %s is over (goodbye: %s): %w", c.kind, c.goodbye, c.err)
	case <-ctx.Done():
		return Answer{}, fmt.Errorf("wait for an answer on a connection of kind %s: %w", c.kind, context.Cause(ctx))
	}
}

// Alive makes one round trip, or waits for the next event, and returns the
// generation that answered.
func (c *Conn) Alive(ctx context.Context) (generation int, err error) {
	if c.pushes {
		a, err := c.next(ctx)
		return a.Generation, err
	}
	c.asked++
	text := fmt.Sprintf("still there? %d", c.asked)
	a, err := c.Ask(ctx, text)
	if err == nil && a.Text != text {
		err = fmt.Errorf("asked %q on a connection of kind %s, got %q", text, c.kind, a.Text)
	}
	return a.Generation, err
}

// Ended is closed when the connection is over.
func (c *Conn) Ended() <-chan struct{} { return c.ended }

// Goodbye waits for the end of the connection and tells how it came. What arrives
// meanwhile is dropped. The error is that of ctx; why a connection ended without a
// goodbye is what Err says.
func (c *Conn) Goodbye(ctx context.Context) (Goodbye, error) {
	for {
		select {
		case <-c.ended:
			return c.goodbye, nil
		case <-c.answers:
		case <-ctx.Done():
			return "", fmt.Errorf("wait for the goodbye on a connection of kind %s: %w", c.kind, context.Cause(ctx))
		}
	}
}

// Err is nil while the connection is open, and then what it ended with; after a
// goodbye that may be io.EOF.
func (c *Conn) Err() error {
	select {
	case <-c.ended:
		return c.err
	default:
		return nil
	}
}

// Close closes the connection. It may be called more than once.
func (c *Conn) Close() {
	c.once.Do(func() {
		close(c.closing)
		c.wire.close()
	})
	<-c.ended
}
