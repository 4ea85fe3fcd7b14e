# The first program of a testbed's PID namespace: mounts what can only be
# mounted from inside the new PID and cgroup namespaces, then becomes systemd.
# Its arguments are systemd's command line.
set -e

mount -t proc -o nosuid,nodev,noexec proc /proc

# Most of /proc/sys is the machine's, not the namespace's, and systemd raises
# fs.file-max and fs.nr_open at boot: read-only, except for the network's part.
mount --bind /proc/sys /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,ro /proc/sys

mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup

exec "$@"
