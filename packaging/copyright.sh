#!/bin/sh
# Prints the copyright file of a program of this module, in Debian's format: its own
# licence, and those of all that is linked into it, with their texts, as they ask for.
#
#   packaging/copyright.sh PACKAGE
#
# The machine that it is for is $GOARCH, as for "go build".
set -eu

# licence_of prints the name of the licence in a file, as Debian and SPDX have it. One
# that is not known is an error: a person has to look.
licence_of() {
	text=$(tr -s '[:space:]' ' ' <"$1")
	case $text in
	*"Apache License Version 2.0"*) echo Apache-2.0 ;;
	*"Permission is hereby granted, free of charge"*) echo Expat ;;
	*"Permission to use, copy, modify, and distribute"*) echo ISC ;;
	*"Redistribution and use"*"Neither the name"*) echo BSD-3-clause ;;
	*"Redistribution and use"*) echo BSD-2-clause ;;
	*) echo "copyright.sh: $1: what licence is this?" >&2 && return 1 ;;
	esac
}

# indented prints text as a field has it that goes on: an empty line is a dot.
indented() { sed -e 's/^[[:space:]]*$/./' -e 's/^/ /'; }

# stanza NAME DIRECTORY prints what there is to say about a module.
stanza() {
	file=
	for file in "$2"/LICENSE "$2"/LICENSE.txt "$2"/LICENSE.md "$2"/COPYING; do
		[ ! -f "$file" ] || break
	done
	[ -f "$file" ] || { echo "copyright.sh: $1: no licence in $2" >&2 && return 1; }
	licence=$(licence_of "$file")

	notice=$2/NOTICE
	[ -f "$notice" ] || notice=/dev/null
	# In the text of Apache's licence such lines are a form to fill in.
	[ $licence != Apache-2.0 ] || file=/dev/null
	holders=$(cat "$file" "$notice" | sed -n 's/^[[:space:]]*Copyright \((c) \|(C) \)*\([0-9].*\)/\2/p' | sort -u)
	printf '\nFiles: %s/*\nCopyright:\n' "$1"
	printf '%s\n' "${holders:-the authors of $1}" | indented
	echo "License: $licence"
	if [ $licence = Apache-2.0 ]; then
		echo " On Debian systems the full text of the Apache License, version 2.0, is in the file"
		echo " /usr/share/common-licenses/Apache-2.0."
		[ $notice = /dev/null ] || { echo " ." && indented <"$notice"; }
	else
		indented <"$file"
	fi
}

cd "$(dirname "$0")/.."
LC_ALL=C
export LC_ALL
cat <<'EOF'
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: handoff
Source: https://github.com/hdctl/handoff
Comment: The program is linked statically. After its own licence there are those of the
 Go modules that are linked into it, by their names, and of Go itself.

Files: *
Copyright: 2026 The handoff authors
License: Apache-2.0
 On Debian systems the full text of the Apache License, version 2.0, is in the file
 /usr/share/common-licenses/Apache-2.0.
EOF
# Of Go's own library it is the licence of all that the authors of Go publish.
stanza go.dev/std "$(GOFLAGS=-trimpath go list -m -f '{{.Dir}}' golang.org/x/sys)"
modules=$(GOFLAGS=-trimpath GOOS=linux CGO_ENABLED=0 go list -deps \
	-f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}' "$1" | sort -u)
[ -z "$modules" ] || echo "$modules" | while read -r module dir; do
	stanza "$module" "$dir"
done
