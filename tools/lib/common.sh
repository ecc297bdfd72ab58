# shellcheck shell=bash
# What the scripts share: messages, durations, questions, root. To be sourced.
#
#   say TEXT…          one line on stderr, with the script's name in front
#   die TEXT…          the same, then exit 1
#   confirm QUESTION   true for yes; without asking under --yes (ASSUME_YES=1) or CI=true
#   as_root CMD…       runs CMD as root: directly, or with sudo
#   took SECONDS       "42 s", "3 min 20 s"
#   hospes_root        the checkout's top directory
#   hospes_cache       the user's cache directory, created

: "${TOOL:=${0##*/}}"
: "${ASSUME_YES:=0}"
[ "${CI:-}" != true ] || ASSUME_YES=1

say() { printf '%s: %s\n' "$TOOL" "$*" >&2; }
die() {
	say "$@"
	exit 1
}

took() {
	if [ "$1" -lt 90 ]; then printf '%d s' "$1"; else printf '%d min %d s' $(($1 / 60)) $(($1 % 60)); fi
}

hospes_root() { (cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P); }

hospes_cache() {
	local dir=${XDG_CACHE_HOME:-$HOME/.cache}/hospes
	mkdir -p "$dir" || return
	printf '%s\n' "$dir"
}

confirm() {
	local answer
	[ "$ASSUME_YES" != 1 ] || return 0
	if ! { [ -t 0 ] && [ -t 2 ]; }; then
		say "$* Not asked, as there is no terminal: say --yes to agree."
		return 1
	fi
	printf '%s: %s [y/N] ' "$TOOL" "$*" >&2
	read -r answer || return 1
	[[ $answer == [yY]* ]]
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		say "this needs root, and there is no sudo: run as root: $*"
		return 1
	fi
}
