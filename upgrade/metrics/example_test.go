package metrics_test

import (
	"context"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hdctl/handoff/upgrade"
	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/metrics"
)

// A service shows the metrics of its upgrades on a socket of its own, called "metrics".
func Example() {
	run := func(ctx context.Context) error {
		u, err := upgrade.New(upgrade.Options{Name: "app", Version: "v1.2.3"})
		if err != nil {
			return err
		}
		registry := prometheus.NewRegistry()
		registry.MustRegister(metrics.New("app", metrics.Of(u)))
		mux := http.NewServeMux()
		mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))

		ln, err := u.Listen("metrics", "tcp", "127.0.0.1:9100")
		if err != nil {
			return err
		}
		u.Serve(ln, upgrade.HTTP(&http.Server{Handler: mux}))
		return u.Run(ctx)
	}
	_ = run // func main() would call it
}

// A program that shows the metrics of other services, or a service whose main
// generation shall answer whichever one is scraped.
func ExampleNew_client() {
	app := &control.Client{Socket: control.DefaultSocket("app")}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.New("app", app.Status))
	srv := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer srv.Close()
	r, err := srv.Client().Get(srv.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer r.Body.Close()
}
