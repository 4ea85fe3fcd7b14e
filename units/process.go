package units

import (
	"os"
	"strconv"
	"strings"
)

// process is a PID.
type process int

// file is the path of a file in proc(5).
func (p process) file(name string) string {
	return "/proc/" + strconv.Itoa(int(p)) + "/" + name
}

// read reads such a file.
func (p process) read(name string) (string, error) {
	data, err := os.ReadFile(p.file(name))
	return string(data), err
}

// list reads one that consists of strings with a zero byte after each.
func (p process) list(name string) ([]string, error) {
	text, err := p.read(name)
	if err != nil || text == "" {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(text, "\x00"), "\x00"), nil
}

// status reads the file of that name: of each line the first value.
func (p process) status() (map[string]string, error) {
	text, err := p.read("status")
	if err != nil {
		return nil, err
	}
	values := make(map[string]string)
	for line := range strings.Lines(text) {
		key, rest, _ := strings.Cut(line, ":")
		if fields := strings.Fields(rest); len(fields) > 0 {
			values[key] = fields[0]
		}
	}
	return values, nil
}

// manager returns the systemd that p is a service of: the next ancestor of that
// name, or PID 1. Generations that live are between them.
func (p process) manager() process {
	for p > 1 {
		status, err := p.status()
		if err != nil {
			break
		}
		if status["Name"] == "systemd" {
			return p
		}
		parent, err := strconv.Atoi(status["PPid"])
		if err != nil || parent <= 0 {
			break
		}
		p = process(parent)
	}
	return 1
}
