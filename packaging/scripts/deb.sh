# What maintainer scripts of Debian do for a service, with debhelper or without: a
# function for each script, which is called with the script's arguments. See
# deb-preinst(5) and its siblings, and service.sh.
#
# deb-systemd-invoke asks policy-rc.d whether it may do what it is told. It does not
# document "reload", but passes on to systemctl what it does not know.

# start_units starts the service with its sockets, unless it is disabled.
start_units() {
	systemctl --system daemon-reload >/dev/null || :
	# shellcheck disable=SC2086 # several units
	deb-systemd-invoke start $sockets $service >/dev/null || :
}

# deb_preinst is for preinst: the new files are not unpacked yet.
deb_preinst() {
	case $1 in
	upgrade)
		note_units
		;;
	install)
		# Perhaps after a removal that has left the configuration; then postinst
		# gets the version that was there, just as in an upgrade.
		if systemd_runs; then
			forget_notes
			mkdir -p "$notes" && touch "$notes/install" || :
		fi
		;;
	esac
}

# deb_postinst is for postinst, when the units are enabled. It is called with
#
#   configure           the package was installed
#   configure VERSION   ... over that version: newer or older, it is the same
deb_postinst() {
	systemd_runs || return 0
	case $1 in
	configure)
		if [ -n "${2:-}" ] && [ ! -e "$notes/install" ]; then
			upgraded deb-systemd-invoke || :
		else
			start_units
		fi
		;;
	abort-remove) # prerm has stopped it
		start_units
		;;
	abort-upgrade) # the old files are back, and nothing was stopped
		systemctl --system daemon-reload >/dev/null || :
		;;
	esac
	forget_notes
}

# deb_prerm is for prerm: the files are about to go. In an upgrade it does nothing:
# the service goes on.
deb_prerm() {
	if [ "$1" = remove ] && systemd_runs; then
		# The sockets and the service at once: with its sockets open, the next
		# client would start a stopped service again.
		# shellcheck disable=SC2086 # several units
		deb-systemd-invoke stop $sockets $service >/dev/null || :
	fi
}

# deb_postrm is for postrm: the files are gone.
deb_postrm() {
	case $1 in
	remove)
		if systemd_runs; then
			systemctl --system daemon-reload >/dev/null || :
			# Or else a unit that has failed stays in systemd's lists.
			# shellcheck disable=SC2086 # several units
			systemctl --system reset-failed $sockets $service >/dev/null 2>&1 || :
			rmdir /run/handoff 2>/dev/null || :
			forget_notes
		fi
		;;
	abort-install) # nothing has come
		forget_notes
		;;
	purge)
		forget_state
		;;
	esac
}

