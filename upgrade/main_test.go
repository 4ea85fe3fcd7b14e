package upgrade_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hdctl/handoff/test/leak"
	"github.com/hdctl/handoff/upgrade"
	"github.com/hdctl/handoff/upgrade/metrics"
)

// TestMain makes this test binary also the service that the tests start, in
// processes of its own.
func TestMain(m *testing.M) {
	if os.Getenv("UPGRADE_TEST_SERVICE") != "" {
		if err := serviceMain(); err != nil {
			fmt.Fprintln(os.Stderr, "service:", err)
			os.Exit(1)
		}
		return
	}
	leak.Main(m)
}

// page is what the service answers.
type page struct {
	Generation, PID int
	Version         string
	Env             []string // of the process
	HelperEnv       []string // of a process that it starts
	HelperFDs       []string // the descriptors that such a process has
	FDs             []string
}

// serviceMain is a service on the socket "http", bound to UPGRADE_TEST_ADDRESS.
func serviceMain() error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if os.Getenv("UPGRADE_TEST_QUIET") != "" {
		log = nil
	}
	o := upgrade.Options{Name: "test", Version: os.Getenv("UPGRADE_TEST_VERSION"), Logger: log}
	if config := os.Getenv("UPGRADE_TEST_CONFIG"); config != "" { // a file that is there, or not
		o.Reconfigure = func(context.Context) error { _, err := os.Stat(config); return err }
		o.Signals = map[os.Signal]upgrade.Action{syscall.SIGHUP: upgrade.ActionReconfigure}
	}
	u, err := upgrade.New(o)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		env, _ := exec.Command("env").Output()
		fds, _ := exec.Command("ls", "-l", "/proc/self/fd").Output()
		_ = json.NewEncoder(w).Encode(page{
			Generation: u.Generation(), PID: os.Getpid(), Env: os.Environ(),
			HelperEnv: strings.Split(string(env), "\n"), HelperFDs: strings.Split(strings.TrimSpace(string(fds)), "\n")[1:],
			FDs: leak.FDs(),
		})
	})
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.New("test", metrics.Of(u)))
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/sleep", func(w http.ResponseWriter, r *http.Request) {
		d, _ := time.ParseDuration(r.FormValue("d"))
		select {
		case <-time.After(d):
		case <-r.Context().Done():
		}
		fmt.Fprintln(w, u.Generation())
	})
	ln, err := u.Listen("http", "tcp", os.Getenv("UPGRADE_TEST_ADDRESS"))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: mux}
	mux.HandleFunc("/close", func(http.ResponseWriter, *http.Request) { go srv.Close() })
	u.Serve(ln, upgrade.HTTP(srv))
	if _, err := u.Listen("control", "tcp", "127.0.0.1:0"); err == nil {
		return fmt.Errorf("the name control was not refused")
	}
	if _, err := upgrade.New(upgrade.Options{}); err != upgrade.ErrExists {
		return fmt.Errorf("a second New: %v", err)
	}
	return u.Run(context.Background())
}
