#!/bin/sh
# Builds the packages: deb and rpm of hdctl, and of the demo service, which is the
# model for the packages of services of your own.
#
#   packaging/build.sh            into dist/
#   packaging/build.sh version    print the version that they would have
#
# The same commit and the same Go give the same bytes, in whatever directory, on
# whatever day: all times are that of the commit, and nothing of this machine gets in.
#
# The environment changes what is built:
#
#   VERSION            version of the packages     (from git describe; digits, letters, . + ~)
#   SOURCE_DATE_EPOCH  time in them, in seconds    (of the commit)
#   GOARCH             for which machines          (this one's)
#   OUT                where they go               (dist)
#   FORMATS            which of them               (deb rpm)
#   PACKAGES           which of them               (hdctl handoff-demo)
#   DEMO               the package of the service  (./cmd/handoff-demo)
#   NFPM, GO_MD2MAN    the tools, as commands      (go run, at a pinned version)
#   HDCTL              an hdctl that runs here     (built)
set -eu

: "${NFPM:=go run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2}"
: "${GO_MD2MAN:=go run github.com/cpuguy83/go-md2man/v2@v2.0.7}"
: "${FORMATS:=deb rpm}"
: "${PACKAGES:=hdctl handoff-demo}"
: "${DEMO:=./cmd/handoff-demo}"

root=$(cd "$(dirname "$0")/.." && pwd -P)
here=$PWD
cd "$root"

# What the caller has set for other builds must not get in. "go run" is for this machine.
LC_ALL=C
export LC_ALL
ARCH=$(go env GOARCH)
unset GOOS GOARCH GOEXPERIMENT GZIP

# Somebody else's checkout is good enough to be read; but not a repository around the
# sources, which has versions of its own.
repo() { GIT_CEILING_DIRECTORIES=${root%/*} git -c safe.directory="$root" "$@"; }

# version_of_git makes a version that deb and rpm sort as git does:
#
#   v1.2.3                     1.2.3
#   v1.2.3, 4 commits later    1.2.3+4.gabc1234         above 1.2.3
#   v2.0.0-rc1                 2.0.0~rc1                below 2.0.0
#   no tag                     0.0~git20260102030405.abc1234
#   any of them, and changes   1.2.3+dirty              above 1.2.3
#   that are not committed
version_of_git() {
	repo rev-parse --verify --quiet HEAD >/dev/null 2>&1 || return
	described=$(repo describe --tags --abbrev=7 --match 'v[0-9]*' 2>/dev/null |
		sed -E -e 's/^v//' -e 's/-([0-9]+)-g([0-9a-f]+)$/+\1.g\2/' -e 's/-/~/g')
	[ -n "$described" ] ||
		described=0.0~git$(TZ=UTC repo log -1 --date=format-local:%Y%m%d%H%M%S --format=%cd.%h --abbrev=7)
	[ -z "$(repo status --porcelain --untracked-files=no)" ] || described=$described+dirty
	echo "$described"
}

VERSION=${VERSION:-$(version_of_git)} || VERSION=
VERSION=${VERSION#v}
case $VERSION in
'')
	echo "build.sh: not in a git checkout: set VERSION and SOURCE_DATE_EPOCH" >&2
	exit 1
	;;
[!0-9]* | *[!0-9A-Za-z.+~]*)
	echo "build.sh: no version for deb and rpm: $VERSION: it begins with a digit, and has digits, letters, . + ~" >&2
	exit 1
	;;
esac
if [ "${1:-}" = version ]; then
	echo "$VERSION"
	exit
fi
case ${OUT:=$root/dist} in
/*) ;;
*) OUT=$here/$OUT ;;
esac
: "${SOURCE_DATE_EPOCH:=$(repo log -1 --format=%ct 2>/dev/null)}"
if [ -z "$SOURCE_DATE_EPOCH" ]; then
	echo "build.sh: not in a git checkout: set VERSION and SOURCE_DATE_EPOCH" >&2
	exit 1
fi
mkdir -p "$OUT"
# nfpm reads all of these.
export VERSION SOURCE_DATE_EPOCH ARCH
maintainer=$(sed -n 's/^maintainer: //p' packaging/nfpm/hdctl.yaml)

# Everything that gets into a package is first put here, under the name that
# packaging/nfpm/*.yaml know; nothing of the packages is below it but files.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
umask 022

# compile ARCH OUTPUT PACKAGE builds a program without anything that this machine has
# and another one has not: no C library, no paths, no state of the checkout.
compile() {
	# Empty, Go would take what "go env -w" has set; GOAMD64 and the like are its defaults.
	GOARCH=$1 GOFLAGS=-trimpath GOAMD64=v1 GOARM64=v8.0 CGO_ENABLED=0 GOOS=linux go build -buildvcs=false \
		-ldflags "-s -w -X main.version=$VERSION" -o "$2" "$3"
}

# fill replaces what a template leaves open. DEFAULTS is the file in which the
# administrator looks for settings: each family has another place for it.
fill() { # NAME SOCKETS DEFAULTS < template
	sed -e "s|@NAME@|$1|g" -e "s|@SOCKETS@|$2|g" -e "s|@DEFAULTS@|$3|g"
}

# scripts NAME SOCKETS writes the maintainer scripts of a service: each is the common
# parts, then its own.
scripts() {
	for script in deb-preinst deb-postinst deb-prerm deb-postrm rpm-pre rpm-post rpm-preun rpm-postun rpm-posttrans; do
		case $script in
		deb-*) common="service.sh deb.sh" defaults=/etc/default/$1 ;;
		rpm-*) common=service.sh defaults=/etc/sysconfig/$1 ;;
		esac
		{
			printf '#!/bin/sh\n'
			# shellcheck disable=SC2086 # several files
			(cd packaging/scripts && cat $common "$script")
		} | fill "$1" "$2" "$defaults" >"$work/scripts/$script"
	done
}

mkdir -p "$work/bin" "$work/man" "$work/doc" "$work/completions" "$work/units" "$work/scripts"

# Units and completions are hdctl's, for whatever machine the packages are.
if [ -z "${HDCTL:-}" ]; then
	HDCTL=$work/bin/hdctl-here
	compile "$(go env GOHOSTARCH)" "$HDCTL" ./cmd/hdctl
fi

cp LICENSE "$work/doc"
gzip -9 -n -c CHANGELOG.md >"$work/doc/changelog.gz"
# debian_changelog PACKAGE prints what Debian's tools read; people read changelog.gz.
debian_changelog() {
	printf '%s (%s-1) unstable; urgency=medium\n\n  * %s\n\n -- %s  %s\n' "$1" "$VERSION" \
		"Packaged by the project; what is new is in changelog.gz." "$maintainer" \
		"$(LC_ALL=C date -u -R -d "@$SOURCE_DATE_EPOCH")"
}
for package in $PACKAGES; do
	debian_changelog "$package" | gzip -9 -n >"$work/doc/$package.changelog.Debian.gz"
	cp "packaging/nfpm/$package.lintian" "$work/doc"
done

stage_hdctl() {
	if [ "$ARCH" = "$(go env GOHOSTARCH)" ] && [ "$HDCTL" = "$work/bin/hdctl-here" ]; then
		cp "$HDCTL" "$work/bin/hdctl"
	else
		compile "$ARCH" "$work/bin/hdctl" ./cmd/hdctl
	fi
	for page in packaging/man/*.md; do # hdctl.1.md
		page=$(basename "$page" .md)
		$GO_MD2MAN -in "packaging/man/$page.md" -out "$work/man/$page"
		gzip -9 -n "$work/man/$page"
	done
	for shell in bash zsh fish; do
		"$HDCTL" completion "$shell" >"$work/completions/$shell"
	done
	cp packaging/needrestart/handoff.conf "$work/needrestart.conf"
	GOARCH=$ARCH packaging/copyright.sh ./cmd/hdctl >"$work/doc/hdctl.copyright"
}

# The name of a service and its sockets are said here, and nowhere else.
stage_demo() {
	compile "$ARCH" "$work/bin/handoff-demo" "$DEMO"
	GOARCH=$ARCH packaging/copyright.sh "$DEMO" >"$work/doc/handoff-demo.copyright"
	"$HDCTL" unit generate handoff-demo --quiet --output "$work/units" \
		--description "Handoff demo" --exec /usr/bin/handoff-demo --dynamic-user \
		--listen http=127.0.0.1:8080 --listen echo=127.0.0.1:7007
	scripts handoff-demo "handoff-demo.socket handoff-demo-echo.socket"
	for format in deb rpm; do
		defaults=default
		[ $format = deb ] || defaults=sysconfig
		for file in defaults environment.conf; do
			fill handoff-demo "" "/etc/$defaults/handoff-demo" <"packaging/scripts/$file" >"$work/$format-$file"
		done
	done
}

for package in $PACKAGES; do
	case $package in
	hdctl) stage_hdctl ;;
	handoff-demo) stage_demo ;;
	*) echo "build.sh: no package $package" >&2 && exit 1 ;;
	esac
done
# Neither the umask of who made the checkout nor the time of the build gets in.
find "$work" -type f -exec chmod 0644 {} +
chmod 0755 "$work"/bin/*
find "$work" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
for package in $PACKAGES; do
	for format in $FORMATS; do
		(cd "$work" && $NFPM package --config "$root/packaging/nfpm/$package.yaml" --packager "$format" --target "$OUT" >"$work/log") ||
			{ cat "$work/log" >&2 && exit 1; }
		sed -n 's/^created package: //p' "$work/log"
	done
done
