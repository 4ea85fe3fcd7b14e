package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hdctl/handoff/units"
)

// unitFlags describe the units of a service. Two verbs have them: unit generate and
// unit diff.
type unitFlags struct {
	Listen      []string `sep:"none" placeholder:"NAME=ADDR" help:"A socket: its name for the service, and [tcp:|udp:|unix:|unixgram:|unixpacket:]ADDR, where ADDR is PORT, IP:PORT, /PATH or @NAME. For /PATH ,mode=MODE ,user=USER and ,group=GROUP may follow. Repeat it for more sockets; the same NAME for more addresses."`
	SocketMode  []string `sep:"none" placeholder:"NAME=MODE" help:"Mode of a unix socket's file, in octal (0666)."`
	SocketOwner []string `sep:"none" placeholder:"NAME=USER[:GROUP]" help:"Owner of a unix socket's file (root:root)."`

	Exec        string   `placeholder:"PATH" help:"The program."`
	Arg         []string `sep:"none" placeholder:"ARG" help:"An argument for it; repeat it for more. --arg=-x for one that begins with a dash."`
	Env         []string `sep:"none" placeholder:"NAME=VALUE" help:"An environment variable for it; repeat it for more."`
	Description string   `placeholder:"TEXT" help:"What the unit is, in a few words (NAME)."`

	RunAs         string `placeholder:"USER" help:"User that the service runs as (root; with --profile=strict a dynamic one)."`
	Group         string `placeholder:"GROUP" help:"Group that the service runs as."`
	DynamicUser   bool   `help:"Let systemd make up a user while the service runs."`
	OperatorGroup string `placeholder:"GROUP" help:"Group whose members may upgrade the service."`

	Profile      string `placeholder:"PROFILE" help:"plain, or strict: in a sandbox (plain)."`
	Systemd      int    `placeholder:"VERSION" help:"Version of systemd that the units are for; later ones take them as well (252)."`
	NotifyReload bool   `help:"systemd asks the service itself to reload, and not hdctl. It then cannot report that a new version failed. From systemd 253 on."`

	ReadyTimeout span          `placeholder:"DURATION" help:"For a new version to get ready, and its check (30s)."`
	Probation    span          `placeholder:"DURATION" help:"In which the old version can take over again at once (2s; or none)."`
	DrainTimeout span          `aliases:"drain" placeholder:"DURATION" help:"For the open connections of an old version (10m; or none)."`
	StopTimeout  span          `placeholder:"DURATION" help:"For open connections when the service stops (20s)."`
	MaxDraining  int           `placeholder:"N" help:"How many old versions may drain at the same time (8)."`
	Watchdog     time.Duration `placeholder:"DURATION" help:"How often the service must show systemd that it lives (no watchdog)."`

	DrainDelay     span   `placeholder:"DURATION" help:"Until long connections of an old version are told to say goodbye (none)."`
	DrainSpread    span   `placeholder:"DURATION" help:"Over which they are told then (10s)."`
	HangTimeout    span   `placeholder:"DURATION" help:"For a new version in probation to hang (500ms)."`
	StoppedTimeout span   `placeholder:"DURATION" help:"For a new version to be stopped while the old one drains (5s, or half of the watchdog)."`
	StageTimeout   span   `placeholder:"DURATION" help:"For the decision on a staged upgrade (30m)."`
	Overflow       string `placeholder:"WHAT" help:"What becomes of an upgrade while so many drain: hurry-oldest, or refuse (hurry-oldest)."`
	Check          string `placeholder:"COMMAND" help:"Must succeed before a new version is started; %b is its program."`
	AllowBinary    bool   `help:"Allow upgrades to another program, with upgrade --binary."`
	NoMigration    bool   `help:"Keep idle connections in the version that accepted them."`

	Hdctl string `placeholder:"PATH" help:"Path of hdctl for the units (/usr/bin/hdctl; with --install /usr/local/bin/hdctl, if only that is there)."`
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

// String is what UnmarshalText reads; "" for the default.
func (s span) String() string {
	switch time.Duration(s) {
	case 0:
		return ""
	case units.None:
		return "none"
	}
	text := time.Duration(s).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}

// service makes a Service of the flags.
func (c *unitFlags) service(name string, user bool) (units.Service, error) {
	var missing []string
	if c.Exec == "" {
		missing = append(missing, "--exec=PATH")
	}
	if len(c.Listen) == 0 {
		missing = append(missing, "--listen=NAME=ADDR")
	}
	if missing != nil {
		return units.Service{}, fmt.Errorf("missing flags: %s", strings.Join(missing, ", "))
	}
	s := units.Service{
		Name: name, Description: c.Description, Exec: c.Exec, Args: c.Arg,
		User: c.RunAs, Group: c.Group, DynamicUser: c.DynamicUser, OperatorGroup: c.OperatorGroup, UserManager: user,
		Profile: units.Profile(c.Profile), Systemd: c.Systemd, NotifyReload: c.NotifyReload,
		ReadyTimeout: time.Duration(c.ReadyTimeout), Probation: time.Duration(c.Probation),
		DrainTimeout: time.Duration(c.DrainTimeout), StopTimeout: time.Duration(c.StopTimeout),
		MaxDraining: c.MaxDraining, Watchdog: c.Watchdog, Hdctl: c.Hdctl,
		DrainDelay: time.Duration(c.DrainDelay), DrainSpread: time.Duration(c.DrainSpread),
		HangTimeout: time.Duration(c.HangTimeout), StoppedTimeout: time.Duration(c.StoppedTimeout), StageTimeout: time.Duration(c.StageTimeout),
		Overflow: units.Overflow(c.Overflow), Check: strings.Fields(c.Check), AllowBinary: c.AllowBinary, NoMigration: c.NoMigration,
		Command: c.commandLine(name, user),
	}
	for _, e := range c.Env {
		name, value, ok := strings.Cut(e, "=")
		if !ok {
			return s, fmt.Errorf("--env %q: want NAME=VALUE", e)
		}
		s.Environment = append(s.Environment, units.Variable{Name: name, Value: value})
	}
	return s, c.addSockets(&s)
}

func (c *unitFlags) addSockets(s *units.Service) error {
	for _, l := range c.Listen {
		one, err := units.ParseSocket(l)
		if err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
		sock := socketNamed(s, one.Name)
		if sock == nil {
			s.Sockets = append(s.Sockets, one)
			continue
		}
		sock.Listen = append(sock.Listen, one.Listen...)
		// A unit has one mode and one owner for all of its addresses.
		sock.Mode = cmp.Or(one.Mode, sock.Mode)
		sock.User, sock.Group = cmp.Or(one.User, sock.User), cmp.Or(one.Group, sock.Group)
	}
	for _, m := range c.SocketMode {
		name, value, _ := strings.Cut(m, "=")
		mode, err := strconv.ParseUint(value, 8, 32)
		sock := socketNamed(s, name)
		if err != nil || mode == 0 || sock == nil {
			return fmt.Errorf("--socket-mode %q: want NAME=MODE, with the NAME of a --listen and an octal MODE", m)
		}
		sock.Mode = uint32(mode)
	}
	for _, o := range c.SocketOwner {
		name, value, _ := strings.Cut(o, "=")
		sock := socketNamed(s, name)
		if value == "" || sock == nil {
			return fmt.Errorf("--socket-owner %q: want NAME=USER[:GROUP], with the NAME of a --listen", o)
		}
		sock.User, sock.Group, _ = strings.Cut(value, ":")
	}
	return nil
}

func socketNamed(s *units.Service, name string) *units.Socket {
	for i := range s.Sockets {
		if s.Sockets[i].Name == name {
			return &s.Sockets[i]
		}
	}
	return nil
}
