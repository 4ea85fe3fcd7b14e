package client

import (
	"context"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// socket is a WebSocket whose messages come back as "GENERATION: text".
type socket struct{ *websocket.Conn }

func openWebSocket(ctx context.Context, dial Dial) (wire, error) {
	// This transport never retries: that it does on used connections only.
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}
	c, _, err := websocket.Dial(ctx, "ws://kinds/ws", &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		return nil, err
	}
	return socket{c}, nil
}

func (s socket) send(ctx context.Context, text string) error {
	return s.Write(ctx, websocket.MessageText, []byte(text))
}

func (s socket) receive() (Answer, Goodbye, error) {
	_, text, err := s.Read(context.Background()) // ended by close
	switch {
	case websocket.CloseStatus(err) == websocket.StatusGoingAway:
		return Answer{}, CloseFrame, err
	case err != nil:
		return Answer{}, None, err
	}
	a, err := parseEcho(string(text))
	return a, None, err
}

func (s socket) close() { _ = s.CloseNow() }
