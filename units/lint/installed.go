package lint

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hdctl/handoff/units"
)

// ErrNoUnit says that systemd does not know a unit.
var ErrNoUnit = errors.New("systemd does not know it")

// LoadInstalled reads the units of an installed service from the files that systemd
// uses, drop-ins included: the service, and the sockets that start it. show asks
// systemd; see [units.Systemctl].
//
// It reads the files as they are on disk: systemd may have loaded older ones.
func LoadInstalled(ctx context.Context, service string, show units.Show) ([]*Unit, error) {
	if !strings.HasSuffix(service, ".service") {
		service += ".service"
	}
	u, values, err := loadInstalled(ctx, service, show)
	if err != nil {
		return nil, err
	}
	list := []*Unit{u}
	sockets := socketsNamedBy(u)
	sockets = append(sockets, strings.Fields(values["TriggeredBy"])...)
	for _, name := range sockets {
		if !strings.HasSuffix(name, ".socket") || containsUnit(list, name) {
			continue
		}
		s, _, err := loadInstalled(ctx, name, show)
		if errors.Is(err, ErrNoUnit) {
			continue // the service does not start: that is told by systemd
		}
		if err != nil {
			return nil, err
		}
		if meantFor(u, s) {
			list = append(list, s)
		}
	}
	return list, nil
}

func loadInstalled(ctx context.Context, name string, show units.Show) (*Unit, map[string]string, error) {
	values, err := show(ctx, name, "LoadState", "FragmentPath", "DropInPaths", "TriggeredBy")
	if err != nil {
		return nil, nil, fmt.Errorf("ask systemd about %s: %w", name, err)
	}
	if values["FragmentPath"] == "" {
		return nil, nil, fmt.Errorf("look for the files of %s: %w", name, ErrNoUnit)
	}
	files := append([]string{values["FragmentPath"]}, words(values["DropInPaths"])...)
	u, err := LoadFiles(name, files...)
	return u, values, err
}

func containsUnit(list []*Unit, name string) bool {
	for _, u := range list {
		if u.Name == name {
			return true
		}
	}
	return false
}
