#!/bin/sh
# Installs what a private systemd needs to boot, if it is missing: as root on
# Debian and Ubuntu. With the argument "test", also what the tests use besides: rpm,
# Ansible, curl, patch, shells, and the C compiler that the race detector needs. Anywhere else it
# changes nothing, and says so where something is missing: the demo then does without
# systemd, and tests that need it are skipped.
set -eu

packages=
need() { # PROGRAM PACKAGE
	command -v "$1" >/dev/null 2>&1 || packages="$packages $2"
}
need systemctl systemd
[ -x /usr/lib/systemd/systemd ] || [ -x /lib/systemd/systemd ] || packages="$packages systemd"
need nsenter util-linux
need setpriv util-linux
need mount mount
need find findutils
need dbus-daemon dbus
if [ "${1:-}" = test ]; then
	need rpm rpm
	need patch patch
	need zsh zsh
	need fish fish
	[ -e /usr/share/bash-completion/bash_completion ] || packages="$packages bash-completion"
	need curl curl
	need ansible-playbook ansible-core
	need gcc gcc
	[ -e /usr/include/stdlib.h ] || packages="$packages libc6-dev"
fi
packages=$(printf '%s\n' $packages | sort -u | tr '\n' ' ')
packages=${packages% }

[ -n "$packages" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "prepare: missing packages: $packages (installed as root on Debian or Ubuntu only)" >&2
	exit 0
fi
echo "prepare: installing $packages" >&2
export DEBIAN_FRONTEND=noninteractive
{
	apt-get update -q
	# shellcheck disable=SC2086 # one argument a package
	apt-get install -q -y --no-install-recommends $packages
} >&2
