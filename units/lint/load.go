package lint

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFile is far above every unit file.
const maxFile = 1 << 20

// Load reads a unit file, and the drop-ins in the directory FILE.d beside it, as
// systemd would if the file were installed: in the order of their names.
func Load(file string) (*Unit, error) {
	dropIns, err := filepath.Glob(filepath.Join(escapeGlob(file)+".d", "*.conf"))
	if err != nil {
		return nil, fmt.Errorf("look for drop-ins of %s: %w", file, err)
	}
	slices.Sort(dropIns)
	return LoadFiles(filepath.Base(file), append([]string{file}, dropIns...)...)
}

// LoadFiles reads a unit from its files, in this order: what systemd calls
// FragmentPath and DropInPaths.
func LoadFiles(name string, files ...string) (*Unit, error) {
	u := &Unit{Name: name}
	if !u.isService() && !u.isSocket() {
		return nil, fmt.Errorf("read %s: neither a .service nor a .socket", name)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			return nil, fmt.Errorf("read unit %s: %w", name, err)
		}
		if !info.Mode().IsRegular() || info.Size() > maxFile {
			return nil, fmt.Errorf("read unit %s: %s is not a regular file, or is larger than 1 MiB", name, file)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read unit %s: %w", name, err)
		}
		u.Parse(file, string(text))
	}
	return u, nil
}

// LoadSite reads unit files, and finds beside them what belongs to them and was not
// named: the sockets of a service, and the service of a socket. A directory stands
// for the units in it. Each unit is there once.
func LoadSite(files ...string) ([]*Unit, error) {
	var units []*Unit
	known := make(map[string]bool)
	add := func(file string) (*Unit, error) {
		if known[filepath.Clean(file)] {
			return nil, nil
		}
		known[filepath.Clean(file)] = true
		u, err := Load(file)
		if err == nil {
			units = append(units, u)
		}
		return u, err
	}
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			if _, err := os.ReadDir(file); err != nil {
				return nil, fmt.Errorf("look for units: %w", err)
			}
			for _, name := range unitsIn(file) {
				if _, err := add(name); err != nil {
					return nil, err
				}
			}
			continue
		}
		if _, err := add(file); err != nil {
			return nil, err
		}
	}
	for _, u := range slices.Clone(units) {
		dir := filepath.Dir(u.Files[0])
		if u.isSocket() {
			file := filepath.Join(dir, serviceOf(u))
			if _, err := os.Stat(file); err == nil && !containsUnit(units, serviceOf(u)) {
				if _, err := add(file); err != nil {
					return nil, err
				}
			}
		}
	}
	for _, u := range slices.Clone(units) {
		if !u.isService() {
			continue
		}
		for _, file := range unitsIn(filepath.Dir(u.Files[0])) {
			name := filepath.Base(file)
			if !strings.HasSuffix(name, ".socket") || containsUnit(units, name) {
				continue
			}
			// Sockets of other services are none of our business, and neither is
			// whether they can be read.
			s, err := Load(file)
			switch isNamed := slices.Contains(socketsNamedBy(u), name); {
			case err != nil && isNamed:
				return nil, err
			case err == nil && (serviceOf(s) == u.Name || isNamed && meantFor(u, s)):
				units = append(units, s)
			}
		}
	}
	return units, nil
}

func named(name string) func(*Unit) bool { return func(u *Unit) bool { return u.Name == name } }

// unitsIn returns the service and socket files in a directory, sorted. What cannot
// be read has none. A unit that is masked, by a link to /dev/null, is none.
func unitsIn(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var files []string
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		if ext := filepath.Ext(file); e.IsDir() || ext != ".service" && ext != ".socket" {
			continue
		}
		if target, err := os.Readlink(file); err == nil && target == os.DevNull {
			continue
		}
		files = append(files, file)
	}
	return files
}

// escapeGlob makes a pattern that matches path and nothing else.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// serviceOf returns the service that a socket unit starts.
func serviceOf(socket *Unit) string {
	if s, ok := socket.last(nil, "Socket", "Service"); ok {
		return socket.expand(s.Value)
	}
	return socket.base() + ".service"
}

// meantFor tells whether a socket that a service names is for that service, whatever
// it starts: and not, as in Requires=docker.socket, that of another one which this
// service needs.
func meantFor(service, socket *Unit) bool {
	if serviceOf(socket) == service.Name || socket.base() == service.base() || strings.HasPrefix(socket.base(), service.base()+"-") {
		return true
	}
	return slices.ContainsFunc(service.words("Service", "Sockets"), func(s Setting) bool { return s.Value == socket.Name })
}

// socketsNamedBy returns the socket units that a service depends on by name.
func socketsNamedBy(service *Unit) []string {
	var names []string
	list := service.words("Unit", "Requires")
	list = append(list, service.words("Unit", "BindsTo")...)
	list = append(list, service.words("Unit", "Wants")...)
	list = append(list, service.words("Service", "Sockets")...)
	for _, s := range list {
		if strings.HasSuffix(s.Value, ".socket") && !slices.Contains(names, s.Value) {
			names = append(names, s.Value)
		}
	}
	return names
}
