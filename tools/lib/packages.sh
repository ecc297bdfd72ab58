# shellcheck shell=bash
# Packages: what is missing, and how it gets here. To be sourced after common.sh and debtree.sh.
#
#   packages_missing GROUP…   names, one a line
#   packages_need GROUP…      installs what is missing, after asking; true when all is there
#
# Nothing is added to the machine's apt sources. Debian 12's own linux-libc-dev is too old; the one
# from its backports is fetched with a private source list, made from wherever the machine gets
# Debian 12 itself.

PACKAGES_LIBC_DEV=6.12

packages_of() {
	local group
	for group in "$@"; do
		awk -v g="$group" '$1 == g { print $2 }' "$(hospes_root)/tools/lib/packages.txt"
	done
}

packages_version() {
	dpkg-query -W -f '${db:Status-Status} ${Version}\n' "$1" 2>/dev/null |
		awk '$1 == "installed" { print $2; exit }'
}

packages_missing() {
	local p version
	for p in $(packages_of "$@"); do
		version=$(packages_version "$p")
		if [ -z "$version" ]; then
			echo "$p"
		elif [ "$p" = linux-libc-dev ] && dpkg --compare-versions "$version" lt "$PACKAGES_LIBC_DEV"; then
			echo "$p"
		fi
	done
}

# apt-get's own words are shown only if it fails.
packages_apt() {
	local log status
	log=$(mktemp) || return
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
		-o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" >"$log" 2>&1
	status=$?
	[ $status = 0 ] || { tail -n 25 "$log" >&2; say "apt-get $*: status $status"; }
	rm -f "$log"
	return $status
}

# Install linux-libc-dev of Debian 12's backports with a private list of sources.
packages_libc_dev_from_backports() {
	local dir line keys opts status
	line=$(debtree_sources bookworm-backports | head -n 1) || return
	[ -n "$line" ] || return 1
	keys=$(debtree_keyrings | paste -sd,)
	# "deb [opts] uri suite main": the keys join the options.
	if [[ $line == "deb ["* ]]; then
		line="deb [signed-by=$keys ${line#deb [}"
	else
		line="deb [signed-by=$keys] ${line#deb }"
	fi
	dir=$(mktemp -d) || return
	chmod 755 "$dir"
	mkdir -p "$dir/lists/partial"
	printf '%s\n' "$line" >"$dir/sources.list"
	opts=(-o "Dir::Etc::SourceList=$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o "Dir::State::Lists=$dir/lists" -o APT::Sandbox::User=root)
	packages_apt "${opts[@]}" update &&
		packages_apt "${opts[@]}" install --no-install-recommends --no-remove \
			linux-libc-dev/bookworm-backports
	status=$?
	as_root rm -rf "$dir"
	return $status
}

packages_release() {
	# shellcheck disable=SC1091
	(. /etc/os-release 2>/dev/null && printf '%s' "${VERSION_CODENAME:-unknown}")
}

packages_need() {
	local missing release plain
	command -v dpkg-query >/dev/null ||
		die "this is not Debian: install what tools/lib/packages.txt names, then use meson directly"
	mapfile -t missing < <(packages_missing "$@" | sort -u)
	[ ${#missing[@]} -gt 0 ] || return 0
	release=$(packages_release)
	case $release in
	bookworm | trixie) ;;
	*) say "Debian 12 and 13 are what is tested; this is '$release', where it may or may not work" ;;
	esac
	say "missing packages: ${missing[*]}"
	confirm "Install them with apt-get?" || {
		say "to do it by hand: apt-get install ${missing[*]}"
		return 1
	}
	mapfile -t plain < <(printf '%s\n' "${missing[@]}" |
		{ [ "$release" = bookworm ] && grep -vx linux-libc-dev || cat; })
	say "installing (a minute or two)"
	if [ ${#plain[@]} -gt 0 ]; then
		packages_apt update || return
	fi
	# First, so that what depends on it is content with this one.
	if [ "$release" = bookworm ] && printf '%s\n' "${missing[@]}" | grep -qx linux-libc-dev; then
		say "linux-libc-dev $PACKAGES_LIBC_DEV comes from Debian 12's backports"
		packages_libc_dev_from_backports || return
	fi
	if [ ${#plain[@]} -gt 0 ]; then
		packages_apt install --no-install-recommends "${plain[@]}" || return
	fi
	mapfile -t missing < <(packages_missing "$@")
	[ ${#missing[@]} = 0 ] || {
		say "still missing after the installation: ${missing[*]}"
		return 1
	}
}
