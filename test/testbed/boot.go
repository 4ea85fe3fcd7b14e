package testbed

import (
	_ "embed" // init.sh
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

//go:embed init.sh
var initScript string

// pid1 is a process that is, or will be in a moment, systemd.
type pid1 struct {
	process *os.Process
	root    *os.File // its root directory (O_PATH)
	netns   *os.File // its network namespace
	exited  chan struct{}
	state   *os.ProcessState // valid after exited is closed
	waitErr error
}

// plan is what spawn needs to know.
type plan struct {
	rootfs      string
	managerConf string
	hostname    string
	home        *home
	notify      string   // path inside of a socket for systemd's READY=1
	console     *os.File // PID 1's stdout and stderr
}

// spawn starts PID 1 and returns at once. The thread that starts it stays with
// it until it has exited: the parent-death signal is the thread's.
func spawn(p plan) (*pid1, error) {
	type result struct {
		init *pid1
		err  error
	}
	started := make(chan result, 1)
	go onThread(func() {
		init, err := p.start()
		started <- result{init, err}
		if err == nil {
			init.state, init.waitErr = init.process.Wait()
			close(init.exited)
		}
	})
	r := <-started
	return r.init, r.err
}

// start builds the namespaces around the calling thread, and starts PID 1 in
// them and in two that are its own.
func (p plan) start() (_ *pid1, err error) {
	program, err := systemd(p.rootfs)
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC); err != nil {
		return nil, fmt.Errorf("create network, UTS and IPC namespaces: %w", err)
	}
	if err := unix.Sethostname([]byte(p.hostname)); err != nil {
		return nil, fmt.Errorf("set host name: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return nil, fmt.Errorf("bring up loopback interface: %w", err)
	}
	init := &pid1{exited: make(chan struct{})}
	defer func() {
		if err != nil {
			init.close()
		}
	}()
	if init.netns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return nil, err
	}
	prepare := func(root *os.Root) error { return prepareSystem(root, p.hostname, p.managerConf) }
	if err := enterRoot(p.rootfs, p.home.mountpoint(), p.home.share(), prepare); err != nil {
		return nil, err
	}
	if init.root, err = os.OpenFile("/", unix.O_PATH|unix.O_DIRECTORY, 0); err != nil {
		return nil, err
	}
	init.process, err = os.StartProcess("/bin/sh",
		[]string{
			"sh", "-c", initScript, "testbed-init",
			program, "--system", "--unit=multi-user.target", "--log-target=journal-or-kmsg", "--log-level=info",
		},
		&os.ProcAttr{
			Dir: "/",
			Env: append(environment(),
				"container=handoff-testbed", // do as in a container: touch no hardware
				"NOTIFY_SOCKET="+p.notify),
			Files: []*os.File{null, p.console, p.console},
			Sys: &syscall.SysProcAttr{
				// The child is born in our cgroup, makes that the root of its
				// cgroup namespace, and is PID 1.
				UseCgroupFD:  true,
				CgroupFD:     int(p.home.root.Fd()),
				Unshareflags: unix.CLONE_NEWCGROUP,
				Cloneflags:   unix.CLONE_NEWPID,
				Setsid:       true,
				// Dies with this process, and all its namespaces with it.
				Pdeathsig: unix.SIGKILL,
			},
		})
	if err != nil {
		return nil, fmt.Errorf("start PID 1: %w", err)
	}
	return init, nil
}

// close closes the descriptors.
func (p *pid1) close() {
	for _, file := range []*os.File{p.root, p.netns} {
		if file != nil {
			_ = file.Close()
		}
	}
}

// environment is what PID 1 and commands inside begin with.
func environment() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8",
		"TERM=dumb",
	}
}

// loopbackUp is "ip link set lo up" in the network namespace of this thread.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}
