package units

import (
	"time"
)

// Defaults of a [Service]. They are those of package upgrade, too, so that a
// unit that spells them out changes nothing.
const (
	DefaultReadyTimeout = 30 * time.Second
	DefaultProbation    = 2 * time.Second
	DefaultDrainTimeout = 10 * time.Minute
	DefaultStopTimeout  = 20 * time.Second
	DefaultMaxDraining  = 8
	DefaultHdctl        = "/usr/bin/hdctl"
)

// None, as one of the durations of a [Service], turns that time off: no
// probation, no limit of a drain. A zero duration is the default.
const None = time.Duration(-1)

// Service describes a service. Name, Exec and at least one socket are required;
// everything else has a default.
type Service struct {
	Name        string   // of the service unit, without ".service"
	Description string   // default: Name
	Exec        string   // absolute path of the program; the path is what an upgrade runs again
	Args        []string // its arguments, as the program shall see them
	Environment []Variable

	// User runs the service as this user, and Group as this group. DynamicUser
	// lets systemd make up a user for as long as the service runs; User then
	// only names it.
	User        string
	Group       string
	DynamicUser bool

	// UserManager makes units for the service manager of a user instead of
	// those for the system.
	UserManager bool

	// Sockets are the sockets of the service: one unit for each. The one called
	// "http", else the first, has the unit NAME.socket; the others have
	// NAME-SOCKET.socket.
	Sockets []Socket

	// The options of the service, see package upgrade. All are written into the
	// unit, so that the unit and not the code has the last word.
	ReadyTimeout  time.Duration // from the start of a new version until it is ready
	Probation     time.Duration // time in which the old version can take over again at once; may be None
	DrainTimeout  time.Duration // for the open connections of the old version; may be None
	StopTimeout   time.Duration // for the open connections when the service stops
	MaxDraining   int           // old versions that may drain at the same time
	OperatorGroup string        // group that may command the service by its control socket; default: none

	// Watchdog is WatchdogSec=: how often the service must show that it lives.
	// 0 is no watchdog. At least 1 s.
	Watchdog time.Duration

	// Hdctl is the absolute path of hdctl, for "systemctl reload".
	Hdctl string
}

// Variable is an environment variable.
type Variable struct{ Name, Value string }

// Socket is a socket unit.
type Socket struct {
	// Name is what the service calls the socket: FileDescriptorName=. Letters,
	// digits and "_.-"; not "control", and none of the names that systemd uses.
	Name string

	// Listen has the addresses, one or more; all are handed to the service
	// under the same name.
	Listen []Listen

	// Mode, User and Group are those of the files of unix sockets. Defaults:
	// 0666, which is systemd's, and root.
	Mode  uint32
	User  string
	Group string
}

// withDefaults returns s with every default filled in.
func (s Service) withDefaults() Service {
	if s.Description == "" {
		s.Description = s.Name
	}
	setDefault(&s.ReadyTimeout, DefaultReadyTimeout)
	setDefault(&s.Probation, DefaultProbation)
	setDefault(&s.DrainTimeout, DefaultDrainTimeout)
	setDefault(&s.StopTimeout, DefaultStopTimeout)
	setDefault(&s.MaxDraining, DefaultMaxDraining)
	setDefault(&s.Hdctl, DefaultHdctl)
	return s
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// UnitName returns the name of the service unit.
func (s Service) UnitName() string { return s.Name + ".service" }

// SocketUnitName returns the name of the unit of the i-th socket.
func (s Service) SocketUnitName(i int) string {
	if i == s.primary() {
		return s.Name + ".socket"
	}
	return s.Name + "-" + s.Sockets[i].Name + ".socket"
}

// primary is the index of the socket whose unit is called as the service is.
func (s Service) primary() int {
	for i, sock := range s.Sockets {
		if sock.Name == "http" {
			return i
		}
	}
	return 0
}

const (
	// confirmMargin is what package upgrade adds to ReadyTimeout and Probation
	// to get its own limit of an upgrade: time to tell systemd, above all.
	confirmMargin = 10 * time.Second

	// reloadMargin is between that limit and the one at which systemd kills
	// ExecReload=: the answer must always come first.
	reloadMargin = 15 * time.Second

	minTimeoutStart = 90 * time.Second // systemd's own default
	stopMargin      = 5 * time.Second
)

// timeoutStart is TimeoutStartSec=, which limits ExecReload= as well.
func (s Service) timeoutStart() time.Duration {
	upgrade := max(s.ReadyTimeout, 0) + max(s.Probation, 0) + confirmMargin
	return max(upgrade+reloadMargin, minTimeoutStart)
}

// timeoutStop is TimeoutStopSec=.
func (s Service) timeoutStop() time.Duration { return s.StopTimeout + stopMargin }
