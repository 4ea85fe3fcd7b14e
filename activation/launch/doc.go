// Package launch starts a program with its sockets as systemd would: for
// development, for tests, and where there is no systemd.
//
//	http, err := launch.Bind(ctx, launch.Address{Name: "http", Network: "tcp", Address: "127.0.0.1:8080"})
//	if err != nil {
//		return err
//	}
//	defer http.Close()
//	p, err := launch.Start(launch.Command{
//		Path:    "/usr/local/bin/app",
//		Sockets: []*launch.Socket{http},
//		Shim:    []string{os.Args[0], "__exec"},
//		Notify:  func(e launch.Event) { log.Println(e) },
//	})
//	if err != nil {
//		return err
//	}
//	exit := p.Wait()
//
// The program gets the sockets from descriptor 3 on, with LISTEN_FDS,
// LISTEN_FDNAMES and LISTEN_PID (sd_listen_fds(3)), and NOTIFY_SOCKET
// (sd_notify(3)): package activation, package upgrade, and every other program
// that knows socket activation find what they find under systemd.
//
// # A service is more than a process
//
// A service on package upgrade replaces its process: the first one starts the
// second, says MAINPID=, and leaves. So a [Process] is a service: all that was
// started in the process group of the first process. The caller becomes the
// subreaper of its descendants (PR_SET_CHILD_SUBREAPER, prctl(2)), inherits the
// generations whose parents have left, and waits for them. It waits for nobody
// else's: other children of the program are left alone. A process that leaves
// the group (setsid(2)) is on its own.
//
// As with systemd, the end of the main process is the end of the service: what is
// left gets SIGTERM. A main process whose parent still lives is its parent's to
// wait for, and to replace.
//
// # The shim
//
// LISTEN_PID must be the PID of the program, and nobody knows that before it is
// started. So Start starts another program first, [Command.Shim], which has to call
// [Exec] with the arguments that it gets after its own: that sets the variables and
// replaces itself by the program. It is usually the caller itself, by a verb that
// is not in its help. Whether the program could be executed is known when Start
// returns.
//
// # Ownership of file descriptors
//
// A [Socket] belongs to who has called [Bind], and stays open until [Socket.Close]:
// a service that crashes and is started again finds the clients that came meanwhile
// in the backlog. The processes get duplicates. The notification socket and what
// comes over it belong to the [Process].
//
// # Terminals and signals
//
// The group of the program is never the one in the foreground of a terminal: Ctrl-C
// is for the caller, who decides what the program gets ([Process.Signal]). Its standard
// input is /dev/null. Where the terminal is set to stop others that write (stty
// tostop), it is stopped.
//
// A caller that is killed leaves the service behind, with its sockets: there is no
// PR_SET_PDEATHSIG, which would end the first generation and none of the later ones,
// and is sent when a thread ends.
//
// # What it is not
//
// There is no cgroup, no sandbox, no watchdog, no limit of time, and the environment
// is the one that the caller gives. Nothing is restarted. A descriptor that is sent
// with FDSTORE=1 is closed.
package launch
