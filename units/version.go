package units

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Versions of systemd that units can be written for.
const (
	// MinSystemd is the oldest one that knows all settings without which an
	// upgrade would not work.
	MinSystemd = 247
	// DefaultSystemd is that of Debian 12.
	DefaultSystemd = 252

	// notifyReloadSince has Type=notify-reload. An older one takes that for
	// Type=simple, with a warning in the journal only.
	notifyReloadSince = 253

	// maxSystemd is above everything that will be for a long time: who writes more
	// means something else, such as a year.
	maxSystemd = 999
)

// SystemdVersion asks systemd for its version, as it calls it ("252.38-1~deb12u1",
// "262~rc1"), and returns the number in it as well; 0 if that is not understood.
func SystemdVersion(ctx context.Context, show Show) (number int, text string, err error) {
	values, err := show(ctx, "", "Version")
	if err != nil {
		return 0, "", err
	}
	text = values["Version"]
	digits := strings.TrimLeft(text, "v")
	digits = digits[:len(digits)-len(strings.TrimLeft(digits, "0123456789"))]
	if number, err = strconv.Atoi(digits); err != nil {
		number = 0
	}
	return number, text, nil
}

func (s Service) checkSystemd() error {
	if s.Systemd < MinSystemd || s.Systemd > maxSystemd {
		return fmt.Errorf("systemd %d: not a version from %d on, as systemctl --version prints it", s.Systemd, MinSystemd)
	}
	return nil
}

// checkNotifyReload says why systemd cannot ask the service to reload.
func (s Service) checkNotifyReload() error {
	if !s.NotifyReload {
		return nil
	}
	if s.Systemd < notifyReloadSince {
		return fmt.Errorf("notify-reload: systemd %d does not know it, but systemd %d does: say that the units are for that one, or a later one", s.Systemd, notifyReloadSince)
	}
	for _, v := range s.Environment {
		if v.Name == "HANDOFF_SIGHUP" || v.Name == "HANDOFF_SIGNALS" {
			return fmt.Errorf("notify-reload: needs SIGHUP, which %s takes away", v.Name)
		}
	}
	return nil
}
