package controld_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/internal/controld"
)

// childEnv makes this test binary a client or a service of its own, as another
// user: see asUser.
const childEnv = "CONTROLD_TEST_CHILD"

// patience ends a test that would hang. Nothing is measured with it.
const patience = 20 * time.Second

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "request": // METHOD PATH of the socket and of the request: prints status and body
		os.Exit(childRequest(os.Args[1], os.Args[2], os.Args[3]))
	case "listen": // PATH GROUP: prints the warning or the error
		_, warning, err := controld.Listen(os.Args[1], os.Args[2])
		fmt.Println(warning, err)
		os.Exit(0)
	}
	leak.Main(m)
}

func childRequest(socket, method, path string) int {
	resp, err := client(socket).Do(newRequest(method, path, ""))
	if err != nil {
		fmt.Println(err)
		return 0
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode)
	_, _ = io.Copy(os.Stdout, resp.Body)
	return 0
}

// user is who a child runs as.
type user struct {
	uid, gid int
	groups   []int
}

// asUser runs this test binary as somebody else and returns what it prints.
func asUser(t *testing.T, u user, mode string, args ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can run a child as another user")
	}
	cred := &syscall.Credential{Uid: uint32(u.uid), Gid: uint32(u.gid)}
	for _, g := range u.groups {
		cred.Groups = append(cred.Groups, uint32(g))
	}
	// The test binary is in a directory that only root may enter; the link of
	// a process to its own executable does not go by way of it.
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	// The race detector would sleep for a second at the end of each child.
	cmd.Env = append(os.Environ(), childEnv+"="+mode, "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	cmd.Dir = "/"
	// Not its stderr: with -cover the child complains there of a directory
	// that it may not enter.
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s", stderr.String())
	return string(out)
}

// backend is a Backend of functions; those that are nil do the obvious.
type backend struct {
	status  func() *control.Status
	version func() control.Version
	upgrade func(ctx context.Context, req control.UpgradeRequest, p controld.Peer, emit func(control.Event)) *control.Result
	events  func(ctx context.Context, follow bool, emit func(control.Event) error) error
	conns   func(ctx context.Context, f control.ConnFilter, emit func(lines []byte) error) (*control.ConnsEnd, error)
	drain   func(ctx context.Context, req control.DrainRequest, p controld.Peer) error
	end     func(ctx context.Context, req control.EndRequest, p controld.Peer) (*control.EndResult, error)

	promote     func(ctx context.Context, req control.PromoteRequest, p controld.Peer, emit func(control.Event)) *control.Result
	rollback    func(ctx context.Context, req control.RollbackRequest, p controld.Peer, emit func(control.Event)) *control.Result
	pause       func(ctx context.Context, req control.PauseRequest, p controld.Peer) error
	reconfigure func(ctx context.Context, req control.ReconfigureRequest, p controld.Peer) (*control.ReconfigureResult, error)
	history     func(ctx context.Context, limit int, emit func(control.Entry) error) error
}

func (b *backend) Version() control.Version {
	if b.version != nil {
		return b.version()
	}
	return control.Version{APIVersion: control.APIVersion, Library: "v1.2.3", Service: "app", Generation: 7}
}

func (b *backend) Status() *control.Status {
	if b.status != nil {
		return b.status()
	}
	return &control.Status{APIVersion: control.APIVersion, Service: "app", Main: 7}
}

func (b *backend) Upgrade(ctx context.Context, req control.UpgradeRequest, p controld.Peer, emit func(control.Event)) *control.Result {
	if b.upgrade != nil {
		return b.upgrade(ctx, req, p, emit)
	}
	emit(control.Event{Seq: 1, Phase: control.PhaseStart, Message: "6 -> 7"})
	return &control.Result{Outcome: control.OutcomeConfirmed, From: 6, To: 7}
}

func (b *backend) Events(ctx context.Context, follow bool, emit func(control.Event) error) error {
	if b.events != nil {
		return b.events(ctx, follow, emit)
	}
	if err := emit(control.Event{Seq: 1, Phase: control.PhaseServing}); err != nil {
		return err
	}
	if follow {
		<-ctx.Done()
	}
	return ctx.Err()
}

func (b *backend) Conns(ctx context.Context, f control.ConnFilter, emit func(lines []byte) error) (*control.ConnsEnd, error) {
	if b.conns != nil {
		return b.conns(ctx, f, emit)
	}
	c := control.Conn{Generation: 7, Listener: "http", State: control.ConnIdle}
	if err := emit(controld.AppendConn(nil, &c)); err != nil {
		return nil, err
	}
	return &control.ConnsEnd{Total: 1}, nil
}

func (b *backend) Drain(ctx context.Context, req control.DrainRequest, p controld.Peer) error {
	if b.drain != nil {
		return b.drain(ctx, req, p)
	}
	return nil
}

func (b *backend) End(ctx context.Context, req control.EndRequest, p controld.Peer) (*control.EndResult, error) {
	if b.end != nil {
		return b.end(ctx, req, p)
	}
	return &control.EndResult{Generations: []int{6, 5}}, nil
}

func (b *backend) Promote(ctx context.Context, req control.PromoteRequest, p controld.Peer, emit func(control.Event)) *control.Result {
	if b.promote != nil {
		return b.promote(ctx, req, p, emit)
	}
	emit(control.Event{Seq: 2, Phase: control.PhaseStaged, Message: "7: 50 %"})
	return &control.Result{Outcome: control.OutcomeStaged, From: 6, To: 7}
}

func (b *backend) Rollback(ctx context.Context, req control.RollbackRequest, p controld.Peer, emit func(control.Event)) *control.Result {
	if b.rollback != nil {
		return b.rollback(ctx, req, p, emit)
	}
	emit(control.Event{Seq: 3, Phase: control.PhaseRollback, Message: "7 -> 6"})
	return &control.Result{Outcome: control.OutcomeRolledBack, From: 6, To: 7}
}

func (b *backend) Pause(ctx context.Context, req control.PauseRequest, p controld.Peer) error {
	if b.pause != nil {
		return b.pause(ctx, req, p)
	}
	return nil
}

func (b *backend) Reconfigure(ctx context.Context, req control.ReconfigureRequest, p controld.Peer) (*control.ReconfigureResult, error) {
	if b.reconfigure != nil {
		return b.reconfigure(ctx, req, p)
	}
	return &control.ReconfigureResult{Took: 0.25}, nil
}

func (b *backend) History(ctx context.Context, limit int, emit func(control.Entry) error) error {
	if b.history != nil {
		return b.history(ctx, limit, emit)
	}
	return emit(control.Entry{Service: "app", Record: control.Record{Result: control.Result{Outcome: control.OutcomeConfirmed, To: 7}}})
}

// socketPath returns a path that everybody can get to, and that is short.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "controld")
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return filepath.Join(dir, "control.sock")
}

// start starts a server, to the end of the test, and returns its socket.
func start(t testing.TB, cfg controld.Config) (*controld.Server, string) {
	t.Helper()
	if cfg.Backend == nil {
		cfg.Backend = new(backend)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	srv := controld.New(cfg)
	path := socketPath(t)
	ln, warning, err := controld.Listen(path, "")
	require.NoError(t, err)
	require.Empty(t, warning)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		require.NoError(t, srv.Close())
		require.NoError(t, <-served)
	})
	return srv, path
}

func client(socket string) *http.Client {
	return &http.Client{
		// The server closes each connection; without this the client would
		// have goroutines for a moment longer than the test.
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
		},
	}
}

func newRequest(method, path, body string) *http.Request {
	req, err := http.NewRequest(method, "http://handoff"+path, strings.NewReader(body))
	if err != nil {
		panic(err) // a mistake in the test
	}
	return req
}

// ask sends a request and returns its whole answer.
func ask(t *testing.T, socket, method, path, body string) (*http.Response, string) {
	t.Helper()
	resp, err := client(socket).Do(newRequest(method, path, body).WithContext(t.Context()))
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(data)
}

// dial connects, with a deadline that ends a test that would hang.
func dial(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	c, err := net.Dial("unix", socket)
	require.NoError(t, err)
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { c.Close() })
	return c.(*net.UnixConn)
}

// exchange writes raw bytes and returns the raw answer, up to its end.
func exchange(t *testing.T, socket, request string) string {
	t.Helper()
	c := dial(t, socket)
	_, _ = io.WriteString(c, request) // a server that has heard enough may close
	answer, err := io.ReadAll(c)
	if err != nil {
		require.ErrorIs(t, err, syscall.ECONNRESET)
	}
	return string(answer)
}

// parse reads an answer, which must have all that every answer has.
func parse(t testing.TB, method, answer string) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), &http.Request{Method: method})
	require.NoError(t, err, "%q", answer)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err, "%q", answer)
	requireHeader(t, resp)
	return resp, string(body)
}

func requireHeader(t testing.TB, resp *http.Response) {
	t.Helper()
	require.Equal(t, strconv.Itoa(control.APIVersion), resp.Header.Get(control.HeaderAPI))
	require.NotEmpty(t, resp.Header.Get(control.HeaderVersion))
	require.Contains(t, []string{"application/json", "application/jsonl"}, resp.Header.Get("Content-Type"))
	require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
	require.True(t, resp.Close, "Connection: close")
}

// requireError checks an answer that is an error, and returns it.
func requireError(t testing.TB, resp *http.Response, body string, status int, code string) controld.Refusal {
	t.Helper()
	require.Equal(t, status, resp.StatusCode, body)
	requireHeader(t, resp)
	require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
	var r controld.Refusal
	require.NoError(t, json.Unmarshal([]byte(body), &r), "%q", body)
	require.NotNil(t, r.Error, body)
	require.Equal(t, code, r.Error.Code, body)
	require.NotEmpty(t, r.Error.Message)
	return r
}

// lines decodes a stream.
func lines(t testing.TB, body string) []control.Line {
	t.Helper()
	var all []control.Line
	for l := range strings.Lines(body) {
		require.True(t, strings.HasSuffix(l, "\n"), "%q", l)
		var line control.Line
		require.NoError(t, json.Unmarshal([]byte(l), &line), "%q", l)
		all = append(all, line)
	}
	return all
}

// wait waits for ch, for as long as a test may take.
func wait[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		require.FailNow(t, "nothing happened", what)
		panic("unreachable")
	}
}
