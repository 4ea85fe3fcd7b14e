package upgrade

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/internal/track"
)

// teller is a gRPC service by hand: Name answers with its name; Wait does so when
// proceed is closed; Stream says it again for each question, until the client has
// no more, or for ever, if it is stubborn: then it does not care for its context.
type teller struct {
	name     string
	began    chan struct{} // a Wait, or a stubborn Stream, has begun
	proceed  chan struct{}
	stubborn bool
}

func (s *teller) desc() *grpc.ServiceDesc {
	unary := func(answer func(context.Context) error) grpc.MethodHandler {
		return func(_ any, ctx context.Context, in func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			if err := in(new(emptypb.Empty)); err != nil {
				return nil, err
			}
			return wrapperspb.String(s.name), answer(ctx)
		}
	}
	return &grpc.ServiceDesc{
		ServiceName: "Teller",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Name", Handler: unary(func(context.Context) error { return nil })},
			{MethodName: "Wait", Handler: unary(func(context.Context) error {
				close(s.began)
				<-s.proceed
				return nil
			})},
		},
		Streams: []grpc.StreamDesc{{StreamName: "Stream", ServerStreams: true, ClientStreams: true, Handler: s.stream}},
	}
}

func (s *teller) stream(_ any, stream grpc.ServerStream) error {
	if s.stubborn {
		close(s.began)
		<-s.proceed
	}
	for {
		switch err := stream.RecvMsg(new(emptypb.Empty)); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := stream.SendMsg(wrapperspb.String(s.name)); err != nil {
			return err
		}
	}
}

// tell serves a teller, as a generation of that name.
func tell(t *testing.T, s *teller, opts ...grpc.ServerOption) *served {
	t.Helper()
	s.began, s.proceed = make(chan struct{}), make(chan struct{})
	srv := grpc.NewServer(opts...)
	srv.RegisterService(s.desc(), s)
	t.Cleanup(srv.Stop)
	return listenOn(t, Graceful(srv))
}

// door is where clients of two generations connect to.
type door struct{ open atomic.Pointer[served] }

func newDoor(to *served) *door {
	d := new(door)
	d.open.Store(to)
	return d
}

// client makes a client that comes through the door.
func (d *door) client(t *testing.T) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///door", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "tcp", d.open.Load().ln.Addr().String())
		}))
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, c.Close()) })
	return c
}

// ask makes a call, and returns the name of who answers.
func ask(c *grpc.ClientConn, method string) (string, error) {
	var name wrapperspb.StringValue
	err := c.Invoke(context.Background(), "/Teller/"+method, new(emptypb.Empty), &name)
	return name.GetValue(), err
}

func openStream(t *testing.T, c *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	stream, err := c.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/Teller/Stream")
	require.NoError(t, err)
	return stream
}

// askOn asks one question on a stream.
func askOn(t *testing.T, stream grpc.ClientStream) string {
	t.Helper()
	var name wrapperspb.StringValue
	require.NoError(t, stream.SendMsg(new(emptypb.Empty)))
	require.NoError(t, stream.RecvMsg(&name))
	return name.GetValue()
}

// TestGracefulFinishesCallsAndStreams drains with a call and a stream that run, and
// a client that asks nothing: the first two end in peace, and whoever asks something
// new afterwards is answered by the next generation, without an error.
func TestGracefulFinishesCallsAndStreams(t *testing.T) {
	leak.Check(t)
	old := &teller{name: "old"}
	before, after := tell(t, old), tell(t, &teller{name: "new"})
	d := newDoor(before)
	idle, busy := d.client(t), d.client(t)
	name, err := ask(idle, "Name")
	require.NoError(t, err)
	require.Equal(t, "old", name)
	stream := openStream(t, busy)
	require.Equal(t, "old", askOn(t, stream))
	var calls sync.WaitGroup
	calls.Go(func() {
		name, err := ask(busy, "Wait")
		assert.NoError(t, err)
		assert.Equal(t, "old", name)
	})
	<-old.began
	before.await(track.Counts{track.Stream: 2})

	d.open.Store(after)
	drained := before.drain(t.Context(), time.Hour)
	before.await(track.Counts{track.Stream: 1}) // the idle one went
	for _, c := range []*grpc.ClientConn{idle, busy, idle, busy} {
		name, err := ask(c, "Name")
		require.NoError(t, err)
		assert.Equal(t, "new", name)
	}
	close(old.proceed)
	calls.Wait()
	for range 3 {
		assert.Equal(t, "old", askOn(t, stream), "it goes on")
	}
	select {
	case <-drained:
		t.Fatal("drained while a stream is open")
	default:
	}
	require.NoError(t, stream.CloseSend())
	require.ErrorIs(t, stream.RecvMsg(new(wrapperspb.StringValue)), io.EOF)
	require.NoError(t, <-drained, "it ends early when nothing is left")
	before.await(track.Counts{})
}

// TestNoCallFailsWhileGracefulDrains has clients that never stop asking.
func TestNoCallFailsWhileGracefulDrains(t *testing.T) {
	leak.Check(t)
	before, after := tell(t, &teller{name: "old"}), tell(t, &teller{name: "new"})
	d := newDoor(before)
	var clients, begun sync.WaitGroup
	for range 4 {
		c := d.client(t)
		begun.Add(1)
		clients.Go(func() {
			last := ""
			for answers := 0; answers < 100; {
				name, err := ask(c, "Name")
				if !assert.NoError(t, err) {
					return
				}
				if last == "" {
					begun.Done()
				}
				if last = name; name == "new" {
					answers++
				}
			}
		})
	}
	begun.Wait()
	d.open.Store(after)
	require.NoError(t, <-before.drain(t.Context(), time.Hour))
	clients.Wait()
}

func TestGracefulCutsStreamsAtTheDeadline(t *testing.T) {
	for name, stubborn := range map[string]bool{"streams": false, "handlers that do not end": true} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			old := &teller{name: "old", stubborn: stubborn}
			s := tell(t, old)
			stream := openStream(t, newDoor(s).client(t))
			if stubborn {
				<-old.began
				defer close(old.proceed)
			} else {
				require.Equal(t, "old", askOn(t, stream))
			}
			ctx, deadline := context.WithCancelCause(t.Context())
			drained := s.drain(ctx, time.Hour)
			if !stubborn {
				assert.Equal(t, "old", askOn(t, stream))
			}
			deadline(ErrDrainDeadline)
			require.ErrorIs(t, <-drained, ErrDrainDeadline)
			err := stream.RecvMsg(new(wrapperspb.StringValue))
			require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
			s.await(track.Counts{})
		})
	}
}

// TestSilentConnectionDoesNotKeepGracefulFromSayingGoodbye has a client that never
// says a word, for which gRPC would wait an hour.
func TestSilentConnectionDoesNotKeepGracefulFromSayingGoodbye(t *testing.T) {
	leak.Check(t)
	before, after := tell(t, &teller{name: "old"}, grpc.ConnectionTimeout(time.Hour)), tell(t, &teller{name: "new"})
	d := newDoor(before)
	c := d.client(t)
	stream := openStream(t, c)
	require.Equal(t, "old", askOn(t, stream))
	before.dial()
	before.await(track.Counts{track.Stream: 2})

	d.open.Store(after)
	drained := before.drain(t.Context(), time.Hour)
	before.await(track.Counts{track.Stream: 1})
	require.Eventually(t, func() bool {
		name, err := ask(c, "Name")
		return assert.NoError(t, err) && name == "new"
	}, time.Minute, time.Millisecond, "told to go elsewhere")
	assert.Equal(t, "old", askOn(t, stream))
	require.NoError(t, stream.CloseSend())
	require.NoError(t, <-drained)
}

// TestOneGracefulServerOnTwoListeners drains both: one GracefulStop does it.
func TestOneGracefulServerOnTwoListeners(t *testing.T) {
	leak.Check(t)
	old := &teller{name: "old"}
	first := tell(t, old)
	second := listenOn(t, first.server)
	stream := openStream(t, newDoor(second).client(t))
	require.Equal(t, "old", askOn(t, stream))
	ends := []<-chan error{first.drain(t.Context(), time.Hour), second.drain(t.Context(), time.Hour)}
	assert.Equal(t, "old", askOn(t, stream))
	require.NoError(t, stream.CloseSend())
	for _, end := range ends {
		require.NoError(t, <-end)
	}
}

// script is a server without a network.
type script struct {
	serve           func(net.Listener) error
	graceful        chan struct{} // its end
	stops, goodbyes atomic.Int32
}

func (s *script) Serve(ln net.Listener) error { return s.serve(ln) }
func (s *script) Stop()                       { s.stops.Add(1) }
func (s *script) GracefulStop() {
	s.goodbyes.Add(1)
	<-s.graceful
}

// TestServeOfGracefulLastsAsLongAsItsDrain has servers that return from Serve at
// once: whatever they say of an end that is ours, it is no failure.
func TestServeOfGracefulLastsAsLongAsItsDrain(t *testing.T) {
	test := func(t *testing.T, said error) {
		srv := &script{serve: func(net.Listener) error { return said }, graceful: make(chan struct{})}
		s := Graceful(srv)
		assert.Equal(t, said, s.Serve(nil), "an end before the drain is not ours to judge")

		served, drained := make(chan error, 1), make(chan error, 1)
		go func() { drained <- s.Drain(t.Context()) }()
		synctest.Wait()
		go func() { served <- s.Serve(nil) }()
		synctest.Wait()
		select {
		case err := <-served:
			t.Fatalf("Serve returned %v in the middle of a drain", err)
		case err := <-drained:
			t.Fatalf("Drain returned %v in the middle of it", err)
		default:
		}
		close(srv.graceful)
		require.NoError(t, <-served)
		require.NoError(t, <-drained)
		require.NoError(t, s.Drain(t.Context()), "of another listener")
		assert.EqualValues(t, 1, srv.goodbyes.Load())
		assert.Zero(t, srv.stops.Load())
	}
	for name, said := range map[string]error{"nil": nil, "an error": errors.New("the server has been stopped")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, said) })
		})
	}
}

func TestGracefulStopsOnceAtTheDeadline(t *testing.T) {
	leak.Check(t)
	srv := &script{serve: func(net.Listener) error { return net.ErrClosed }, graceful: make(chan struct{})}
	defer close(srv.graceful)
	s := Graceful(srv)
	require.NoError(t, s.Serve(nil), "a generation that is over without a drain")
	ctx, deadline := context.WithCancelCause(t.Context())
	deadline(ErrDrainDeadline)
	require.ErrorIs(t, s.Drain(ctx), ErrDrainDeadline)
	_ = s.Drain(ctx) // of another listener
	assert.EqualValues(t, 1, srv.stops.Load())
	require.NoError(t, s.Serve(nil))
	assert.Implements(t, (*irreversible)(nil), s)
}
