package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hdctl/handoff/units"
)

// generateCmd is "hdctl unit generate".
type generateCmd struct {
	Name        string   `arg:"" name:"name" help:"Name of the service."`
	Listen      []string `sep:"none" required:"" placeholder:"NAME=ADDR" help:"A socket: its name for the service, and [tcp:|udp:|unix:|unixgram:|unixpacket:]ADDR, where ADDR is PORT, IP:PORT, /PATH or @NAME. Repeat it for more sockets; the same NAME for more addresses."`
	SocketMode  []string `sep:"none" placeholder:"NAME=MODE" help:"Mode of a unix socket's file, in octal (0666)."`
	SocketOwner []string `sep:"none" placeholder:"NAME=USER[:GROUP]" help:"Owner of a unix socket's file (root:root)."`

	Exec        string   `required:"" placeholder:"PATH" help:"The program."`
	Arg         []string `sep:"none" placeholder:"ARG" help:"An argument for it; repeat it for more. --arg=-x for one that begins with a dash."`
	Env         []string `sep:"none" placeholder:"NAME=VALUE" help:"An environment variable for it; repeat it for more."`
	Description string   `placeholder:"TEXT" help:"What the unit is, in a few words (NAME)."`

	RunAs         string `placeholder:"USER" help:"User that the service runs as (root)."`
	Group         string `placeholder:"GROUP" help:"Group that the service runs as."`
	DynamicUser   bool   `help:"Let systemd make up a user while the service runs."`
	OperatorGroup string `placeholder:"GROUP" help:"Group whose members may upgrade the service."`

	ReadyTimeout span          `placeholder:"DURATION" help:"For a new version to get ready (30s)."`
	Probation    span          `placeholder:"DURATION" help:"In which the old version can take over again at once (2s; or none)."`
	DrainTimeout span          `placeholder:"DURATION" help:"For the open connections of an old version (10m; or none)."`
	StopTimeout  span          `placeholder:"DURATION" help:"For open connections when the service stops (20s)."`
	MaxDraining  int           `placeholder:"N" help:"How many old versions may drain at the same time (8)."`
	Watchdog     time.Duration `placeholder:"DURATION" help:"How often the service must show systemd that it lives (no watchdog)."`

	Hdctl  string `placeholder:"PATH" help:"Path of hdctl for the units (/usr/bin/hdctl)."`
	Output string `placeholder:"DIR" help:"Write the files there, and print their paths. Default: print the files."`
}

// Help is shown by hdctl unit generate --help.
func (generateCmd) Help() string {
	return `The files are for the system; with --user, for the service manager of a user.

Example:

    hdctl unit generate app --listen http=8080 --exec /usr/bin/app --dynamic-user
    hdctl unit generate app --listen http=80 --listen dns=udp:53 --listen admin=/run/app.sock --socket-mode admin=0660 --exec /usr/bin/app --arg=--verbose --output /etc/systemd/system
`
}

// span is a duration that can be none.
type span time.Duration

// UnmarshalText reads a duration, "none" or "0".
func (s *span) UnmarshalText(text []byte) error {
	if string(text) == "none" || string(text) == "0" {
		*s = span(units.None)
		return nil
	}
	d, err := time.ParseDuration(string(text))
	switch {
	case err != nil:
		return fmt.Errorf("%q is not a duration, as 90s or 10m", text)
	case d < 0:
		return fmt.Errorf("%q is negative", text)
	case d == 0:
		d = units.None
	}
	*s = span(d)
	return nil
}

// Run renders the units and prints or writes them.
func (c *generateCmd) Run(_ context.Context, a *app) error {
	s, err := c.service(a)
	if err != nil {
		return exitf(exitUsage, "%w", err).withHint("hdctl unit generate --help")
	}
	files, err := s.Render()
	if err != nil {
		// Validate joins all that is wrong, a line each.
		return exitf(exitUsage, "%s", strings.ReplaceAll(err.Error(), "\n", "; ")).withHint("hdctl unit generate --help")
	}
	names := slices.Sorted(maps.Keys(files))
	switch a.globals.Format {
	case "json", "jsonl":
		text := make(map[string]string)
		for name, content := range files {
			text[name] = string(content)
		}
		if c.Output == "" {
			return a.printJSON(text, a.globals.Format == "json")
		}
	}
	if c.Output == "" {
		for i, name := range names {
			if i > 0 {
				a.printf("\n")
			}
			a.printf("# ----- %s -----\n%s", name, files[name])
		}
		return nil
	}
	for _, name := range names {
		path := filepath.Join(c.Output, name)
		if err := writeFile(path, files[name]); err != nil {
			return exitf(exitFailed, "%w", err)
		}
		if !a.quiet {
			a.printf("%s\n", path)
		}
	}
	ctl := "systemctl " + a.userFlag()
	// That enables and starts the sockets, too.
	a.notef("next: %sdaemon-reload && %senable --now %s", ctl, ctl, s.UnitName())
	return nil
}

// service makes a Service of the flags.
func (c *generateCmd) service(a *app) (units.Service, error) {
	s := units.Service{
		Name: c.Name, Description: c.Description, Exec: c.Exec, Args: c.Arg,
		User: c.RunAs, Group: c.Group, DynamicUser: c.DynamicUser, OperatorGroup: c.OperatorGroup, UserManager: a.globals.User,
		ReadyTimeout: time.Duration(c.ReadyTimeout), Probation: time.Duration(c.Probation),
		DrainTimeout: time.Duration(c.DrainTimeout), StopTimeout: time.Duration(c.StopTimeout),
		MaxDraining: c.MaxDraining, Watchdog: c.Watchdog, Hdctl: c.Hdctl,
	}
	for _, e := range c.Env {
		name, value, ok := strings.Cut(e, "=")
		if !ok {
			return s, fmt.Errorf("--env %q: want NAME=VALUE", e)
		}
		s.Environment = append(s.Environment, units.Variable{Name: name, Value: value})
	}
	for _, l := range c.Listen {
		name, address, ok := strings.Cut(l, "=")
		if !ok {
			return s, fmt.Errorf("--listen %q: want NAME=ADDR", l)
		}
		listen, err := units.ParseListen(address)
		if err != nil {
			return s, fmt.Errorf("--listen %q: %w", l, err)
		}
		sock := socketNamed(&s, name)
		if sock == nil {
			s.Sockets = append(s.Sockets, units.Socket{Name: name})
			sock = &s.Sockets[len(s.Sockets)-1]
		}
		sock.Listen = append(sock.Listen, listen)
	}
	for _, m := range c.SocketMode {
		name, value, _ := strings.Cut(m, "=")
		mode, err := strconv.ParseUint(value, 8, 32)
		sock := socketNamed(&s, name)
		if err != nil || mode == 0 || sock == nil {
			return s, fmt.Errorf("--socket-mode %q: want NAME=MODE, with the NAME of a --listen and an octal MODE", m)
		}
		sock.Mode = uint32(mode)
	}
	for _, o := range c.SocketOwner {
		name, value, _ := strings.Cut(o, "=")
		sock := socketNamed(&s, name)
		if value == "" || sock == nil {
			return s, fmt.Errorf("--socket-owner %q: want NAME=USER[:GROUP], with the NAME of a --listen", o)
		}
		sock.User, sock.Group, _ = strings.Cut(value, ":")
	}
	return s, nil
}

func socketNamed(s *units.Service, name string) *units.Socket {
	for i := range s.Sockets {
		if s.Sockets[i].Name == name {
			return &s.Sockets[i]
		}
	}
	return nil
}

// writeFile replaces a file by one that everybody can read.
func writeFile(path string, content []byte) error {
	return replaceFile(path, func(f *os.File) error {
		_, err := f.Write(content)
		return errors.Join(err, f.Chmod(fs.FileMode(0o644)))
	})
}
