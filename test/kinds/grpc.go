package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/hdctl/handoff/test/kinds/rpc"
	"github.com/hdctl/handoff/upgrade"
)

// connCredentials are no credentials: they bring the connection of a call to its
// handler, for they are the only place where package grpc shows it.
type connCredentials struct{}

// connInfo is what such a handler finds in its peer.
type connInfo struct {
	credentials.CommonAuthInfo
	conn *upgrade.Conn
}

func (connInfo) AuthType() string { return "insecure" }

// ServerHandshake does nothing on the wire.
func (connCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, ok := upgrade.ConnOf(c)
	if !ok {
		return nil, nil, fmt.Errorf("%T is no connection of the Upgrader's", c)
	}
	return c, connInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, conn}, nil
}

// ClientHandshake is not for servers.
func (connCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.ErrUnsupported
}

func (connCredentials) Info() credentials.ProtocolInfo            { return insecure.NewCredentials().Info() }
func (c connCredentials) Clone() credentials.TransportCredentials { return c }
func (connCredentials) OverrideServerName(string) error           { return nil }

// hang is the text on which a call does not end by itself.
const hang = "hang"

// Echo sends the text back, after the generation.
func (s *service) Echo(ctx context.Context, text string) (string, error) {
	if text == hang {
		<-ctx.Done()
		return "", status.FromContextError(ctx.Err()).Err()
	}
	return fmt.Sprintf("%d: %s", s.generation, text), nil
}

// Chat does so for each text of a stream. The goodbye is a status, on which a
// client tries again, elsewhere.
func (s *service) Chat(stream rpc.Stream) error {
	p, _ := peer.FromContext(stream.Context())
	info, ok := p.AuthInfo.(connInfo)
	if !ok {
		return status.Error(codes.Internal, errNoConn.Error())
	}
	leave, stop := leaving(info.conn)
	defer stop()
	texts, ended := make(chan string), make(chan error, 1)
	go func() { // ends with the stream, at the latest when this handler returns
		for {
			text, err := stream.Receive()
			if err != nil {
				ended <- err
				return
			}
			select {
			case texts <- text:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	for {
		select {
		case text := <-texts:
			if err := stream.Send(fmt.Sprintf("%d: %s", s.generation, text)); err != nil {
				return err
			}
		case <-leave:
			return status.Errorf(codes.Unavailable, "generation %d is leaving", s.generation)
		case err := <-ended:
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}
