package client

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/hdctl/handoff/test/kinds/rpc"
)

// chat is a gRPC stream whose texts come back as "GENERATION: text".
type chat struct {
	conn   *grpc.ClientConn
	stream rpc.Stream
	cancel context.CancelFunc
}

var errSecond = errors.New("a second connection, which is not made: this is about the first one")

// dialOnce makes a client that connects once.
func dialOnce(dial Dial) (*grpc.ClientConn, error) {
	var dialed atomic.Bool
	return grpc.NewClient("passthrough:///kinds",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			if dialed.Swap(true) {
				return nil, errSecond
			}
			return dial(ctx)
		}))
}

// Echo makes a unary gRPC call, on a connection of its own.
func Echo(ctx context.Context, dial Dial, text string) (Answer, error) {
	conn, err := dialOnce(dial)
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	answer, err := rpc.Echo(ctx, conn, text)
	if err != nil {
		return Answer{}, err
	}
	return parseEcho(answer)
}

func openChat(ctx context.Context, dial Dial) (wire, error) {
	conn, err := dialOnce(dial)
	if err != nil {
		return nil, err
	}
	// The end of ctx ends the opening, not what was opened.
	streaming, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cut := context.AfterFunc(ctx, cancel)
	stream, err := rpc.Chat(streaming, conn)
	if !cut() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel()
		conn.Close()
		return nil, err
	}
	return &chat{conn, stream, cancel}, nil
}

func (c *chat) send(_ context.Context, text string) error { return c.stream.Send(text) }

func (c *chat) receive() (Answer, Goodbye, error) {
	text, err := c.stream.Receive()
	if err != nil {
		// A connection that breaks is Unavailable, too, in other words.
		if s := status.Convert(err); s.Code() == codes.Unavailable && strings.HasSuffix(s.Message(), "is leaving") {
			return Answer{}, Unavailable, err
		}
		return Answer{}, None, err
	}
	a, err := parseEcho(text)
	return a, None, err
}

func (c *chat) close() {
	c.cancel()
	c.conn.Close()
}
