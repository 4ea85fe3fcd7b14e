// Package statedir keeps what a service wants to know after a restart: the
// history of its upgrades, and small files. They are in the state directory of
// the service, which systemd makes (StateDirectory= in systemd.exec(5)).
//
//	dir, err := statedir.Open("/var/lib/app")
//	if err != nil { ... }            // the service goes on without
//	err = dir.Append(entry)          // one line of the history
//	last, err := dir.Records(10)     // newest first
//	err = dir.Save("pause.json", p)  // all or nothing
//	err = dir.Load("pause.json", &p) // fs.ErrNotExist: there is none
//
// # The history
//
// history.jsonl has one JSON object a line, the newest at the end; before a
// line would make it longer than 1 MiB, it becomes history.jsonl.1, in place of
// the one that was there. So the history never takes more than 2 MiB, which is
// thousands of upgrades. Both files are for operators, too. A crash or a full
// disk in the middle of a line can leave a piece of it, or a blank line; readers
// skip what is not a JSON object, as [Dir.Records] does, and as jq(1) does like
// this:
//
//	cd /var/lib/app
//	cat history.jsonl.1 history.jsonl |
//		jq -cR 'fromjson? | objects | select(.outcome != "confirmed") | {time, outcome, error}'
//	tail -n 1 history.jsonl | jq .
//
// An administrator may remove, rename, truncate or edit the files at any time,
// and logrotate(8) may, without telling the service: no file is held open.
//
// # Two generations
//
// While an upgrade is under way, two processes use the directory. They exclude
// each other with flock(2) on the directory itself, for the time of a few
// system calls, and of an fsync(2) in [Dir.Save]. One that is stopped or frozen
// in just that moment must not cost the record of what happened to it: after two
// seconds a line is appended without the lock, which O_APPEND alone allows. What
// the lock is needed for is left out then: to begin a new file (up to 2 MiB; more
// is an error), and to take away what did not fit. Save gives up.
//
// # Faults
//
// No fault here is one of the service, let alone of its upgrade: everything
// that cannot be done is an error that says what and why, and wraps the errno.
// What was in the files before is there after it. All calls may take as long
// as the disk does; they belong beside an upgrade, not into its way.
//
// # Ownership of file descriptors
//
// None is kept after a call, and none taken over. All are close-on-exec.
package statedir
