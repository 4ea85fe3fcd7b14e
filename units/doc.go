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
// The units work with systemd 247 and later; nothing in them is unknown to any
// of these. [Service.UserManager] makes them for "systemctl --user".
//
// # What cannot be smuggled in
//
// [Service.Render] refuses what would add a line to a unit (control characters,
// also in comments), and quotes the rest: a percent sign, a dollar sign, a
// quote or a space in a value arrives in the service as it was given. So the
// fields may come from outside.
package units
