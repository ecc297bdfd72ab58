# shellcheck shell=bash
# Debian trees: a directory that holds a small Debian, made from the machine's own apt sources,
# kept in the user's cache, entered with chroot in private namespaces. The test host, the lint
# tools and the fresh-machine trials live in such trees, so that they are the same on Debian 12
# and 13. To be sourced; needs bash, mmdebstrap and util-linux; works as root, and as a user where
# unprivileged user namespaces and /etc/subuid allow it (package uidmap).
#
#   debtree_cache                           the cache directory (created)
#   debtree_get NAME SUITE PKG...           path of a cached tree with these packages, made if needed
#   debtree_create DIR SUITE PKG...         makes a tree in DIR, which must not exist
#   debtree_run DIR [OPTION...] -- CMD...   runs CMD in the tree; see there
#   debtree_outdated DIR                    true if the archive has newer packages than the tree
#   debtree_remove DIR                      removes a tree, or anything else one of them wrote
#   debtree_as_root CMD...                  runs CMD as the owner of trees' files
#
# Nothing is ever mounted outside a private mount namespace: when CMD or the caller ends, however
# it ends, no mount and no process stays behind.

# Names what the next "long" line belongs to; scripts may set it.
: "${DEBTREE_TAG:=debtree}"

debtree_say() { printf '%s: %s\n' "$DEBTREE_TAG" "$*" >&2; }

debtree_cache() {
	local dir=${XDG_CACHE_HOME:-$HOME/.cache}/hospes
	mkdir -p "$dir/trees" || return
	printf '%s\n' "$dir"
}

# debtree_need COMMAND PACKAGE: a missing command is an error that names its package.
debtree_need() {
	command -v "$1" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || {
		debtree_say "$1 not found: apt-get install $2"
		return 1
	}
}

# The machine's apt sources, one "TYPE|URI|SUITE|COMPONENTS|OPTIONS" a line, from both formats.
debtree_apt_entries() {
	local f
	for f in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ -r "$f" ] || continue
		sed -n 's/#.*//; /^[[:space:]]*deb[[:space:]]/p' "$f" | awk '{
			opt = ""; i = 2
			if ($2 ~ /^\[/) {
				while (i <= NF) { opt = opt " " $i; if ($(i++) ~ /\]$/) break }
				gsub(/[][]/, "", opt); sub(/^ +/, "", opt)
			}
			comp = ""
			for (j = i + 2; j <= NF; j++) comp = comp " " $j
			print "deb|" $i "|" $(i + 1) "|" comp "|" opt
		}'
	done
	for f in /etc/apt/sources.list.d/*.sources; do
		[ -r "$f" ] || continue
		# Stanzas are separated by empty lines; fields may continue on indented lines.
		awk '
		function flush(   n, m, u, s, i, j) {
			if (v["types"] ~ /(^| )deb( |$)/ && tolower(v["enabled"]) !~ /^(no|false|off|0)$/) {
				n = split(v["uris"], u, " "); m = split(v["suites"], s, " ")
				for (i = 1; i <= n; i++) for (j = 1; j <= m; j++) {
					o = ""
					if (v["signed-by"] ~ /^\//) o = o " signed-by=" v["signed-by"]
					if (v["trusted"] != "") o = o " trusted=" v["trusted"]
					if (v["check-valid-until"] != "")
						o = o " check-valid-until=" v["check-valid-until"]
					print "deb|" u[i] "|" s[j] "|" v["components"] "|" o
				}
			}
			split("", v); key = ""
		}
		/^#/ { next }
		/^[[:space:]]*$/ { flush(); next }
		/^[[:space:]]/ { if (key != "") { sub(/^[[:space:]]+/, ""); v[key] = v[key] " " $0 } next }
		{
			key = tolower($0); sub(/:.*/, "", key)
			sub(/^[^:]*:[[:space:]]*/, ""); sub(/[[:space:]]+$/, ""); v[key] = $0
		}
		END { flush() }' "$f"
	done
}

# debtree_sources SUITE [PKG…]: apt source lines for SUITE, its updates and its security archive, from
# wherever this machine gets its own release. Options that are about trust are kept, except keys:
# debtree_keyrings collects those. A package that is written PKG/SUITE-backports adds that suite, from
# which nothing comes unasked.
debtree_sources() {
	local suite=$1 packages=" ${*:2} " own type uri s comps opts main='' sec='' mopt='' sopt=''
	# shellcheck disable=SC1091
	own=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
	while IFS='|' read -r type uri s comps opts; do
		[[ $type = deb && " $comps " == *" main "* ]] || continue
		opts=$(tr ' ' '\n' <<<"$opts" | grep -E '^(trusted|check-valid-until)=' | tr '\n' ' ')
		case $s in
		"$own" | stable)
			[ -n "$main" ] || { main=$uri; mopt=${opts% }; } ;;
		"$own-security" | stable-security)
			[ -n "$sec" ] || { sec=$uri; sopt=${opts% }; } ;;
		esac
	done < <(debtree_apt_entries)
	if [ -z "$main" ]; then
		debtree_say "no apt source for '${own:-this release}' found in /etc/apt: is this Debian?"
		return 1
	fi
	mopt=${mopt:+[$mopt] }
	sopt=${sopt:+[$sopt] }
	printf 'deb %s%s %s main\n' "$mopt" "$main" "$suite"
	printf 'deb %s%s %s-updates main\n' "$mopt" "$main" "$suite"
	[[ $packages != *"/$suite-backports "* ]] || printf 'deb %s%s %s-backports main\n' "$mopt" "$main" "$suite"
	[ -z "$sec" ] || printf 'deb %s%s %s-security main\n' "$sopt" "$sec" "$suite"
}

# The key files that the machine trusts for its own archive, and Debian's.
debtree_keyrings() {
	{
		debtree_apt_entries | cut -d'|' -f5 | tr ' ' '\n' | sed -n 's/^signed-by=//p' | tr ',' '\n'
		echo /usr/share/keyrings/debian-archive-keyring.gpg
	} | sort -u | while read -r f; do
		[ ! -r "$f" ] || printf '%s\n' "$f"
	done
}

# The options of unshare for a user namespace that has the owners which mmdebstrap gives a tree's
# files: root is the first of our subuids, and we ourselves are 65535. Root there may write what is
# ours, too. Nothing for root.
debtree_userns() {
	local name who kind first
	DEBTREE_USERNS=()
	[ "$(id -u)" != 0 ] || return 0
	name=$(id -un)
	DEBTREE_USERNS=(--map-user=65535 --map-group=65535 --setuid=0 --setgid=0)
	for kind in user group; do
		who=/etc/sub${kind:0:1}id
		first=$(awk -F: -v n="$name" -v u="$(id -u)" \
			'($1 == n || $1 == u) && $3 >= 65535 { print $2; exit }' "$who" 2>/dev/null)
		if [ -z "$first" ]; then
			debtree_say "$who gives $name no 65536 ids ('usermod --add-subuids 100000-165535" \
				"--add-subgids 100000-165535 $name' does): do that, or use sudo"
			return 1
		fi
		DEBTREE_USERNS+=("--map-${kind}s=$first,0,65535")
	done
}

# debtree_as_root CMD...: CMD as root, or as the root of such a namespace: whoever owns a tree.
debtree_as_root() {
	debtree_userns || return
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		unshare "${DEBTREE_USERNS[@]}" -- "$@"
	fi
}

# debtree_can: whether trees can be made and entered here, and if not, why.
debtree_can() {
	debtree_need mmdebstrap mmdebstrap && debtree_need unshare util-linux || return
	[ "$(id -u)" = 0 ] && return 0
	debtree_need newuidmap uidmap || return
	debtree_userns || return
	unshare "${DEBTREE_USERNS[@]}" -- true 2>/dev/null || {
		debtree_say "no unprivileged user namespaces here (sysctl" \
			"kernel.unprivileged_userns_clone?): run this with sudo"
		return 1
	}
}

# debtree_create DIR SUITE PKG...: about 15 s for a small tree; apt's output goes to DIR.log and is
# shown when it fails. The tree keeps its package lists, and DIR/.packages lists what it holds.
#
# PKG:ARCH, as in 'libjansson-dev:arm64', is that package of another architecture beside the machine's own: what a
# cross build is linked with. A first word 'foreign=ARCH' makes a tree of that architecture alone, of which
# no program is run: the packages are unpacked, and none of their scripts has been run.
debtree_create() {
	local dir=$1 suite=$2 mode=unshare variant=apt arch key opts=() hook sources IFS=$' \t\n'
	shift 2
	debtree_can || return
	# shellcheck disable=SC2016 # the hooks expand their own $1
	hook='--customize-hook=chroot "$1" dpkg-query -W > "$1/.packages"'
	arch=$(dpkg --print-architecture) || return
	if [[ $1 = foreign=* ]]; then
		arch=${1#foreign=} variant=extract
		shift
		# Nothing is recorded as installed: the packages themselves are the list.
		# shellcheck disable=SC2016
		hook='--extract-hook=cd "$1/var/cache/apt/archives" && ls *.deb | sed "s/\.deb$//; s/_/\t/; s/%3a/:/" > "$1/.packages"'
	else
		arch=$(printf '%s\n' "$arch" "$@" | sed -n '1p; s/^[^:]*:\([a-z0-9]*\)$/\1/p' | awk '!seen[$0]++' | paste -sd,)
	fi
	opts+=(--architectures="$arch")
	sources=$(debtree_sources "$suite" "$@") || return
	[ "$(id -u)" != 0 ] || mode=auto
	while read -r key; do opts+=(--keyring="$key"); done < <(debtree_keyrings)
	# How this machine reaches its mirror.
	while read -r key; do opts+=(--aptopt="$key"); done < <(apt-config dump |
		grep -E '^Acquire::((http|https)::(.*::)?Proxy|Check-Valid-Until|Retries) ')
	if ! mmdebstrap --mode="$mode" --variant=$variant --format=directory \
		--skip=cleanup/apt/lists --aptopt='APT::Install-Recommends "false"' \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/doc/*' "${opts[@]}" \
		--include="$(printf '%s\n' mount ca-certificates "$@" | sort -u | paste -sd,)" \
		"$hook" \
		"$suite" "$dir" - <<<"$sources" >"$dir.log" 2>&1; then
		grep -E '^(E:|W:|Err|dpkg:)|rror' "$dir.log" | tail -n 15 >&2
		debtree_say "mmdebstrap failed; its output is in $dir.log"
		return 1
	fi
	rm -f "$dir.log"
}

# debtree_run DIR [--bind SRC:DST] [--ro SRC:DST] [--chdir DST] [--env NAME=VALUE] -- CMD...
# CMD runs as the tree's root with a minimal environment, the machine's /dev and its name
# resolution, in its own mount and PID namespaces: all of its processes die with it. DST is made
# where it is missing.
debtree_run() {
	local dir=$1 cwd=/ binds=() env=()
	shift
	while [ $# -gt 0 ]; do
		case $1 in
		--bind) binds+=(rw "$2"); shift 2 ;;
		--ro) binds+=(ro "$2"); shift 2 ;;
		--chdir) cwd=$2; shift 2 ;;
		--env) env+=("$2"); shift 2 ;;
		--) shift; break ;;
		*) debtree_say "debtree_run: what is '$1'?"; return 2 ;;
		esac
	done
	debtree_userns || return
	# shellcheck disable=SC2016 # expanded by the inner shell
	unshare "${DEBTREE_USERNS[@]}" --mount --propagation private --pid --fork --kill-child -- \
		bash -c '
		set -e
		dir=$1 cwd=$2 nbind=$3 nenv=$4; shift 4
		# A mount of its own, so that the tree can in turn make namespaces and enter trees.
		mount --bind "$dir" "$dir"
		mount --rbind /dev "$dir/dev"
		mount --rbind /sys "$dir/sys"
		mount -t proc proc "$dir/proc" 2>/dev/null || mount --rbind /proc "$dir/proc"
		mount -t tmpfs tmp "$dir/tmp"
		for f in resolv.conf hosts; do
			[ -e "/etc/$f" ] || continue
			[ -e "$dir/etc/$f" ] || : >"$dir/etc/$f"
			mount --bind "$(readlink -f "/etc/$f")" "$dir/etc/$f"
		done
		while [ "$nbind" -gt 0 ]; do
			how=$1 src=${2%:*} dst=$dir${2##*:}; shift 2; nbind=$((nbind - 1))
			if [ -d "$src" ]; then mkdir -p "$dst"
			elif [ ! -e "$dst" ]; then mkdir -p "${dst%/*}"; : >"$dst"; fi
			mount --bind "$src" "$dst"
			[ "$how" = rw ] || mount -o remount,bind,ro "$dst"
		done
		env=()
		while [ "$nenv" -gt 0 ]; do env+=("$1"); shift; nenv=$((nenv - 1)); done
		exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
			HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" DEBIAN_FRONTEND=noninteractive \
			"${env[@]}" chroot "$dir" /bin/sh -c "cd \"\$0\" && exec \"\$@\"" "$cwd" "$@"
		' debtree "$dir" "$cwd" $((${#binds[@]} / 2)) ${#env[@]} "${binds[@]}" "${env[@]}" "$@"
}

# debtree_outdated DIR: asks the archive (needs the network, takes seconds).
debtree_outdated() {
	local out
	out=$(debtree_run "$1" -- sh -c 'apt-get -q update >&2 && apt-get -s -q dist-upgrade' \
		2>/dev/null) || return 1
	grep -q '^Inst ' <<<"$out"
}

debtree_remove() {
	[ -e "$1" ] || return 0
	rm -rf --one-file-system "$1" 2>/dev/null || debtree_as_root rm -rf --one-file-system "$1"
}

# debtree_key WORD...: a short name for a content.
debtree_key() { printf '%s\n' "$@" | sha256sum | cut -c1-12; }

# debtree_get NAME SUITE PKG...: the tree lives in CACHE/trees/NAME-KEY, KEY naming the suite, the
# packages and the recipe. Made aside and renamed, so that an interruption leaves no half tree;
# callers that come meanwhile wait.
debtree_get() {
	local name=$1 suite=$2 cache dir fd old
	shift 2
	cache=$(debtree_cache) || return
	dir=$cache/trees/$name-$(debtree_key 1 "$suite" "$@")
	if [ ! -e "$dir/.packages" ]; then
		exec {fd}>"$cache/trees/$name.lock" || return
		flock -n "$fd" || { debtree_say "waiting for another run that makes tree '$name'" &&
			flock "$fd"; }
		if [ ! -e "$dir/.packages" ]; then
			for old in "$cache/trees/$name"-*.new; do debtree_remove "$old"; done
			debtree_say "making tree '$name' (Debian $suite, $# packages; 15 to 60 s)"
			if ! debtree_create "$dir.new" "$suite" "$@" {fd}>&-; then
				exec {fd}>&-
				return 1
			fi
			mv "$dir.new" "$dir" || return
		fi
		exec {fd}>&-
	fi
	touch -c "$dir" 2>/dev/null
	printf '%s\n' "$dir"
}
