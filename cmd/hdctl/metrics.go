package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/hdctl/handoff/upgrade/control"
	"github.com/hdctl/handoff/upgrade/metrics"
)

// metricsCmd is "hdctl metrics".
type metricsCmd struct {
	Units    []string `arg:"" optional:"" name:"unit" help:"Services, or patterns as 'web*'. Default: all that have a control socket."`
	Textfile string   `placeholder:"DIR" help:"Write files in this directory, for the textfile collector of node_exporter, instead of to stdout: handoff.prom, or handoff-NAME.prom for each UNIT."`
}

// Help is shown by hdctl metrics --help.
func (metricsCmd) Help() string {
	return `Prints what Prometheus reads, with the label service. A service that does not answer has handoff_up 0, and the others are there all the same. Exit status: 0 if all have answered, 3 if one is not running, 4 if there is none, 9 if one does not answer; of several the largest.

Example:

    hdctl metrics app
    hdctl metrics --textfile /var/lib/prometheus/node-exporter
`
}

// measured is what a service has answered.
type measured struct {
	target target
	status *control.Status
	err    error // the end of a verb; nil if there is a status
}

// Run asks the services, and prints or writes what they have answered.
func (c *metricsCmd) Run(ctx context.Context, a *app) error {
	if a.globals.Format == "json" || a.globals.Format == "jsonl" {
		return exitf(exitUsage, "-o %s: metrics have a format of their own", a.globals.Format).
			withHint("as JSON: hdctl status -o json")
	}
	targets, err := a.several(c.Units)
	if err != nil {
		return err
	}
	services := a.measure(ctx, targets)
	if err := c.write(a, services); err != nil {
		return err
	}
	if len(services) == 0 {
		return a.noServices()
	}
	code := exitOK
	for _, s := range services {
		if s.err != nil {
			code = max(code, a.exit(s.err)) // which prints it
		}
	}
	return exitCode(code)
}

// measure asks the targets.
func (a *app) measure(ctx context.Context, targets []target) []measured {
	return askAll(targets, func(t target) measured {
		m := measured{target: t}
		m.err = a.call(ctx, t, a.patience.status, func(ctx context.Context, client *control.Client) (err error) {
			for range 3 { // it may have been main a moment ago
				m.status, err = client.Status(ctx)
				if err != nil || metrics.FromMain(m.status) {
					break
				}
			}
			return err
		})
		return m
	})
}

// write writes the metrics where they are wanted.
func (c *metricsCmd) write(a *app, services []measured) error {
	if c.Textfile == "" {
		return printMetrics(a.stdout, services)
	}
	files := map[string][]measured{"handoff.prom": services}
	if len(c.Units) > 0 || a.globals.Socket != "" {
		files = make(map[string][]measured)
		for _, s := range services {
			files["handoff-"+s.name()+".prom"] = []measured{s}
		}
	}
	var failed []error // of one: the others are written all the same
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := writeTextfile(filepath.Join(c.Textfile, name), files[name]); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		return a.textfileError(errors.Join(failed...))
	}
	return nil
}

func (a *app) textfileError(err error) error {
	code := exitFailed
	if errors.Is(err, os.ErrPermission) {
		code = exitPermission
	}
	return exitf(code, "%w", err).withHint("DIR is what node_exporter was given as --collector.textfile.directory")
}

// name is the value of the label service.
func (m *measured) name() string {
	switch {
	case m.target.name != "":
		return m.target.name
	case m.status != nil && control.CheckName(m.status.Service) == nil:
		return m.status.Service
	}
	if name := filepath.Base(filepath.Dir(m.target.socket)); control.CheckName(name) == nil { // .../NAME/control.sock
		return name
	}
	return "unknown"
}

// printMetrics prints them in the text format of Prometheus.
func printMetrics(w io.Writer, services []measured) error {
	registry := prometheus.NewRegistry()
	for _, s := range services {
		source := func(context.Context) (*control.Status, error) { return s.status, s.err }
		if err := registry.Register(metrics.New(s.name(), source)); err != nil {
			return fmt.Errorf("metrics of %s: %w", s.target, err)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(w, family); err != nil {
			return fmt.Errorf("print metrics: %w", err)
		}
	}
	return nil
}

// writeTextfile replaces a file with the metrics. Who reads it finds the old or the new
// one, whole, and whoever node_exporter runs as may read it.
func writeTextfile(path string, services []measured) (err error) {
	// Its name must not end with .prom.
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	if err := printMetrics(f, services); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
