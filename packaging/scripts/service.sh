# What the maintainer scripts of a service have in common, on Debian and on Fedora.
#
# A package upgrade of a service that runs hands its clients over to the new version
# ("systemctl reload"): it never restarts the service, and it never touches the
# sockets, which would refuse clients meanwhile. What the service does not survive as
# it is, the administrator is told, and decides.
#
# packaging/build.sh puts this file at the top of each script and replaces the words
# between at signs: the name of the service, its socket units, and the file with the
# administrator's settings. So a script in a package needs nothing but a shell. To use
# it for a service of your own, copy this directory.

name=@NAME@
service=$name.service
sockets="@SOCKETS@"
defaults=@DEFAULTS@

# Notes for the script that runs after the new files are in place. Not below
# /run/handoff/NAME, which is the service's own.
notes=/run/handoff-package/$name

# say prints a line for the administrator: on stderr, as stdout may be debconf's.
say() {
	echo "$name: $*" >&2
}

# systemd_runs is false in a chroot, and while the image of a container is built:
# there is nothing to reload then, and nothing to be said about it.
systemd_runs() {
	[ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]
}

# settings prints what systemd would load of a unit, without comments: the files of
# the package, and those that the administrator has put over them.
settings() {
	systemctl cat -- "$1" 2>/dev/null | sed -e '/^[[:space:]]*[#;]/d' -e '/^[[:space:]]*$/d'
}

# note_units keeps the settings of the units as they are before the new files come.
note_units() {
	systemd_runs || return 0
	rm -rf "$notes"
	mkdir -p "$notes" || return 0
	for unit in $service $sockets; do
		settings "$unit" >"$notes/$unit" || :
	done
}

# forget_notes is for the end.
forget_notes() {
	rm -rf "$notes"
	rmdir "${notes%/*}" 2>/dev/null || :
}

# changed tells whether a unit, which was there before, has other settings now.
changed() {
	[ -s "$notes/$1" ] && [ "$(settings "$1")" != "$(cat "$notes/$1")" ]
}

# say_what_changed tells what an upgrade does not apply. The new process inherits
# what systemd gave to the old one, and a socket is opened once.
say_what_changed() {
	for unit in $sockets; do
		changed "$unit" || continue
		say "$unit has changed, and is left open as it was. To apply it (clients are refused for a moment):"
		say "    systemctl stop $sockets $service && systemctl start $sockets $service"
		return
	done
	if changed "$service"; then
		say "$service has changed, which an upgrade does not apply. To apply it (clients wait meanwhile):"
		say "    systemctl restart $service"
	fi
}

# switch prints the administrator's word: HANDOFF_PACKAGE_UPGRADE=auto|manual. The
# file is read, not run: it is systemd's format, not the shell's.
switch() {
	[ -r "$defaults" ] || return 0
	sed -n -e "s/^[[:space:]]*HANDOFF_PACKAGE_UPGRADE[[:space:]]*=[[:space:]]*//p" "$defaults" |
		tail -n 1 | tr -d "\"'[:space:]"
}

# upgraded is what a package upgrade, or a downgrade, does when the new files are in
# place. The argument is the command before "reload UNIT". It never fails: a service
# that goes on with its old version is no reason for a broken package; hdctl status
# shows it for as long as it is so.
upgraded() {
	systemd_runs || return 0
	# The reload below is the new unit's.
	systemctl --system daemon-reload >&2 || :
	# Sockets can be open without the service: their first client starts it.
	# shellcheck disable=SC2086 # several units; one of them is enough
	systemctl --quiet is-active $service $sockets || return 0
	say_what_changed
	# Who is stopped stays stopped, and starts with the new version some day.
	systemctl --quiet is-active "$service" || return 0

	case $(switch) in
	auto | "") ;;
	manual)
		say "not upgraded: $defaults says HANDOFF_PACKAGE_UPGRADE=manual. To run the new version:"
		say "    systemctl reload $service"
		return 0
		;;
	*)
		say "not upgraded: HANDOFF_PACKAGE_UPGRADE in $defaults is neither auto nor manual. To run the new version:"
		say "    systemctl reload $service"
		return 0
		;;
	esac

	# systemd reloads nothing that somebody has masked.
	if [ "$(systemctl show --property=LoadState --value "$service")" = masked ]; then
		say "not upgraded: $service is masked. To run the new version:"
		say "    systemctl unmask $service && systemctl reload $service"
		return 0
	fi
	# As after "rpm --nodeps".
	if ! command -v hdctl >/dev/null; then
		say "not upgraded: hdctl is not installed. Install it; then, to run the new version:"
		say "    systemctl reload $service"
		return 0
	fi

	# A version from before the handoff library has no control socket to be asked by.
	answer=0
	answers || answer=$?
	case $answer in
	3 | 4 | 9 | 124)
		say "not upgraded: the running version does not answer hdctl. To run the new one (clients wait meanwhile):"
		say "    systemctl restart $service"
		return 0
		;;
	esac

	# Waits until the new version serves, or is known not to; at most for
	# TimeoutStartSec= of the unit.
	since=$(date +@%s.%N)
	output=$("$@" reload "$service" 2>&1) && reloaded=0 || reloaded=$?
	if [ "$reloaded" = 0 ]; then
		# As "policy-rc.d returned 101, not running ...": somebody wants it so.
		[ -z "$output" ] || printf '%s\n' "$output" >&2
		return 0
	fi
	say "the new version did not take over:"
	reason=$(why "$since") || :
	printf '%s\n' "${reason:-$output}" | head -n 30 | sed 's/^/    /' >&2
	if answers; then
		say "the version that ran before goes on serving. A restart would start the new one."
	fi
	say "hdctl status $name shows how it is; systemctl reload $service tries again"
}

# answers asks the service whether it is there. Whatever is the matter with it: a
# package manager does not wait for ever. The variables are of root's shell.
answers() {
	env -u HDCTL_SOCKET timeout 30 hdctl status --quiet "$name" >/dev/null 2>&1
}

# why prints what hdctl, which is the unit's ExecReload=, has said since a moment: its
# error, with the last words of the new version. Not since a cursor of the journal:
# after one that is another unit's, journalctl leaves out the first match.
why() {
	timeout 10 journalctl --sync >/dev/null 2>&1 || :
	journalctl --quiet --no-pager --output=cat --since="$1" --unit="$service" --identifier=hdctl 2>/dev/null |
		sed -n '/^hdctl: error:/,$p'
}

# forget_state removes what the library and systemd keep for the service: the history
# of its upgrades. With DynamicUser= the first is a link to the second. What the
# service itself keeps elsewhere is for its own scripts.
forget_state() {
	root=${DPKG_ROOT:-} # another system's, perhaps
	rm -rf "$root/var/lib/handoff/$name" "$root/var/lib/private/handoff/$name" "$root/run/handoff/$name"
	rmdir "$root/var/lib/handoff" "$root/var/lib/private/handoff" "$root/run/handoff" 2>/dev/null || :
}

