package control

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// RunDir is where the services of the system have their control sockets, each
// in a directory of its own: RuntimeDirectory=handoff/NAME of its unit.
const RunDir = "/run/handoff"

// SocketName is the file name of a control socket.
const SocketName = "control.sock"

// DefaultSocket returns the path of the control socket of a service of the
// system: /run/handoff/NAME/control.sock. The service is named as its unit is,
// without ".service". Nothing is checked; see [CheckName].
func DefaultSocket(service string) string {
	return SocketIn(RunDir, service)
}

// UserSocket is [DefaultSocket] for a service of the user's own service
// manager, or one that an ordinary user started by hand:
// $XDG_RUNTIME_DIR/handoff/NAME/control.sock.
func UserSocket(service string) string {
	return SocketIn(UserRunDir(os.Getenv("XDG_RUNTIME_DIR")), service)
}

// UserRunDir is [RunDir] for the user whose XDG_RUNTIME_DIR is given. If it is
// empty, the directory that pam_systemd(8) would have set for the caller is
// taken, /run/user/UID.
func UserRunDir(runtimeDir string) string {
	if runtimeDir == "" {
		runtimeDir = filepath.Join("/run/user", strconv.Itoa(os.Getuid()))
	}
	return filepath.Join(runtimeDir, "handoff")
}

// SocketIn returns the path of the control socket of service under dir, which
// is [RunDir] or what [UserRunDir] returns.
func SocketIn(dir, service string) string {
	return filepath.Join(dir, service, SocketName)
}

// Services returns the names of all services that have a control socket under
// dir, sorted. A socket that nobody listens on any more counts. No dir, no
// services: that is not an error.
func Services(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list control sockets: %w", err)
	}
	var names []string
	for _, e := range entries {
		info, err := os.Stat(SocketIn(dir, e.Name()))
		if err == nil && info.Mode().Type() == fs.ModeSocket {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// maxName leaves room in the 255 bytes of a unit name for "-SOCKET.socket", and
// in the 107 bytes of a socket's path for the directory.
const maxName = 64

// CheckName tells whether service can be the name of a service: letters,
// digits, and any of "_.-:@" but none of these in front; at most 64 bytes. It
// becomes a part of unit names and of paths, so nothing else is let through. A
// name as "app@blue" is an instance of a template unit.
func CheckName(service string) error {
	switch {
	case service == "":
		return errors.New("a service name is empty")
	case len(service) > maxName:
		return fmt.Errorf("service name %.20q...: longer than %d bytes", service, maxName)
	case strings.ContainsRune("_.-:@", rune(service[0])):
		return fmt.Errorf("service name %q: begins with %q", service, service[0])
	}
	for _, r := range service {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		case strings.ContainsRune("_.-:@", r):
		default:
			return fmt.Errorf("service name %q: %q is not allowed", service, r)
		}
	}
	return nil
}
