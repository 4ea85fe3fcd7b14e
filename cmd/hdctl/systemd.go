package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// systemdView is what systemd says about the unit of a service. It is part of
// the JSON of status.
type systemdView struct {
	Unit             string `json:"unit"`
	LoadState        string `json:"load_state"`
	ActiveState      string `json:"active_state"`
	SubState         string `json:"sub_state"`
	MainPID          int    `json:"main_pid"`
	StatusText       string `json:"status_text,omitempty"`
	NeedDaemonReload bool   `json:"need_daemon_reload,omitempty"`
	NRestarts        int    `json:"n_restarts"`
	Result           string `json:"result,omitempty"`
	ControlGroup     string `json:"control_group,omitempty"`
}

// exists tells whether systemd knows the unit.
func (v *systemdView) exists() bool { return v.LoadState != "not-found" }

// running tells whether systemd takes the service for running.
func (v *systemdView) running() bool {
	return v.ActiveState == "active" || v.ActiveState == "reloading"
}

// state is the state as systemctl prints it.
func (v *systemdView) state() string {
	s := fmt.Sprintf("%s (%s)", v.ActiveState, v.SubState)
	if v.ActiveState == "failed" && v.Result != "" {
		s += ", result " + v.Result
	}
	return clean(s)
}

// systemdFunc returns what systemd says about a unit. An error means that it
// cannot be asked: there is no D-Bus, or no systemd.
type systemdFunc func(ctx context.Context, unit string, user bool) (*systemdView, error)

// askSystemd asks systemd, but not for long.
func (a *app) askSystemd(ctx context.Context, unit string) (*systemdView, error) {
	ctx, cancel := context.WithTimeout(ctx, a.patience.systemd)
	defer cancel()
	return a.systemd(ctx, unit, a.globals.User)
}

// dbusSystemd is the real systemdFunc.
func (a *app) dbusSystemd(ctx context.Context, unit string, user bool) (*systemdView, error) {
	conn, err := a.dbusConnect(ctx, user)
	if err != nil {
		return nil, fmt.Errorf("connect to systemd: %w", err)
	}
	defer conn.Close()
	general, err := conn.GetUnitPropertiesContext(ctx, unit)
	if err != nil {
		return nil, fmt.Errorf("ask systemd: %w", err)
	}
	service, err := conn.GetUnitTypePropertiesContext(ctx, unit, "Service")
	if err != nil {
		return nil, fmt.Errorf("ask systemd: %w", err)
	}
	v := &systemdView{Unit: unit}
	v.LoadState, _ = general["LoadState"].(string)
	v.ActiveState, _ = general["ActiveState"].(string)
	v.SubState, _ = general["SubState"].(string)
	v.NeedDaemonReload, _ = general["NeedDaemonReload"].(bool)
	v.StatusText, _ = service["StatusText"].(string)
	v.Result, _ = service["Result"].(string)
	v.ControlGroup, _ = service["ControlGroup"].(string)
	if pid, ok := service["MainPID"].(uint32); ok {
		v.MainPID = int(pid)
	}
	if n, ok := service["NRestarts"].(uint32); ok {
		v.NRestarts = int(n)
	}
	return v, nil
}

func (a *app) dbusConnect(ctx context.Context, user bool) (*dbus.Conn, error) {
	if user {
		// In a session of its own, and on a server, a user's systemd often runs
		// without a session bus.
		dir := cmp.Or(a.env["XDG_RUNTIME_DIR"], filepath.Join("/run/user", strconv.Itoa(os.Getuid())))
		if conn, err := userSystemd(ctx, filepath.Join(dir, "systemd/private")); err == nil {
			return conn, nil
		}
		// Without this check the library would start a bus by itself.
		if _, err := os.Lstat(filepath.Join(dir, "bus")); err != nil && os.Getenv("DBUS_SESSION_BUS_ADDRESS") == "" {
			return nil, errors.New("there is no session bus")
		}
		return dbus.NewUserConnectionContext(ctx)
	}
	if os.Geteuid() == 0 {
		// Works without a D-Bus daemon, and when that one is being restarted.
		if conn, err := dbus.NewSystemdConnectionContext(ctx); err == nil {
			return conn, nil
		}
	}
	return dbus.NewSystemConnectionContext(ctx)
}

// userSystemd connects to a user's systemd on its own socket, as systemctl --user does.
func userSystemd(ctx context.Context, socket string) (*dbus.Conn, error) {
	return dbus.NewConnection(func() (*godbus.Conn, error) {
		conn, err := godbus.Dial("unix:path="+godbus.EscapeBusAddressValue(socket), godbus.WithContext(ctx))
		if err != nil {
			return nil, err
		}
		if err := conn.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return conn, nil
	})
}
