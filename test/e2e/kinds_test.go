package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	kinds "github.com/hdctl/handoff/test/kinds/client"
	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// kindsSite is a site with test/kinds in place of the demo: a service that holds
// connections of every kind that live long.
type kindsSite struct{ *site }

// ports of the sockets of the kinds service.
var ports = map[string]string{
	"http": "8080", "https": "8443", "h2c": "8081", "grpc": "8082", "raw": "8083", "session": "8084",
}

// newKinds boots a testbed and starts the kinds service with the given sockets. env
// has variables of its unit, besides.
func newKinds(t testing.TB, env map[string]string, change func(*units.Service), sockets ...string) *kindsSite {
	t.Helper()
	return &kindsSite{newSite(t, options{
		program: "kinds", probation: 50 * time.Millisecond,
		unit: func(u *units.Service) {
			u.Sockets = nil
			for _, name := range sockets {
				u.Sockets = append(u.Sockets, socket(t, name, ports[name]))
			}
			for name, value := range env {
				u.Environment = append(u.Environment, units.Variable{Name: name, Value: value})
			}
			if change != nil {
				change(u)
			}
		},
	})}
}

// dial returns what connects to a socket of the service.
func (s *kindsSite) dial(socket string) kinds.Dial {
	return func(ctx context.Context) (net.Conn, error) { return s.Dial(ctx, "tcp", "127.0.0.1:"+ports[socket]) }
}

// heldConn is a connection of one of the kinds, and who answers on it.
type heldConn struct {
	*kinds.Conn
	generation int    // that served when it was made
	address    string // of our end
}

// open opens a connection, which is answered by the given generation.
func (s *kindsSite) open(kind kinds.Kind, generation int) *heldConn {
	s.t.Helper()
	h := &heldConn{generation: generation}
	dial := s.dial(kind.Socket())
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := kinds.Open(ctx, kind, func(ctx context.Context) (net.Conn, error) {
		c, err := dial(ctx)
		if err == nil {
			h.address = c.LocalAddr().String()
		}
		return c, err
	})
	require.NoError(s.t, err)
	s.t.Cleanup(c.Close)
	h.Conn = c
	s.requireAlive(h)
	return h
}

// steady are the kinds that stay with the generation that has accepted them.
func steady() []kinds.Kind {
	return []kinds.Kind{kinds.WebSocket, kinds.GRPC, kinds.SSE, kinds.Raw}
}

// openSteady opens one connection of each of those kinds.
func (s *kindsSite) openSteady(generation int) []*heldConn {
	s.t.Helper()
	var all []*heldConn
	for _, kind := range steady() {
		all = append(all, s.open(kind, generation))
	}
	return all
}

// answeredBy asks who answers.
func (s *kindsSite) answeredBy(h *heldConn) int {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	generation, err := h.Alive(ctx)
	require.NoError(s.t, err, "%s, opened in generation %d", h.Kind(), h.generation)
	return generation
}

// requireAlive asserts that the connection's generation answers.
func (s *kindsSite) requireAlive(h *heldConn) {
	s.t.Helper()
	require.Equal(s.t, h.generation, s.answeredBy(h), "%s", h.Kind())
}

// assertPolite asserts that the connection ends with the goodbye that is due.
func assertPolite(t testing.TB, h *heldConn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	goodbye, err := h.Goodbye(ctx)
	require.NoError(t, err)
	assert.Equal(t, h.Kind().Polite(), goodbye, "%s of generation %d: %v", h.Kind(), h.generation, h.Err())
}

// ending is the end of a connection.
type ending struct {
	*heldConn
	at time.Time
}

// endings notes when connections end, and closes them then: clients that leave when
// they are told to.
type endings struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	list []ending // in their order
}

func (e *endings) watch(conns ...*heldConn) {
	for _, h := range conns {
		e.wg.Go(func() {
			<-h.Ended() // at the latest at the end of the test
			e.mu.Lock()
			e.list = append(e.list, ending{h, time.Now()})
			e.mu.Unlock()
			h.Close()
		})
	}
}

// wait returns the endings when all have ended.
func (e *endings) wait() []ending {
	e.wg.Wait()
	return e.list
}

// conns asks for the list of connections.
func (s *site) conns(filter ...string) []control.Conn {
	s.t.Helper()
	r := s.hdctl(append([]string{"conns", "-o", "json", "demo"}, filter...)...)
	require.Equal(s.t, 0, r.ExitCode, "%s%s", r.Stdout, r.Stderr)
	var list []control.Conn
	require.NoError(s.t, json.Unmarshal([]byte(r.Stdout), &list), "%s", r.Stdout)
	return list
}

// upgradeResult reads what "hdctl upgrade -o json" prints.
func upgradeResult(t testing.TB, r testbed.Result) control.Result {
	t.Helper()
	var result control.Result
	require.NoError(t, json.Unmarshal([]byte(r.Stdout), &result), "%s%s", r.Stdout, r.Stderr)
	return result
}

// waitMain waits until the given generation is the main one, and serves.
func (s *site) waitMain(generation int) {
	s.t.Helper()
	s.WaitFor(s.t, fmt.Sprintf("generation %d", generation), func() bool {
		st := s.status()
		return st.Main == generation && st.State == control.StateServing && st.Upgrade == nil
	})
}

// waitOnly waits until no other generation is left.
func (s *site) waitOnly(generation int) {
	s.t.Helper()
	s.WaitFor(s.t, fmt.Sprintf("generation %d to be alone", generation), func() bool {
		st := s.status()
		return len(st.Generations) == 1 && st.Main == generation
	})
}
