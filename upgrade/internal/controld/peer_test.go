package controld_test

import (
	"context"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
)

func TestAllows(t *testing.T) {
	const none = -1
	tests := []struct {
		name              string
		service, operator int
		uid               int
		gids              []int
		want              bool
	}{
		{"root", 998, none, 0, []int{0}, true},
		{"the service's user", 998, none, 998, []int{998}, true},
		{"somebody", 998, none, 1000, []int{1000}, false},
		{"somebody in the group of the service", 998, none, 1000, []int{998}, false},
		{"somebody in group root", 998, none, 1000, []int{0}, false},
		{"operator", 998, 50, 1000, []int{1000, 50}, true},
		{"operator by primary group", 998, 50, 1000, []int{50}, true},
		{"not an operator", 998, 50, 1000, []int{1000, 51}, false},
		{"nobody", 998, none, 65534, []int{65534}, false},
		{"nobody as operator", 998, 50, 65534, []int{65534, 50}, false},
		{"nobody is the service's user", 65534, none, 65534, []int{65534}, true},
		{"unknown", 998, 50, -1, []int{50}, false},
		{"unknown, service unknown, too", -1, none, -1, []int{-1}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, controld.Allows(tt.service, tt.operator, tt.uid, tt.gids...))
		})
	}
}

func TestLookupGroup(t *testing.T) {
	tests := []struct {
		group, err string
		gid        int
	}{
		{"", "", -1},
		{"root", "", 0},
		{"4242", "", 4242}, // need not exist
		{"no-such-group", "does not exist", -1},
		{"65534", "cannot be used", -1},
		{"4294967295", "no valid group", -1},
		{"99999999999999999999", "no valid group", -1},
		{"-1", "does not exist", -1},
	}
	for _, tt := range tests {
		t.Run(tt.group, func(t *testing.T) {
			gid, err := controld.LookupGroup(tt.group)
			assert.Equal(t, tt.gid, gid)
			if tt.err == "" {
				assert.NoError(t, err)
			} else {
				assert.ErrorContains(t, err, tt.err)
			}
		})
	}
}

func TestPeerWithoutCredentials(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	p, err := controld.PeerOf(a)
	require.Error(t, err)
	assert.Equal(t, controld.Peer{UID: -1, GID: -1}, p)

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer c.Close()
	p, err = controld.PeerOf(c)
	assert.False(t, p.Command, "%v", err)
	assert.Equal(t, -1, p.UID)
}

// Real processes of other users, on a socket that all of them can connect to.
func TestWhoMayCommand(t *testing.T) {
	many := make([]int, 1000) // more than fit into the first buffer
	for i := range many {
		many[i] = 100000 + i
	}
	tests := []struct {
		name    string
		who     user
		service int
		group   string
		may     bool
	}{
		{"root", user{0, 0, nil}, 998, "", true},
		{"the service's user", user{998, 998, nil}, 998, "", true},
		{"somebody", user{1000, 1000, nil}, 998, "", false},
		{"somebody in other groups", user{1000, 1000, many}, 998, "4242", false},
		{"operator", user{1000, 1000, []int{5, 4242}}, 998, "4242", true},
		{"operator with many groups", user{1000, 1000, append(many, 4242)}, 998, "4242", true},
		{"operator by primary group", user{1000, 4242, nil}, 998, "4242", true},
		{"operator group unknown", user{1000, 4242, nil}, 998, "no-such-group", false},
		{"nobody", user{65534, 65534, nil}, 998, "", false},
		{"nobody in the operator group", user{65534, 65534, []int{4242}}, 998, "4242", false},
		{"nobody is the service's user", user{65534, 65534, nil}, 65534, "", true},
		{"overflow group", user{1000, 65534, []int{65534}}, 998, "65534", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			peers := make(chan controld.Peer, 4)
			srv, socket := start(t, controld.Config{
				ServiceUID:    tt.service,
				OperatorGroup: tt.group,
				Backend: &backend{
					upgrade: func(_ context.Context, _ control.UpgradeRequest, p controld.Peer, _ func(control.Event)) *control.Result {
						peers <- p
						return &control.Result{Outcome: control.OutcomeConfirmed}
					},
					promote: func(_ context.Context, _ control.PromoteRequest, p controld.Peer, _ func(control.Event)) *control.Result {
						peers <- p
						return &control.Result{Outcome: control.OutcomeConfirmed}
					},
					rollback: func(_ context.Context, _ control.RollbackRequest, p controld.Peer, _ func(control.Event)) *control.Result {
						peers <- p
						return &control.Result{Outcome: control.OutcomeRolledBack}
					},
					drain: func(_ context.Context, _ control.DrainRequest, p controld.Peer) error {
						peers <- p
						return nil
					},
					end: func(_ context.Context, _ control.EndRequest, p controld.Peer) (*control.EndResult, error) {
						peers <- p
						return new(control.EndResult), nil
					},
					pause: func(_ context.Context, _ control.PauseRequest, p controld.Peer) error {
						peers <- p
						return nil
					},
					reconfigure: func(_ context.Context, _ control.ReconfigureRequest, p controld.Peer) (*control.ReconfigureResult, error) {
						peers <- p
						return new(control.ReconfigureResult), nil
					},
					conns: func(context.Context, control.ConnFilter, func([]byte) error) (*control.ConnsEnd, error) {
						peers <- controld.Peer{} // it is not told
						return new(control.ConnsEnd), nil
					},
				},
			})
			require.NoError(t, os.Chmod(socket, 0o666))
			read := []string{"GET /v1/status", "GET /v1/version", "GET /v1/events", "GET /v1/history"}
			for _, request := range read {
				out := asUser(t, tt.who, "request", socket, "GET", strings.TrimPrefix(request, "GET "))
				assert.True(t, strings.HasPrefix(out, "200\n"), "who can connect may %s: %s", request, out)
			}
			for _, request := range srv.Routes() { // so that none is forgotten
				if slices.Contains(read, request) {
					continue
				}
				method, path, _ := strings.Cut(request, " ")
				out := asUser(t, tt.who, "request", socket, method, path)
				status, body, _ := strings.Cut(out, "\n")
				if tt.may {
					assert.Equal(t, "200", status, body)
					p := wait(t, peers, request)
					if method == "GET" {
						continue
					}
					assert.Equal(t, tt.who.uid, p.UID)
					assert.Equal(t, tt.who.gid, p.GID)
					assert.NotZero(t, p.PID)
					assert.True(t, p.Command)
					continue
				}
				assert.Equal(t, "403", status, body)
				assert.Contains(t, body, control.CodePermission)
				assert.Contains(t, body, strconv.Itoa(tt.who.uid))
				assert.Contains(t, body, "sudo")
				if tt.group == "4242" {
					assert.Contains(t, body, tt.group, "the hint names the group")
				}
			}
			assert.Empty(t, peers)
		})
	}
}

// The mode of the socket decides who can connect at all.
func TestWhoMayConnect(t *testing.T) {
	path := socketPath(t)
	ln, warning, err := controld.Listen(path, "4242")
	require.NoError(t, err)
	require.Empty(t, warning)
	srv := controld.New(controld.Config{Backend: new(backend), ServiceUID: 998, OperatorGroup: "4242"})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	defer func() {
		require.NoError(t, srv.Close())
		require.NoError(t, <-served)
	}()
	out := asUser(t, user{1000, 1000, []int{4242}}, "request", path, "POST", "/v1/upgrade")
	assert.True(t, strings.HasPrefix(out, "200\n"), out)
	out = asUser(t, user{1000, 1000, nil}, "request", path, "GET", "/v1/status")
	assert.Contains(t, out, "permission denied")
}

// Those who may only look cannot take all places.
func TestReadersLeavePlaces(t *testing.T) {
	srv, socket := start(t, controld.Config{ServiceUID: 998, Limits: controld.Limits{Conns: 8}})
	require.NoError(t, os.Chmod(socket, 0o666))
	for range 7 { // root takes all places that readers may have
		dial(t, socket)
	}
	require.Eventually(t, func() bool { served, _ := srv.Connections(); return served == 7 }, patience, time.Millisecond)
	out := asUser(t, user{1000, 1000, nil}, "request", socket, "GET", "/v1/status")
	assert.True(t, strings.HasPrefix(out, "503\n"), out)
	out = asUser(t, user{998, 998, nil}, "request", socket, "POST", "/v1/upgrade")
	assert.True(t, strings.HasPrefix(out, "200\n"), out)
}
