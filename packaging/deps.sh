#!/bin/sh
# Installs the missing packages of packaging/deps.txt: deps.sh build | test. Does nothing, and needs
# no network and no rights, when all are there.
here=$(dirname "$0")
case $1 in
build) packages=$(awk '$1 == "build" { print $2 }' "$here/deps.txt") ;;
test) packages=$(awk '$1 == "build" || $1 == "test" { print $2 }' "$here/deps.txt") ;;
*)
	echo "usage: deps.sh build|test" >&2
	exit 2
	;;
esac
packages=$(echo $packages)
if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
	echo "deps: this is not Debian; please see to the equivalents of: $packages" >&2
	exit 0
fi
missing=
for package in $packages; do
	state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)
	[ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "deps: installing$missing"
root=
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo > /dev/null; then
		echo "deps: not root and no sudo; as root run: apt-get install$missing" >&2
		exit 1
	fi
	root=sudo
fi
export DEBIAN_FRONTEND=noninteractive
install() {
	$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
}
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
# Stale lists are the usual reason for a first failure.
if install > "$log" 2>&1 || { $root apt-get update -q && install; } > "$log" 2>&1; then
	exit 0
fi
tail -n 15 "$log" >&2
echo "deps: could not install$missing" >&2
echo "deps: without a network, put these packages in place by other means and repeat" >&2
exit 1
