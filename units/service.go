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

	// Profile is how much of the system the service sees. Default: [Plain].
	Profile Profile

	// Systemd is the version of systemd that the units are for: only settings
	// that it knows are written. At least [MinSystemd]; default: [DefaultSystemd],
	// whose units do for every later version as well.
	Systemd int

	// NotifyReload has systemd ask the service itself to reload, by SIGHUP
	// (Type=notify-reload, systemd 253), instead of running hdctl. It is faster by
	// the start of a process, and works where hdctl is not installed; but it
	// cannot report that a new version failed: then "systemctl reload" succeeds
	// and the old version serves.
	NotifyReload bool

	// Sockets are the sockets of the service: one unit for each. The one called
	// "http", else the first, has the unit NAME.socket; the others have
	// NAME-SOCKET.socket.
	Sockets []Socket

	// The options of the service, see package upgrade. They are written into the
	// unit, so that the unit and not the code has the last word.
	ReadyTimeout  time.Duration // from the start of a new version until it is ready
	Probation     time.Duration // time in which the old version can take over again at once; may be None
	DrainTimeout  time.Duration // for the open connections of the old version; may be None
	StopTimeout   time.Duration // for the open connections when the service stops
	MaxDraining   int           // old versions that may drain at the same time
	OperatorGroup string        // group that may command the service by its control socket; default: none

	// More options of the service. They are written only if they are set: else it
	// is up to the program, and to package upgrade, what they are.
	DrainDelay     time.Duration // until long connections of an old version are told to say goodbye; may be None
	DrainSpread    time.Duration // over which they are told then; may be None
	HangTimeout    time.Duration // for a new version in probation to hang; may be None
	StoppedTimeout time.Duration // for a new version to be stopped while an old one drains; may be None
	StageTimeout   time.Duration // for the decision on a staged upgrade; may be None
	Overflow       Overflow      // what becomes of an upgrade while MaxDraining old versions drain
	Check          []string      // command that must succeed before a new version is started; counts towards ReadyTimeout
	AllowBinary    bool          // permits upgrades to another program (hdctl upgrade --binary)
	NoMigration    bool          // keeps idle connections in the version that accepted them

	// Watchdog is WatchdogSec=: how often the service must show that it lives.
	// 0 is no watchdog. At least 1 s.
	Watchdog time.Duration

	// Hdctl is the absolute path of hdctl, for "systemctl reload".
	Hdctl string

	// Command is the command line that asks for these units. If there is one, it
	// is noted in the service unit, for [RecordedCommand].
	Command []string
}

// Profile is a set of settings.
type Profile string

// The profiles. The zero value is Plain.
const (
	// Plain has nothing but what upgrades need.
	Plain Profile = "plain"
	// Strict is a sandbox around it, see [Service.Sandbox]. Without a User the
	// service has a dynamic one.
	Strict Profile = "strict"
)

// Overflow says what becomes of an upgrade while as many old versions drain as may:
// a value of HANDOFF_OVERFLOW.
type Overflow string

// Values of [Service.Overflow].
const (
	HurryOldest Overflow = "hurry-oldest" // the oldest gets 5 s to finish
	Refuse      Overflow = "refuse"       // the upgrade is refused
)

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
	setDefault(&s.Profile, Plain)
	setDefault(&s.Systemd, DefaultSystemd)
	if s.Profile == Strict && s.User == "" && !s.UserManager {
		s.DynamicUser = true
	}
	s.StoppedTimeout = s.stoppedTimeout()
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
