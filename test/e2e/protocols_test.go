package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/hdctl/handoff/test/kinds/rpc"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// tally counts what became of calls, and who answered.
type tally struct {
	mu       sync.Mutex
	answers  map[int]int // by generation
	failures []error
}

// add counts an answer "GENERATION: text".
func (c *tally) add(answer, text string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	number, rest, _ := strings.Cut(answer, ": ")
	generation, bad := strconv.Atoi(number)
	if err == nil && (bad != nil || rest != text) {
		err = fmt.Errorf("asked %q, answered %q", text, answer)
	}
	if err != nil {
		c.failures = append(c.failures, err)
		return
	}
	if c.answers == nil {
		c.answers = make(map[int]int)
	}
	c.answers[generation]++
}

// from returns how many answers a generation gave.
func (c *tally) from(generation int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answers[generation]
}

func (c *tally) total() (n int) {
	for _, k := range c.answers {
		n += k
	}
	return n
}

// callers call again and again, after random pauses, until they are stopped.
type callers struct {
	wg     sync.WaitGroup
	ctx    context.Context
	cancel context.CancelFunc
}

func newCallers(t testing.TB) *callers {
	c := new(callers)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	t.Cleanup(c.stop)
	return c
}

func (c *callers) start(n int, call func(number int)) {
	for range n {
		c.wg.Go(func() {
			pause := time.NewTimer(0)
			defer pause.Stop()
			for number := 0; ; number++ {
				select {
				case <-pause.C:
				case <-c.ctx.Done():
					return
				}
				call(number)
				pause.Reset(rand.N(10 * time.Millisecond))
			}
		})
	}
}

// stop lets those that are under way end.
func (c *callers) stop() {
	c.cancel()
	c.wg.Wait()
}

// upgradeUnder upgrades so many times, each time when the calls of all tallies have
// got answers from who serves.
func (s *kindsSite) upgradeUnder(upgrades int, tallies ...*tally) {
	s.t.Helper()
	for n := 1; n <= upgrades+1; n++ {
		if n > 1 {
			s.reload()
		}
		s.WaitFor(s.t, fmt.Sprintf("answers of generation %d", n), func() bool {
			for _, c := range tallies {
				if c.from(n) < 20 {
					return false
				}
			}
			return true
		})
	}
}

// rpcClient is a gRPC client that retries nothing, but for calls that have never
// left the client or that the server has refused unseen, as gRPC always does.
func (s *kindsSite) rpcClient() *grpc.ClientConn {
	s.t.Helper()
	dial := s.dial("grpc")
	conn, err := grpc.NewClient("passthrough:///kinds",
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry(),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }))
	require.NoError(s.t, err)
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// TestGRPCCallsDoNotFail makes unary calls all the time while the service is
// upgraded ten times.
func TestGRPCCallsDoNotFail(t *testing.T) {
	s := newKinds(t, nil, nil, "grpc")
	calls, load := new(tally), newCallers(t)
	for range 4 {
		conn := s.rpcClient()
		load.start(2, func(number int) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			text := fmt.Sprint("call ", number)
			answer, err := rpc.Echo(ctx, conn, text)
			calls.add(answer, text, err)
		})
	}
	s.upgradeUnder(10, calls)
	load.stop()
	t.Logf("%d calls, %d failed", calls.total(), len(calls.failures))
	assert.Empty(t, calls.failures)
	s.waitOnly(11) // its GracefulStop ends with the calls
	s.assertNoTrouble()
}

// TestGRPCDrainEndsAtTheDeadline has a call that never ends: GracefulStop waits for
// it, but not longer than the drain may take.
func TestGRPCDrainEndsAtTheDeadline(t *testing.T) {
	s := newKinds(t, nil, func(u *units.Service) { u.DrainTimeout = 2 * time.Second }, "grpc")
	conn := s.rpcClient()
	_, err := rpc.Echo(t.Context(), conn, "hello")
	require.NoError(t, err)
	before := s.conns()[0].In
	hung := make(chan error, 1)
	go func() {
		_, err := rpc.Echo(context.Background(), conn, "hang")
		hung <- err
	}()
	s.WaitFor(t, "the call", func() bool { return s.conns()[0].In >= before+20 })

	r := s.hdctl("upgrade", "--wait=drained", "-o", "json", "demo")
	assert.Equal(t, 8, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	assert.Equal(t, control.Counts{Total: 1, Stream: 1}, upgradeResult(t, r).Cut)
	assert.Equal(t, codes.Unavailable, status.Code(<-hung))
	s.waitOnly(2)
	answer, err := rpc.Echo(t.Context(), conn, "again")
	require.NoError(t, err)
	assert.Equal(t, "2: again", answer)
}

// http2Sockets are the sockets that speak HTTP/2, and the URL.
var http2Sockets = map[string]string{"https": "https://kinds/", "h2c": "http://kinds/"}

// http2Client is the client of net/http, which tries again only what RFC 9113 says
// is safe. The certificate is anybody's.
func (s *kindsSite) http2Client(socket string) *http.Client {
	dial := s.dial(socket)
	protocols := new(http.Protocols)
	protocols.SetHTTP2(socket == "https")
	protocols.SetUnencryptedHTTP2(socket == "h2c")
	transport := &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		Protocols:       protocols,
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// post sends a body and returns the answer.
func post(c *http.Client, url string, body io.Reader) (string, error) {
	r, err := c.Post(url, "text/plain", body)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	switch {
	case err != nil:
		return "", err
	case r.ProtoMajor != 2 || r.StatusCode != http.StatusOK:
		return "", fmt.Errorf("%s %s", r.Proto, r.Status)
	}
	return string(text), nil
}

// TestHTTP2FinishesWhatIsInFlight upgrades in the middle of a request, which the old
// generation answers, beside an idle connection, which is not what its drain lasts
// for.
func TestHTTP2FinishesWhatIsInFlight(t *testing.T) {
	for socket, url := range http2Sockets {
		t.Run(socket, func(t *testing.T) {
			s := newKinds(t, nil, func(u *units.Service) { u.DrainTimeout = 30 * time.Second }, socket)
			idle, busy := s.http2Client(socket), s.http2Client(socket)
			answer, err := post(idle, url, strings.NewReader("hello"))
			require.NoError(t, err)
			require.Equal(t, "1: hello", answer)
			body, more := io.Pipe()
			finished := make(chan string, 1)
			go func() {
				answer, err := post(busy, url, body)
				assert.NoError(t, err)
				finished <- answer
			}()
			_, err = io.WriteString(more, "hel")
			require.NoError(t, err)
			s.WaitFor(t, "the request", func() bool {
				return mainOf(t, s.status()).Conns == control.Counts{Total: 2, Idle: 1, Active: 1}
			})

			up := s.inBackground("hdctl", "upgrade", "--wait=drained", "-o", "json", "demo")
			s.waitMain(2)
			_, err = io.WriteString(more, "lo")
			require.NoError(t, err)
			require.NoError(t, more.Close())
			assert.Equal(t, "1: hello", <-finished)
			r := <-up
			assert.Equal(t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
			assert.Zero(t, upgradeResult(t, r).Cut)
			for _, c := range []*http.Client{idle, busy} {
				answer, err := post(c, url, strings.NewReader("hello"))
				require.NoError(t, err)
				assert.Equal(t, "2: hello", answer)
			}
		})
	}
}

// TestHTTP2RequestsDoNotFail sends requests all the time while the service is
// upgraded ten times. Those that cross a GOAWAY are refused, and safe to be sent
// again: the client does so where it can. With a body that it cannot send again it
// has to give up, which is not for the server to mend.
func TestHTTP2RequestsDoNotFail(t *testing.T) {
	for socket, url := range http2Sockets {
		t.Run(socket, func(t *testing.T) {
			s := newKinds(t, nil, nil, socket)
			replayable, once, load := new(tally), new(tally), newCallers(t)
			for range 4 {
				c := s.http2Client(socket)
				load.start(2, func(number int) {
					text := fmt.Sprint("request ", number)
					answer, err := post(c, url, bytes.NewReader([]byte(text)))
					replayable.add(answer, text, err)
				})
				load.start(1, func(number int) {
					text := fmt.Sprint("request ", number)
					answer, err := post(c, url, struct{ io.Reader }{strings.NewReader(text)})
					once.add(answer, text, err)
				})
			}
			s.upgradeUnder(10, replayable, once)
			load.stop()
			t.Logf("%d requests, %d failed; and %d whose body cannot be sent again, %d failed",
				replayable.total(), len(replayable.failures), once.total(), len(once.failures))
			assert.Empty(t, replayable.failures)
			for _, err := range once.failures {
				assert.Regexp(t, "cannot (retry|rewind)", err) // and nothing else
			}
			s.waitOnly(11)
			s.assertNoTrouble()
		})
	}
}
