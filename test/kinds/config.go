package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/hdctl/handoff/upgrade"
)

// configEnv names the file with the configuration of the service, which is one line:
// "color NAME". The service reads it at its start, and again by hdctl reconfigure and
// SIGUSR1. Without it there is no configuration, and nothing to read again.
const configEnv = "KINDS_CONFIG"

// config is the configuration in force.
type config struct {
	path  string
	color atomic.Pointer[string]
}

// openConfig reads the configuration for the first time, and has it read again. It is
// nil if there is none.
func openConfig(o *upgrade.Options) (*config, error) {
	path := os.Getenv(configEnv)
	if path == "" {
		return nil, nil
	}
	c := &config{path: path}
	o.Reconfigure = c.read
	o.Signals = map[os.Signal]upgrade.Action{
		syscall.SIGHUP: upgrade.ActionUpgrade, syscall.SIGUSR1: upgrade.ActionReconfigure,
	}
	return c, c.read(context.Background())
}

// read replaces the configuration, unless there is something wrong with the file.
func (c *config) read(context.Context) error {
	text, err := os.ReadFile(c.path)
	if err != nil {
		return err
	}
	key, value, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	if key != "color" || value == "" {
		return fmt.Errorf("%s: line 1: no such directive: %q", c.path, key)
	}
	c.color.Store(&value)
	return nil
}

// ServeHTTP tells what is in force.
func (c *config) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if c == nil {
		http.Error(w, "there is no configuration", http.StatusNotFound)
		return
	}
	fmt.Fprint(w, *c.color.Load())
}
