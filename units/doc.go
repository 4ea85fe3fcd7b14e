// Package units writes the systemd units of a handoff service: a .socket unit
// for each name under which the service finds its sockets, and the .service
// unit.
//
//	files, err := units.Service{
//		Name:    "app",
//		Exec:    "/usr/bin/app",
//		Sockets: []units.Socket{{Name: "http", Listen: []units.Listen{{Address: "8080"}}}},
//	}.Render()
//
// renders app.socket and app.service. Each setting in them carries a comment
// that says why it is there: who runs the service reads the unit, not the code.
//
// # What a running service has of its unit
//
// systemd applies a unit when it starts a process, and the processes of an upgrade
// start each other. [Drift] finds what only a restart would apply.
//
// # systemd
//
// The units are for systemd 252 and later, or for the version in [Service.Systemd],
// from 247 on: nothing in them is unknown to it, or to a later one.
// [Service.UserManager] makes them for "systemctl --user".
//
// # Deadlines
//
// A service has its deadlines, and systemd has some for the service. Those in a unit
// are nested, so that who is nearest to a problem answers first: see deadlines.go.
//
// # Sandbox
//
// The profile [Strict] takes from a service what it does not need, and leaves what an
// upgrade does: see [Service.Sandbox].
//
// # Written again
//
// The same Service gives the same bytes. [Service.Command] and [RecordedCommand] keep
// in a unit how it was made, [Diff] shows what has become of it, and [RestartFor]
// tells what of a change systemd can apply to a service that runs.
//
// # What cannot be smuggled in
//
// [Service.Render] refuses what would add a line to a unit (control characters,
// also in comments), and quotes the rest: a percent sign, a dollar sign, a
// quote or a space in a value arrives in the service as it was given. So the
// fields may come from outside.
package units
