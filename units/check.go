package units

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Validate says what is wrong with s, all of it, or returns nil. [Service.Render]
// calls it.
func (s Service) Validate() error {
	s = s.withDefaults()
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	add(checkName("service name", s.Name, maxServiceName))
	add(wrap("description", checkText(s.Description)))
	if strings.HasSuffix(s.Description, `\`) {
		add(errors.New("description: ends with a backslash, which would join the next line to it"))
	}
	add(checkExec("program", s.Exec))
	add(checkExec("path of hdctl", s.Hdctl))
	for _, a := range s.Args {
		add(wrap(fmt.Sprintf("argument %q", a), checkText(a)))
	}
	for _, v := range s.Environment {
		add(checkVariable(v))
	}
	for _, w := range s.Command {
		add(wrap(fmt.Sprintf("word %q of the command line", w), checkText(w)))
	}
	add(s.checkUsers())
	add(s.checkSystemd())
	add(s.checkNotifyReload())
	add(s.checkSandbox())
	add(s.checkTimes())
	add(s.checkNesting())
	add(s.checkOptions())
	add(s.checkSockets())
	return errors.Join(errs...)
}

func (s Service) checkUsers() error {
	if s.UserManager {
		if s.User != "" || s.Group != "" || s.DynamicUser || s.OperatorGroup != "" {
			return errors.New("a user's service manager cannot change user or groups")
		}
		return nil
	}
	return errors.Join(
		checkAccount("user", s.User),
		checkAccount("group", s.Group),
		checkAccount("operator group", s.OperatorGroup),
	)
}

// maxTime is far above everything useful, and far below where a sum of them or
// a number of microseconds would overflow.
const maxTime = 366 * 24 * time.Hour

func (s Service) checkTimes() error {
	var errs []error
	check := func(what string, d time.Duration, canBeNone bool) {
		switch {
		case d == None && canBeNone:
		case d == None:
			errs = append(errs, fmt.Errorf("%s: cannot be none", what))
		case d < time.Millisecond:
			errs = append(errs, fmt.Errorf("%s %v: less than a millisecond", what, d))
		case d > maxTime:
			errs = append(errs, fmt.Errorf("%s %v: more than a year", what, d))
		}
	}
	check("ready timeout", s.ReadyTimeout, false)
	check("probation", s.Probation, true)
	check("drain timeout", s.DrainTimeout, true)
	check("stop timeout", s.StopTimeout, false)
	for _, o := range []struct {
		what string
		d    time.Duration
	}{
		{"drain delay", s.DrainDelay},
		{"drain spread", s.DrainSpread},
		{"hang timeout", s.HangTimeout},
		{"stopped timeout", s.StoppedTimeout},
		{"stage timeout", s.StageTimeout},
	} {
		if o.d != 0 {
			check(o.what, o.d, true)
		}
	}
	if s.Watchdog != 0 {
		check("watchdog", s.Watchdog, false)
		if s.Watchdog > 0 && s.Watchdog < time.Second {
			// A pause of the garbage collector or of the machine would kill the service.
			errs = append(errs, fmt.Errorf("watchdog %v: less than a second", s.Watchdog))
		}
	}
	if s.MaxDraining < 1 || s.MaxDraining > 1000 {
		errs = append(errs, fmt.Errorf("max draining %d: not from 1 to 1000", s.MaxDraining))
	}
	return errors.Join(errs...)
}

func (s Service) checkSockets() error {
	if len(s.Sockets) == 0 {
		return errors.New("no sockets: the service would have nothing to hand over")
	}
	var errs []error
	names := make(map[string]bool)
	addresses := make(map[Listen]bool)
	for _, sock := range s.Sockets {
		if names[sock.Name] {
			errs = append(errs, fmt.Errorf("socket %q: there are two of them", sock.Name))
		}
		names[sock.Name] = true
		if err := sock.check(); err != nil {
			errs = append(errs, fmt.Errorf("socket %q: %w", sock.Name, err))
		}
		for _, l := range sock.Listen {
			if addresses[l] {
				errs = append(errs, fmt.Errorf("socket %q: address %q is taken twice", sock.Name, l.Address))
			}
			addresses[l] = true
		}
		if s.UserManager && (sock.User != "" || sock.Group != "") {
			errs = append(errs, fmt.Errorf("socket %q: a user's service manager cannot change its owner", sock.Name))
		}
	}
	return errors.Join(errs...)
}

func (s Socket) check() error {
	errs := []error{checkName("name", s.Name, maxSocketName)}
	switch s.Name {
	case "unknown", "stored", "connection":
		errs = append(errs, errors.New("systemd gives that name to other descriptors, see sd_listen_fds_with_names(3)"))
	case "control":
		errs = append(errs, errors.New("that name is taken by the control socket"))
	}
	if len(s.Listen) == 0 {
		errs = append(errs, errors.New("has no address"))
	}
	file := false
	for _, l := range s.Listen {
		errs = append(errs, l.check())
		file = file || l.file()
	}
	if !file && (s.Mode != 0 || s.User != "" || s.Group != "") {
		errs = append(errs, errors.New("mode, user and group are for unix sockets in the file system"))
	}
	if s.Mode > 0o777 {
		errs = append(errs, fmt.Errorf("mode %#o: not a file mode", s.Mode))
	}
	errs = append(errs, checkAccount("user", s.User), checkAccount("group", s.Group))
	return errors.Join(errs...)
}

// Lengths that leave room in the 255 bytes of a unit name, and in the 107 bytes
// of the path of the control socket.
const (
	maxServiceName = 64
	maxSocketName  = 64
)

// checkName lets through what is a good part of the name of a unit, of a file,
// and of LISTEN_FDNAMES=.
func checkName(what, s string, limit int) error {
	switch {
	case s == "":
		return fmt.Errorf("%s: is empty", what)
	case len(s) > limit:
		return fmt.Errorf("%s %.20q...: longer than %d bytes", what, s, limit)
	case strings.ContainsRune(s, '@'):
		return fmt.Errorf("%s %q: template units are not supported", what, s)
	}
	for i, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		case i > 0 && strings.ContainsRune("_.-", r):
		default:
			return fmt.Errorf("%s %q: %q is not allowed there", what, s, r)
		}
	}
	if strings.HasSuffix(s, ".service") || strings.HasSuffix(s, ".socket") {
		return fmt.Errorf("%s %q: write it without the suffix", what, s)
	}
	return nil
}

// checkAccount is systemd's strict rule for names of users and groups, and lets
// numbers through; see systemd.io/USER_NAMES.
func checkAccount(what, s string) error {
	if len(s) > 31 {
		return fmt.Errorf("%s %q: longer than 31 bytes", what, s)
	}
	number := true
	for _, r := range s {
		number = number && r >= '0' && r <= '9'
	}
	for i, r := range s {
		switch {
		case number, r == '_', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
		case i > 0 && (r == '-' || r >= '0' && r <= '9'):
		default:
			return fmt.Errorf("%s %q: %q is not allowed there", what, s, r)
		}
	}
	return nil
}

func checkExec(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s: is empty", what)
	case !path.IsAbs(s), path.Clean(s) != s, s == "/":
		// A relative path would be looked up in another directory, or another
		// $PATH, at the next upgrade.
		return fmt.Errorf("%s %q: not a clean absolute path", what, s)
	case strings.ContainsAny(s, `$"'\`):
		// Unlike in arguments, systemd replaces no "$$" in the path.
		return fmt.Errorf("%s %q: has a character that systemd cannot quote in it", what, s)
	}
	return wrap(fmt.Sprintf("%s %q", what, s), checkText(s))
}

func checkVariable(v Variable) error {
	for i, r := range v.Name {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return fmt.Errorf("environment variable %q: not a name", v.Name)
		}
	}
	if v.Name == "" {
		return errors.New("an environment variable has no name")
	}
	return wrap(fmt.Sprintf("environment variable %q", v.Name), checkText(v.Value))
}

// checkOptions looks at what is neither a time nor a name, and at variables that
// would contradict what the unit says.
func (s Service) checkOptions() error {
	var errs []error
	if s.Overflow != "" && s.Overflow != HurryOldest && s.Overflow != Refuse {
		errs = append(errs, fmt.Errorf("overflow %q: neither %s nor %s", s.Overflow, HurryOldest, Refuse))
	}
	for _, w := range s.Check {
		switch {
		case w == "", strings.ContainsFunc(w, unicode.IsSpace):
			// The variable has the words with spaces in between, and no quotes.
			errs = append(errs, fmt.Errorf("check: %q is empty or has a space in it: put the command into a script", w))
		default:
			errs = append(errs, wrap(fmt.Sprintf("check %q", w), checkText(w)))
		}
	}
	for _, v := range s.Environment {
		for _, o := range s.options() {
			if v.Name == o.name {
				errs = append(errs, fmt.Errorf("environment variable %q: is written from an option", v.Name))
			}
		}
		if v.Name == envOperatorGroup {
			errs = append(errs, fmt.Errorf("environment variable %q: set the operator group, as the unit needs SupplementaryGroups= for it", v.Name))
		}
	}
	return errors.Join(errs...)
}

// checkText refuses what a line of a unit file cannot hold: control characters,
// a line break above all, and what is not UTF-8 (systemd drops such a line).
func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("is not UTF-8")
	}
	for _, r := range s {
		// U+2028 and U+2029 end no line for systemd, but do for editors.
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == '\ufeff' {
			return fmt.Errorf("has the character %U", r)
		}
	}
	return nil
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
