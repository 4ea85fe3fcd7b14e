package testbed_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hdctl/handoff/test/testbed"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An echo server without a program: systemd listens, and starts a cat for each
// connection.
const (
	echoSocket = `[Socket]
Accept=yes
ListenStream=127.0.0.1:7007
ListenStream=[::1]:7007
ListenStream=/run/a-directory-with-a-rather-long-name/and-one-more-for-the-fun-of-it/107-bytes-is-all-that-it-can-be.s
ListenStream=@echo
ListenStream=/share/echo.sock
`
	echoService = `[Service]
StandardInput=socket
ExecStart=/bin/cat
`
)

func startEcho(t *testing.T, tb *testbed.Testbed) {
	t.Helper()
	require.NoError(t, tb.InstallUnits(map[string]string{"echo.socket": echoSocket, "echo@.service": echoService}))
	tb.MustSystemctl(t, "start", "echo.socket")
}

func testDial(t *testing.T, tb *testbed.Testbed) {
	startEcho(t, tb)
	for _, at := range []struct{ network, address string }{
		{"tcp", "127.0.0.1:7007"},
		{"tcp", "localhost:7007"},
		{"tcp6", "[::1]:7007"},
		{"unix", "/run/a-directory-with-a-rather-long-name/and-one-more-for-the-fun-of-it/107-bytes-is-all-that-it-can-be.s"},
		{"unix", "@echo"},
		{"unix", "/share/echo.sock"},
	} {
		t.Run(at.network+" "+at.address, func(t *testing.T) {
			conn, err := tb.Dial(t.Context(), at.network, at.address)
			require.NoError(t, err)
			echo(t, conn)
		})
	}
	t.Run("share", func(t *testing.T) {
		conn, err := net.Dial("unix", filepath.Join(tb.Share(), "echo.sock"))
		require.NoError(t, err)
		echo(t, conn)
	})
	t.Run("host", func(t *testing.T) {
		_, err := net.Dial("tcp", "127.0.0.1:7007")
		assert.Error(t, err, "the host can connect to a port of the testbed")
	})
	t.Run("errors", func(t *testing.T) {
		_, err := tb.Dial(t.Context(), "tcp", "127.0.0.1:7008")
		assert.ErrorContains(t, err, "connection refused")
		_, err = tb.Dial(t.Context(), "tcp", "example.org:80")
		assert.ErrorContains(t, err, "not an IP address")
		_, err = tb.Dial(t.Context(), "tcp", "nonsense")
		assert.ErrorContains(t, err, "missing port")
		_, err = tb.Dial(t.Context(), "unix", "/run/none.sock")
		assert.ErrorIs(t, err, os.ErrNotExist)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = tb.Dial(ctx, "tcp", "127.0.0.1:7007")
		assert.ErrorIs(t, err, context.Canceled)
	})
}

// echo has a word with the server, and closes the connection.
func echo(t *testing.T, conn net.Conn) {
	t.Helper()
	defer func() { _ = conn.Close() }()
	_, err := io.WriteString(conn, "hello")
	require.NoError(t, err)
	require.NoError(t, conn.(interface{ CloseWrite() error }).CloseWrite())
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(answer))
}

// The test process as the load: many clients at once through a transport.
func testHTTP(t *testing.T, tb *testbed.Testbed) {
	require.NoError(t, tb.InstallUnits(map[string]string{
		"web.socket": "[Socket]\nAccept=yes\nListenStream=127.0.0.1:8080\nMaxConnections=1000\nTriggerLimitBurst=0\n",
		"web@.service": `[Service]
StandardInput=socket
StandardError=journal
ExecStart=/bin/sh -c 'while read -r line && [ "$$line" != "$$(printf "\\r")" ]; do :; done; \
	printf "HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: 2\\r\\n\\r\\nok"'
`,
	}))
	tb.MustSystemctl(t, "start", "web.socket")
	transport := &http.Transport{DialContext: tb.Dial}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}

	const clients, each = 8, 4
	errs := make(chan error, clients*each)
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for range each {
				errs <- get(t.Context(), client)
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		assert.NoError(t, err)
	}
}

func get(ctx context.Context, client *http.Client) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:8080/", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && strings.TrimSpace(string(body)) != "ok" {
		return fmt.Errorf("answer %q", body)
	}
	return err
}
