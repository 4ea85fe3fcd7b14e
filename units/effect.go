package units

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"
)

// reloaded are settings that systemd applies as soon as it has loaded them, beside
// all of [Unit] and [Install].
var reloaded = [...]string{
	"ExecReload", "ExecStop", "Restart", "RestartSec", "TimeoutStartSec", "TimeoutStopSec", "KillMode",
}

// RestartFor returns the names of the settings in which two versions of a unit
// differ and which a daemon-reload does not bring into force: those of a process,
// which an upgrade inherits from the old version, and those of a socket. Comments
// are none.
func RestartFor(before, after []byte) ([]string, error) {
	a, err := settingsOf(before)
	if err != nil {
		return nil, err
	}
	b, err := settingsOf(after)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range []map[string][]string{a, b} {
		for name := range m {
			if !slices.Equal(a[name], b[name]) && !slices.Contains(reloaded[:], name) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// settingsOf returns the settings of [Service] or [Socket].
func settingsOf(content []byte) (map[string][]string, error) {
	sections, err := unit.DeserializeSections(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("read a unit: %w", err)
	}
	values := make(map[string][]string)
	for _, s := range sections {
		if s.Section != "Service" && s.Section != "Socket" {
			continue
		}
		for _, e := range s.Entries {
			values[e.Name] = append(values[e.Name], strings.TrimSpace(e.Value))
		}
	}
	return values, nil
}
