# shellcheck shell=bash
# The lint tools, all from one Debian 13 tree, so that every machine has the same opinion. To be
# sourced after common.sh and debtree.sh.
#
#   pinned_tree               path of the tree, made if needed (some 30 s)
#   pinned TOOL ARG…          runs clang-format, clang-tidy, cppcheck or shellcheck from it
#   pinned_command TOOL       the same as a command, one word a line, to put arguments after
#
# The tree is only unpacked, never entered: the programs are started through its own dynamic linker,
# on this machine's paths. So it takes no root, no namespaces and no mounts, and works in any
# container.

PINNED_SUITE=trixie
PINNED_LLVM=19
# The tools, and the headers that the tree's view of the code needs.
PINNED_PACKAGES=(clang-format-19 clang-tidy-19 cppcheck shellcheck
	libc6-dev linux-libc-dev liburing-dev libjansson-dev zlib1g-dev liblzma-dev libzstd-dev
	libdeflate-dev liblz4-dev libnl-3-dev libhttp-parser-dev libcriterion-dev systemtap-sdt-dev)

pinned_make() { # DIR: unpack the tree there
	local dir=$1 key opts=() sources
	debtree_need mmdebstrap mmdebstrap || return
	sources=$(debtree_sources "$PINNED_SUITE") || return
	while read -r key; do opts+=(--keyring="$key"); done < <(debtree_keyrings)
	while read -r key; do opts+=(--aptopt="$key"); done < <(apt-config dump |
		grep -E '^Acquire::((http|https)::(.*::)?Proxy|Check-Valid-Until|Retries) ')
	# Nothing of the tree is run while it is made, so that root's fear of chrootless mode is idle.
	mmdebstrap --mode=chrootless --skip=check/chrootless --variant=extract --format=directory "${opts[@]}" \
		--include="$(IFS=,; echo "${PINNED_PACKAGES[*]}")" \
		"$PINNED_SUITE" "$dir" - <<<"$sources" >"$dir.log" 2>&1 || {
		tail -n 15 "$dir.log" >&2
		say "mmdebstrap failed; its output is in $dir.log"
		return 1
	}
	rm -f "$dir.log"
	# What only comes along.
	(cd "$dir/usr" && rm -rf ../var lib/gcc lib/python3* libexec lib/x86_64-linux-gnu/perl* \
		share/doc share/info share/locale share/man share/perl* share/python3 &&
		find lib -name '*.a' -delete &&
		find "lib/llvm-$PINNED_LLVM/bin" -type f ! -name clang-format ! -name clang-tidy -delete &&
		# cppcheck looks beside the running program, which here is the dynamic linker.
		ln -s cppcheck/cfg cppcheck/platforms lib/x86_64-linux-gnu/)
}

pinned_tree() {
	local cache dir fd
	cache=$(debtree_cache) || return
	dir=$cache/trees/lint-$(debtree_key 4 "$PINNED_SUITE" "${PINNED_PACKAGES[@]}")
	if [ ! -d "$dir" ]; then
		exec {fd}>"$cache/trees/lint.lock" || return
		flock -n "$fd" || { say "waiting for another run that unpacks the lint tools" && flock "$fd"; }
		if [ ! -d "$dir" ]; then
			say "unpacking clang-format, clang-tidy, cppcheck and shellcheck of Debian 13 (30 s)"
			rm -rf "$cache"/trees/lint-*.new
			pinned_make "$dir.new" || return
			mv "$dir.new" "$dir" || return
		fi
		exec {fd}>&-
	fi
	printf '%s\n' "$dir"
}

pinned_command() {
	local tool=$1 tree lib file extra=()
	tree=$(pinned_tree) || return
	lib=$tree/usr/lib/x86_64-linux-gnu
	case $tool in
	clang-format) file=$tree/usr/lib/llvm-$PINNED_LLVM/bin/clang-format ;;
	clang-tidy)
		file=$tree/usr/lib/llvm-$PINNED_LLVM/bin/clang-tidy
		extra=(--extra-arg-before="--sysroot=$tree"
			--extra-arg-before="-resource-dir=$tree/usr/lib/llvm-$PINNED_LLVM/lib/clang/$PINNED_LLVM")
		;;
	cppcheck) file=$tree/usr/bin/cppcheck ;;
	shellcheck) file=$tree/usr/bin/shellcheck ;;
	*) say "pinned: what is '$tool'?"; return 2 ;;
	esac
	printf '%s\n' "$lib/ld-linux-x86-64.so.2" \
		--library-path "$lib:$tree/usr/lib/llvm-$PINNED_LLVM/lib" "$file" "${extra[@]}"
}

pinned() {
	local out command
	out=$(pinned_command "$1") || return
	shift
	mapfile -t command <<<"$out"
	"${command[@]}" "$@"
}
