// Package testbed boots a real systemd for a test, in a fraction of a second,
// and removes every trace of it afterwards.
//
//	func TestActivation(t *testing.T) {
//		tb := testbed.Boot(t)
//		require.NoError(t, tb.CopyFile("bin/app", "/usr/local/bin/app"))
//		require.NoError(t, tb.InstallUnits(map[string]string{
//			"app.socket":  "[Socket]\nListenStream=127.0.0.1:80\n",
//			"app.service": "[Service]\nType=notify\nExecStart=/usr/local/bin/app\n",
//		}))
//		tb.MustSystemctl(t, "start", "app.socket")
//
//		client := http.Client{Transport: &http.Transport{DialContext: tb.Dial}}
//		_, err := client.Get("http://127.0.0.1/") // starts app.service
//		require.NoError(t, err)
//		assert.Equal(t, "active", tb.Show("app.service", "ActiveState")["ActiveState"])
//	}
//
// It needs root and Linux 5.14 with an installed systemd, and neither a
// container engine nor an image: the machine's own root file system is the
// image. It works in a virtual machine and in a privileged container, and on
// hosts that use the old cgroup hierarchy. Where it cannot boot, [Boot] skips
// the test, or fails it where $CI or $HANDOFF_REQUIRE_SYSTEMD says that the test
// must run.
//
// # How it works
//
// A container is a process with namespaces, and PID 1 of a PID namespace can be
// systemd (https://systemd.io/CONTAINER_INTERFACE). To build one takes these
// steps, one a file:
//
//   - home.go creates a directory and a cgroup. The cgroup is what keeps two
//     testbeds, and the host, apart: without one of its own every systemd would
//     use the same /init.scope and /system.slice.
//   - thread.go provides an OS thread that may be bent: namespaces and the root
//     directory belong to a thread, and what it starts inherits them.
//   - root.go builds the file system in a mount namespace: an overlay of the
//     host's root below and memory above, so that everything can be written and
//     nothing of the host's is. system.go takes the units out of it that the
//     machine would start: what is left to boot is the journal and D-Bus.
//   - boot.go creates the network, UTS and IPC namespaces around the thread, and
//     starts init.sh in a PID namespace. The child is born in its cgroup
//     (CLONE_INTO_CGROUP) before it creates its cgroup namespace, so that the
//     cgroup is the root of what it sees. init.sh mounts what is left, and
//     becomes systemd.
//   - systemd says READY=1 on $NOTIFY_SOCKET when it has started everything, as
//     its own services do to it. Nobody has to poll.
//
// Afterwards exec.go runs commands inside with nsenter(1). Connections are made
// by the test process itself: dial.go creates a socket on a thread that visits
// the testbed's network namespace. Files are read and written through a
// descriptor of the testbed's root directory (files.go).
//
// # Why nothing is left
//
// [Testbed.Stop] kills PID 1. The kernel then kills all processes of the
// namespace; the last one takes the mounts and the network with it. What does
// not vanish are the directory and the cgroup. These are removed by the janitor,
// a shell that reads from a pipe whose other end only the owner of the testbed
// has: it works after Stop, and equally when the owner has panicked or was
// killed. In that case PID 1 dies of its parent-death signal (PR_SET_PDEATHSIG).
// If someone kills the janitor, too, the next boot sweeps: it finds a directory
// that nobody has locked.
//
// # Looking inside
//
// The log of a test has a line with the PID of systemd: "nsenter -t PID -a" opens
// a shell inside. When a test fails, the journal is in its log.
//
// # Versions of systemd
//
// [Options.Rootfs], or $HANDOFF_TESTBED_ROOTFS for all testbeds of a run, is
// another root file system to boot. This makes one with systemd 257:
//
//	debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,iproute2 trixie DIR
//
// # Limits
//
// Resource limits (MemoryMax=, TasksMax=) have an effect only on hosts whose
// controllers are in the cgroup2 hierarchy. It is no security boundary: who is
// root inside can harm the host if he wants to.
package testbed
