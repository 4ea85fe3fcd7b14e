// Package preflight finds out whether the next generation of a service could
// start, as far as that can be told without starting it.
//
//	checks := preflight.Run(ctx, preflight.Config{
//		Path:    "/usr/bin/app",
//		Command: []string{"%b", "-check-config"},
//		Files:   12,
//	})
//	if failed := preflight.Failed(checks); failed != nil {
//		return errors.New(failed.Message)
//	}
//
// All checks are made, also when one has failed: who repairs something wants to
// know all of it. They are, in this order:
//
//   - file: there is one, its symbolic links lead somewhere, it is not empty.
//   - executable: for this process, on this mount.
//   - architecture: the one of the program that runs here.
//   - complete: an ELF file that is not half-written.
//   - interpreter: that of a script, or the dynamic loader, is there.
//   - command: the service's own check, like "nginx -t", is content.
//   - descriptors: this process may open those that a start needs.
//   - memory: there is room for a second process, in the cgroup and in the machine.
//   - processes: so there is for its threads.
//
// A check that does not apply is left out. The last three only warn: what the
// next generation needs is a guess, made from what this one has.
//
// None of this is a promise. The file may change in the next moment, and only the
// new process can tell whether it works.
package preflight
