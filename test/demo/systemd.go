package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"

	"github.com/hdctl/handoff/test/testbed"
	"github.com/hdctl/handoff/units"
	"github.com/hdctl/handoff/upgrade/control"
)

// address is where the service listens in the private systemd, which has a
// network of its own.
const address = "127.0.0.1:8080"

// systemd is a host with a systemd of its own.
type systemd struct {
	*stage
	dir string
	tb  *testbed.Testbed
}

func newSystemd(ctx context.Context, s *stage, dir string) (_ host, err error) {
	s.heading("Boot a private systemd")
	tb, err := testbed.Start(ctx, testbed.Options{Name: "demo"})
	if err != nil {
		return nil, err
	}
	h := &systemd{stage: s, dir: dir, tb: tb}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	s.good("systemd %d is PID 1 of its own namespaces; what follows happens inside", tb.Version())
	for _, name := range []string{"hdctl", v1 + "/handoff-demo", v2 + "/handoff-demo", broken + "/handoff-demo"} {
		if err := tb.CopyFile(filepath.Join(dir, name), filepath.Join("/share", name)); err != nil {
			return nil, err
		}
	}
	if err := h.command(ctx, "install", "/share/hdctl", units.DefaultHdctl).err(); err != nil {
		return nil, err
	}
	return h, nil
}

// command shows a command, runs it inside, and shows its output.
func (h *systemd) command(ctx context.Context, args ...string) outcome {
	h.typed("#", args...)
	o := h.stage.run(h.tb.Command(ctx, args...))
	o.args = args
	return o
}

func (h *systemd) install(ctx context.Context, version string) error {
	return h.command(ctx, "install", filepath.Join("/share", version, "handoff-demo"), "/usr/bin/handoff-demo").err()
}

func (h *systemd) start(ctx context.Context) error {
	listen, err := units.ParseListen(address)
	if err != nil {
		return err
	}
	files, err := units.Service{
		Name:        "demo",
		Description: "Handoff demo",
		Exec:        "/usr/bin/handoff-demo",
		DynamicUser: true,
		Sockets:     []units.Socket{{Name: "http", Listen: []units.Listen{listen}}},
	}.Render()
	if err != nil {
		return err
	}
	texts := make(map[string]string)
	for name, text := range files {
		texts[name] = string(text)
	}
	if err := h.tb.InstallUnits(texts); err != nil {
		return err
	}
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		paths = append(paths, "/etc/systemd/system/"+name)
	}
	for _, args := range [][]string{
		append([]string{"grep", "-hE", "^(ExecStart|ExecReload|Listen|FileDesc)"}, paths...),
		{"systemctl", "start", "demo.socket", "demo.service"},
		{"systemctl", "--no-pager", "--lines=0", "status", "demo.service"},
	} {
		if err := h.command(ctx, args...).err(); err != nil {
			return err
		}
	}
	return nil
}

func (h *systemd) reload(ctx context.Context) outcome {
	return h.command(ctx, "systemctl", "reload", "demo")
}

func (h *systemd) answersReload() bool { return true }

func (h *systemd) hdctl(ctx context.Context, args ...string) outcome {
	return h.command(ctx, append([]string{"hdctl"}, args...)...)
}

func (h *systemd) dial(ctx context.Context) (net.Conn, error) {
	return h.tb.Dial(ctx, "tcp", address)
}

func (h *systemd) client() *control.Client {
	return &control.Client{Dial: func(ctx context.Context) (net.Conn, error) {
		return h.tb.Dial(ctx, "unix", control.DefaultSocket("demo"))
	}}
}

func (h *systemd) close() error {
	if err := h.tb.Stop(); err != nil {
		return fmt.Errorf("stop the private systemd: %w", err)
	}
	return nil
}
