// Package rpc is the gRPC service of the kinds test service, without generated
// code: what protoc-gen-go-grpc would make of
//
//	service Kinds {
//	  rpc Echo(google.protobuf.StringValue) returns (google.protobuf.StringValue);
//	  rpc Chat(stream google.protobuf.StringValue) returns (stream google.protobuf.StringValue);
//	}
package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const name = "hdctl.handoff.test.Kinds"

// Server is what answers the calls.
type Server interface {
	// Echo answers one text.
	Echo(ctx context.Context, text string) (string, error)
	// Chat answers the texts of a stream until it returns.
	Chat(s Stream) error
}

// Stream is one end of a Chat. One goroutine may send while another receives.
type Stream struct{ s stream }

// stream is what grpc.ServerStream and grpc.ClientStream have in common.
type stream interface {
	Context() context.Context
	SendMsg(m any) error
	RecvMsg(m any) error
}

// Context is done when the stream is over.
func (s Stream) Context() context.Context { return s.s.Context() }

// Send sends a text.
func (s Stream) Send(text string) error { return s.s.SendMsg(wrapperspb.String(text)) }

// Receive returns the next text. In a server io.EOF says that the client has no
// more; in a client other errors are the status that the server ended with.
func (s Stream) Receive() (string, error) {
	var m wrapperspb.StringValue
	if err := s.s.RecvMsg(&m); err != nil {
		return "", err
	}
	return m.Value, nil
}

// Register has r, such as a *grpc.Server, call srv.
func Register(r grpc.ServiceRegistrar, srv Server) { r.RegisterService(&service, srv) }

var service = grpc.ServiceDesc{
	ServiceName: name,
	HandlerType: (*Server)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Echo", Handler: echo}},
	Streams:     []grpc.StreamDesc{{StreamName: "Chat", Handler: chat, ServerStreams: true, ClientStreams: true}},
}

func echo(srv any, ctx context.Context, decode func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
	in := new(wrapperspb.StringValue)
	if err := decode(in); err != nil {
		return nil, err
	}
	handle := func(ctx context.Context, in any) (any, error) {
		text, err := srv.(Server).Echo(ctx, in.(*wrapperspb.StringValue).Value)
		if err != nil {
			return nil, err
		}
		return wrapperspb.String(text), nil
	}
	if intercept == nil {
		return handle(ctx, in)
	}
	return intercept(ctx, in, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + name + "/Echo"}, handle)
}

func chat(srv any, s grpc.ServerStream) error { return srv.(Server).Chat(Stream{s}) }

// Echo calls Echo.
func Echo(ctx context.Context, conn grpc.ClientConnInterface, text string) (string, error) {
	var out wrapperspb.StringValue
	if err := conn.Invoke(ctx, "/"+name+"/Echo", wrapperspb.String(text), &out); err != nil {
		return "", err
	}
	return out.Value, nil
}

// Chat opens a Chat, which ends with ctx.
func Chat(ctx context.Context, conn grpc.ClientConnInterface) (Stream, error) {
	s, err := conn.NewStream(ctx, &service.Streams[0], "/"+name+"/Chat")
	if err != nil {
		return Stream{}, err
	}
	return Stream{s}, nil
}
