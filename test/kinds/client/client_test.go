package client_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hdctl/handoff/test/kinds/client"
	"github.com/hdctl/handoff/test/kinds/rpc"
	"github.com/hdctl/handoff/test/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// server is generation 7 of a service. When end is closed it says goodbye or, if
// it is rude, ends connections without.
type server struct {
	rude  bool
	wrong bool // each answer
	end   chan struct{}
	addr  string

	mu    sync.Mutex
	conns []net.Conn
}

// listener remembers the connections, for a rude end.
type listener struct {
	net.Listener
	s *server
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.s.mu.Lock()
		l.s.conns = append(l.s.conns, c)
		l.s.mu.Unlock()
	}
	return c, err
}

// start serves the protocol of a kind.
func start(t *testing.T, kind client.Kind, s *server) *server {
	t.Helper()
	s.end = make(chan struct{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.addr = ln.Addr().String()
	ln = listener{ln, s}
	var done sync.WaitGroup
	t.Cleanup(done.Wait)
	switch kind {
	case client.SSE, client.WebSocket:
		mux := http.NewServeMux()
		mux.HandleFunc("GET /sse", s.events)
		mux.HandleFunc("GET /ws", s.webSocket)
		srv := &http.Server{Handler: mux}
		done.Go(func() { srv.Serve(ln) })
		t.Cleanup(func() { srv.Close() })
	case client.GRPC:
		srv := grpc.NewServer()
		rpc.Register(srv, s)
		done.Go(func() { srv.Serve(ln) })
		t.Cleanup(srv.Stop)
	default:
		done.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				done.Go(func() { s.lines(c) })
			}
		})
		t.Cleanup(func() { ln.Close() })
	}
	t.Cleanup(func() {
		s.leave()
		s.cut()
	})
	return s
}

func (s *server) dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", s.addr)
}

// leave has the server say goodbye, or not.
func (s *server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.end:
	default:
		close(s.end)
	}
	if s.rude {
		s.cutLocked()
	}
}

func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cutLocked()
}

func (s *server) cutLocked() {
	for _, c := range s.conns {
		c.Close()
	}
}

// polite waits for the end, and tells if there shall be a goodbye.
func (s *server) polite() bool {
	<-s.end
	return !s.rude
}

func (s *server) text(text string) string {
	if s.wrong {
		text = "eh?"
	}
	return text
}

func (s *server) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w).Flush
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for flush() == nil {
		select {
		case <-s.end:
			if !s.rude {
				fmt.Fprint(w, "event: goodbye\ndata: bye\n\n")
			}
			return
		case <-tick.C:
			fmt.Fprintf(w, "data: %s\n\n", s.text("7"))
		}
	}
}

func (s *server) webSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer c.CloseNow()
	go func() {
		if s.polite() {
			c.Close(websocket.StatusGoingAway, "bye")
		}
	}()
	for {
		kind, text, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, fmt.Appendf(nil, "7: %s", s.text(string(text)))) != nil {
			return
		}
	}
}

func (s *server) Echo(_ context.Context, text string) (string, error) { return "7: " + text, nil }

func (s *server) Chat(stream rpc.Stream) error {
	go func() {
		for {
			text, err := stream.Receive()
			if err != nil || stream.Send("7: "+s.text(text)) != nil {
				return
			}
		}
	}()
	select {
	case <-stream.Context().Done():
	case <-s.end:
		if !s.rude {
			return status.Error(codes.Unavailable, "generation 7 is leaving")
		}
		<-stream.Context().Done() // of the connection that is cut
	}
	return nil
}

func (s *server) lines(c net.Conn) {
	defer c.Close()
	left := make(chan struct{})
	defer close(left)
	go func() {
		select {
		case <-left:
			return
		case <-s.end:
		}
		if !s.rude {
			fmt.Fprint(c, "goodbye\n")
			c.Close()
		}
	}()
	count := 0
	for in := bufio.NewScanner(c); in.Scan(); {
		count++
		fmt.Fprintf(c, "7 %d %s\n", count, s.text(in.Text()))
	}
}

func open(t *testing.T, kind client.Kind, s *server) *client.Conn {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel() // the connection does not depend on it
	c, err := client.Open(ctx, kind, s.dial)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func TestGoodbye(t *testing.T) {
	for _, kind := range client.Kinds() {
		for _, rude := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, rude: %t", kind, rude), func(t *testing.T) {
				s := start(t, kind, &server{rude: rude})
				c := open(t, kind, s)
				for range 3 {
					generation, err := c.Alive(t.Context())
					require.NoError(t, err)
					assert.Equal(t, 7, generation)
				}
				assert.NoError(t, c.Err())

				expired, cancel := context.WithCancel(t.Context())
				cancel()
				_, err := c.Goodbye(expired)
				assert.ErrorIs(t, err, context.Canceled)

				s.leave()
				goodbye, err := c.Goodbye(t.Context())
				require.NoError(t, err)
				if rude {
					assert.Equal(t, client.None, goodbye)
				} else {
					assert.Equal(t, kind.Polite(), goodbye, "%v", c.Err())
				}
				<-c.Ended()
				assert.Error(t, c.Err())
				_, err = c.Alive(t.Context())
				assert.Error(t, err)
			})
		}
	}
}

func TestAsk(t *testing.T) {
	for _, kind := range client.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			c := open(t, kind, start(t, kind, &server{}))
			a, err := c.Ask(t.Context(), "a question")
			if kind == client.SSE {
				assert.ErrorIs(t, err, errors.ErrUnsupported)
				return
			}
			require.NoError(t, err)
			want := client.Answer{Generation: 7, Text: "a question"}
			if kind == client.Raw || kind == client.Session {
				want.Count = 2 // the first was Open's
			}
			assert.Equal(t, want, a)
		})
	}
}

func TestWrongAnswer(t *testing.T) {
	for _, kind := range client.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			_, err := client.Open(t.Context(), kind, start(t, kind, &server{wrong: true}).dial)
			assert.ErrorContains(t, err, "eh?")
		})
	}
}

func TestNobodyAnswers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // and no Accept
	require.NoError(t, err)
	defer ln.Close()
	for _, kind := range client.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			_, err := client.Open(ctx, kind, func(ctx context.Context) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
			})
			assert.Error(t, err)
			assert.Error(t, ctx.Err())
		})
	}
}

func TestRefused(t *testing.T) {
	refused := errors.New("nobody is at home")
	for _, kind := range client.Kinds() {
		_, err := client.Open(t.Context(), kind, func(context.Context) (net.Conn, error) { return nil, refused })
		assert.ErrorContains(t, err, refused.Error(), kind)
	}
	_, err := client.Open(t.Context(), "telegraph", nil)
	assert.ErrorIs(t, err, errors.ErrUnsupported)
}

func TestUnary(t *testing.T) {
	s := start(t, client.GRPC, &server{})
	answer, err := client.Echo(t.Context(), s.dial, "hello")
	require.NoError(t, err)
	assert.Equal(t, client.Answer{Generation: 7, Text: "hello"}, answer)
}

// A close of ours is no goodbye of theirs.
func TestClose(t *testing.T) {
	for _, kind := range client.Kinds() {
		c := open(t, kind, start(t, kind, &server{}))
		c.Close()
		c.Close()
		goodbye, err := c.Goodbye(t.Context())
		require.NoError(t, err)
		assert.Equal(t, client.None, goodbye, kind)
	}
}
