// Package pidfile keeps a file with the PID of a service's main process, for
// scripts, and for supervisors other than systemd, which finds the process
// without.
//
//	err := pidfile.Write("/run/app.pid", os.Getpid())  // a generation became the main one
//	err = pidfile.Remove("/run/app.pid", os.Getpid())  // a generation ends
//
// Each generation writes the file when it takes over, and removes it when it
// ends, unless another one has written it meanwhile: that is what [Remove] looks
// at, so that the end of an old generation does not take away its successor's
// file. Which generation calls when is not the matter of this package.
//
// # Layouts
//
// The file is replaced with rename(2), so that a reader finds the old PID or the
// new one, never half of one. Where that is impossible it is written in place:
// an administrator may have made the file for a service that cannot write to
// the directory (/run, say), or it is mounted there by itself. A service unit
// has RuntimeDirectory=NAME, and /run/NAME/NAME.pid; the directory is not made
// here.
//
// # Symbolic links
//
// Where only root or the service itself can write, a symbolic link in the place
// of the file is the administrator's, and stays: what it points to is written.
// In a directory in which others can write, /tmp for example, nothing is
// followed, since whoever makes a link there would choose which file is written
// with the rights of the service. [Write] replaces such a link, [Remove] leaves
// it alone. Only the last component of the path is looked at like that.
//
// # Ownership of file descriptors
//
// None is kept after a call. All are close-on-exec.
package pidfile
