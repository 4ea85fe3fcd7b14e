# Removes what the kernel does not remove by itself when a testbed is gone.
#
#   $1       the testbed's directory on the host
#   $2       its cgroup, relative to the root of the cgroup2 file system
#   stdin    a pipe whose other end only the owner of the testbed has
#   fd 3     the root of the cgroup2 file system
#   fd 4     $1, locked: says that somebody is in charge of it
trap '' HUP INT TERM

read -r _ # end of file: the owner has stopped the testbed, or is dead

cgroup=/proc/self/fd/3/$2
tries=0
while [ -d "$cgroup" ]; do
	# Kills what is left in it, if anything is, and takes effect with a delay.
	echo 1 2>/dev/null >"$cgroup/cgroup.kill"
	find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null && break
	tries=$((tries + 1))
	if [ "$tries" -gt 1000 ]; then exit 1; fi
	sleep 0.01
done

rm -rf "$1"
