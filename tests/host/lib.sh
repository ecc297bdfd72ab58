# shellcheck shell=bash
# For scripts of the test host suites: TAP, guests, devices. A script begins with
#
#   #!/bin/bash
#   # testhost: OPTIONS      of 'tools/testhost run', for the suite runner; see tests/host/README.md
#   . "$(dirname "$0")/../lib.sh"
#   plan 3
#
# and ends by itself; the plan is checked, guests are ended and $TMP is removed at the end.

set -u
TMP=$(mktemp -d)
[ -z "${HOSPES_BUILD:-}" ] || PATH=$(readlink -f "$(dirname "${BASH_SOURCE[0]}")/../strict"):$PATH
tap_count=0 tap_plan='' tap_failed=0
declare -A guest_pid=() guest_stdin=()

# TAP ------------------------------------------------------------------------------------------

plan() { tap_plan=$1; echo "1..$1"; }
# When the number is not known beforehand.
done_testing() { plan "$tap_count"; }
diag() { printf '%s\n' "$*" | sed 's/^/# /'; }
pass() { tap_count=$((tap_count + 1)); echo "ok $tap_count - $*"; }
fail() {
	tap_count=$((tap_count + 1)) tap_failed=1
	echo "not ok $tap_count - $*"
	return 1
}

# ok NAME CMD…: the command succeeds; if not, its output is shown.
ok() {
	local name=$1 out status=0
	shift
	out=$("$@" 2>&1) || status=$?
	[ "$status" = 0 ] && { pass "$name"; return; }
	fail "$name"
	diag "'$*' ended with status $status"
	diag "$out"
	return 1
}

# not_ok NAME CMD…: the command fails (by itself, not by a signal).
not_ok() {
	local name=$1 out status=0
	shift
	out=$("$@" 2>&1) || status=$?
	[ "$status" -gt 0 ] && [ "$status" -lt 124 ] && { pass "$name"; return; }
	fail "$name"
	diag "'$*' ended with status $status"
	diag "$out"
	return 1
}

# is GOT WANTED NAME
is() {
	[ "$1" = "$2" ] && { pass "$3"; return; }
	fail "$3"
	diag "got:    $1"
	diag "wanted: $2"
	return 1
}

# like GOT REGEX NAME
like() {
	grep -qE -e "$2" <<<"$1" && { pass "$3"; return; }
	fail "$3"
	diag "got:     $1"
	diag "pattern: $2"
	return 1
}

# unlike GOT REGEX NAME
unlike() {
	grep -qE -e "$2" <<<"$1" || { pass "$3"; return; }
	fail "$3"
	diag "got: $(grep -E -e "$2" <<<"$1" | head -n 5)"
	diag "not wanted: $2"
	return 1
}

# skip NAME REASON: one test that cannot be made here.
skip() { tap_count=$((tap_count + 1)); echo "ok $tap_count - $1 # SKIP $2"; }
skip_all() { tap_plan=0; echo "1..0 # SKIP $*"; exit 0; }
bail() { echo "Bail out! $*"; exit 1; }

lib_exit() {
	local status=$? name
	trap - EXIT
	for name in "${!guest_pid[@]}"; do guest_kill "$name"; done
	rm -rf "$TMP"
	if [ "$status" = 0 ] && [ "$tap_failed" = 1 ]; then status=1; fi
	if [ "$status" = 0 ] && [ -n "$tap_plan" ] && [ "$tap_plan" != "$tap_count" ]; then
		diag "planned $tap_plan tests, made $tap_count"
		status=1
	fi
	exit "$status"
}
trap lib_exit EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# Waiting --------------------------------------------------------------------------------------

# times SHORT LONG: how often, in this run. (tools/check says HOSPES_LONG=0 where it is not long.)
times() { if [ "${HOSPES_LONG:-0}" = 1 ]; then echo "$2"; else echo "$1"; fi; }

# wait_for FILE REGEX SECONDS [PID]: until a line matches, be it the last and unfinished one (a
# prompt); fails at the end of the time, or when PID has ended and no line has matched. Looks again
# when the file grows, and once in a second.
wait_for() {
	local end=$((SECONDS + $3)) alive=1
	until grep -aqE -e "$2" "$1"; do
		[ "$alive" = 1 ] && [ "$SECONDS" -lt "$end" ] || return 1
		[ -z "${4:-}" ] || kill -0 "$4" 2>/dev/null || { alive=0; continue; }
		timeout 1 tail -n 0 -f -s 0.2 ${4:+--pid="$4"} "$1" | head -c 1 >/dev/null
	done
}

# retry SECONDS CMD…: until the command succeeds, for states that nobody announces.
retry() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || return 1
		read -r -t 0.05 <> <(:) || :
	done
}

# Test hosts, for scripts that run outside of them --------------------------------------------

testhost=${TESTHOST:-$(dirname "${BASH_SOURCE[0]}")/../../tools/testhost}
# testhost_run ARG…: 'tools/testhost run' without hospes; once more where QEMU itself failed (123).
testhost_run() {
	local status=0
	"$testhost" run --no-hospes "$@" || status=$?
	[ "$status" = 123 ] || return "$status"
	echo "QEMU itself failed: once more" >&2
	"$testhost" run --no-hospes "$@"
}

# Guests ---------------------------------------------------------------------------------------

# guest_start NAME CMD…: a VMM in the background, its console output (and messages) in
# $TMP/NAME.log, its input open for guest_send.
guest_start() {
	local name=$1 fd
	shift
	rm -f "$TMP/$name.in" "$TMP/$name.log"
	mkfifo "$TMP/$name.in"
	: >"$TMP/$name.log"
	exec {fd}<>"$TMP/$name.in"
	"$@" <"$TMP/$name.in" >>"$TMP/$name.log" 2>&1 {fd}>&- &
	guest_pid[$name]=$!
	guest_stdin[$name]=$fd
}

# guest_wait_for NAME REGEX SECONDS: a line on its console.
guest_wait_for() { wait_for "$TMP/$1.log" "$2" "$3" "${guest_pid[$1]}"; }
# guest_times NAME REGEX N SECONDS: until N lines have matched.
guest_times() {
	local fd tail status=0
	exec {fd}< <(exec tail -n +1 -f -s 0.2 --pid="${guest_pid[$1]}" "$TMP/$1.log")
	tail=$!
	# Counted into a pipe: grep ends at the first match when nobody would see the others.
	[ "$(timeout "$4" grep -acm"$3" -E -e "$2" <&"$fd")" = "$3" ] || status=1
	exec {fd}<&-
	kill "$tail" 2>/dev/null
	return "$status"
}
guest_send() { printf '%s\n' "$2" >&"${guest_stdin[$1]}"; }
guest_log() { cat "$TMP/$1.log"; }
# guest_show NAME [LINES]: for a failure: the end of its console, and where it is if it still runs.
guest_show() {
	diag "console of $1, its end:"
	tail -n "${2:-30}" "$TMP/$1.log" | tr -d '\r' | sed 's/^/#   /'
	guest_where "$1" | sed 's/^/#   /'
}
# guest_status NAME: what hospes says of it, as JSON (hospes tells it by SIGUSR1, before the registers).
guest_status() {
	local lines shown
	lines=$(wc -l <"$TMP/$1.log")
	shown=$(grep -ac '^code at' "$TMP/$1.log")
	kill -USR1 "${guest_pid[$1]}"
	guest_times "$1" '^code at' $((shown + 1)) 10 || return 1
	tail -n "+$lines" "$TMP/$1.log" | tr -d '\r' | sed -n '/^{/,/^}/p'
}
# guest_where NAME: the VMM's threads, and twice the vCPUs' registers and exits (hospes tells them by
# SIGUSR1); nothing when it has ended.
guest_where() {
	local pid=${guest_pid[$1]:-} lines shown stat
	[ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 0
	echo "where it is: $(uptime)"
	timeout 30 gdb -p "$pid" -batch -ex 'thread apply all bt 16' 2>&1 | grep -E '^(Thread|#)'
	for _ in 1 2; do
		lines=$(wc -l <"$TMP/$1.log")
		shown=$(grep -ac '^code at' "$TMP/$1.log")
		kill -USR1 "$pid"
		guest_times "$1" '^code at' $((shown + 1)) 10 || echo "hospes does not answer"
		tail -n "+$((lines + 1))" "$TMP/$1.log" |
			grep -aE '"(state|total|io|mmio|interrupted|halted|other)":|^vCPU|^r|^cr0|^mp|^exception|^code'
		for stat in "/sys/kernel/debug/kvm/$pid-"*/{exits,halt_exits,irq_injections,irq_window_exits,io_exits,mmio_exits}; do
			echo "${stat##*/} $(cat "$stat" 2>&1)"
		done
	done
}

# guest_wait NAME SECONDS: until it has ended; its exit status, or 124.
guest_wait() {
	local name=$1 pid=${guest_pid[$1]} watch status=0
	# tail ends with the process that it watches, unless L1 loses its timers: then look.
	timeout "$2" tail -f -s 0.2 --pid="$pid" /dev/null || ! kill -0 "$pid" 2>/dev/null || return 124
	wait "$pid" || status=$?
	watch=${guest_stdin[$name]}
	exec {watch}>&-
	unset "guest_pid[$name]" "guest_stdin[$name]"
	return "$status"
}

guest_kill() {
	local fd
	kill -9 "${guest_pid[$1]}" 2>/dev/null
	wait "${guest_pid[$1]}" 2>/dev/null
	fd=${guest_stdin[$1]}
	exec {fd}>&-
	unset "guest_pid[$1]" "guest_stdin[$1]"
}

# guest_initrd BASE OUT FILE…: BASE with executables added to its root; one named hospes.sh is run.
guest_initrd() {
	local base=$1 out=$2 dir
	shift 2
	dir=$(mktemp -d "$TMP/initrd.XXXXXX")
	install -m 755 "$@" "$dir/"
	cp "$base" "$out"
	(cd "$dir" && find . -mindepth 1 | busybox cpio -o -H newc -R 0:0 2>/dev/null) >>"$out"
	rm -r "$dir"
}

# dialogue FOLDER SCRIPT ARG…: a script in Python that talks to its guests (dialogue.py), which are shells;
# FOLDER gets their initrd and is its first argument. What it shows are cases here; the last is that it came to
# its end.
dialogue() {
	local verdict name status
	cat >"$1/hospes.sh" <<'GUEST'
#!/bin/sh
exec 3</dev/ttyS0
stty -echo <&3
await() {
	n=0
	until eval "$1"; do
		[ "$((n += 1))" -lt 1000 ] || return 1
		usleep 20000
	done 2>/dev/null
}
echo "guest is up"
while read -r line <&3; do
	eval "$line"
	echo "=done $?"
done
GUEST
	guest_initrd "$HOSPES_GUEST_INITRD" "$1/initrd" "$1/hospes.sh"
	while read -r verdict name; do
		case $verdict in
		pass) pass "$name" ;;
		fail) fail "$name" ;;
		end) status=$name ;;
		*) diag "$verdict $name" ;;
		esac
	done < <(PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$(dirname "${BASH_SOURCE[0]}") \
		python3 "$2" "$1" "${@:3}" 2>&1; echo "end $?")
	is "$status" 0 "$(basename "$2") comes to its end"
}

# Devices --------------------------------------------------------------------------------------

# device VENDOR:DEVICE [N]: address of the Nth such PCI device (the first is 0) that tests may use:
# any in the emulated host, only those of --devices on a real machine.
device() {
	local bdf n=${2:-0}
	for bdf in $(lspci -D -n -d "$1" | cut -d' ' -f1); do
		if [ "${HOSPES_TESTHOST:-}" != l1 ]; then
			case ",${HOSPES_DEVICES:-}," in *",$bdf,"*) ;; *) continue ;; esac
		fi
		[ "$n" -gt 0 ] || { echo "$bdf"; return; }
		n=$((n - 1))
	done
	return 1
}

# A script that unbinds, resets or overwrites devices says so first.
destructive() {
	[ "${HOSPES_TESTHOST:-}" = l1 ] || [ -n "${HOSPES_DEVICES:-}" ] ||
		skip_all "touches devices; name those it may have with --devices"
}

iommu_group() { basename "$(readlink "/sys/bus/pci/devices/$1/iommu_group")"; }
group_size() { find "/sys/kernel/iommu_groups/$(iommu_group "$1")/devices/" -type l | wc -l; }
pci_driver() { basename "$(readlink "/sys/bus/pci/devices/$1/driver")" 2>/dev/null; }
netdev() { find "/sys/bus/pci/devices/$1/net" -mindepth 1 -maxdepth 1 -printf "%f\n" 2>/dev/null | head -n 1; }
carrier_up() { [ "$(cat "/sys/class/net/$1/carrier" 2>/dev/null)" = 1 ]; }

# vfs_create PF N: N virtual functions with no driver. The PF resets itself while they appear, and a
# VF that is used before its link is back finds it in reset.
vfs_create() {
	local dev=/sys/bus/pci/devices/$1 net
	net=$(netdev "$1")
	ip link set "$net" up || return
	retry 20 carrier_up "$net" || return
	echo 0 >"$dev/sriov_drivers_autoprobe" || return
	echo 0 >"$dev/sriov_numvfs"
	echo "$2" >"$dev/sriov_numvfs" || return
	[ "$(vfs "$1" | wc -l)" = "$2" ] || return
	retry 20 carrier_up "$net"
}
vfs() { local v; for v in "/sys/bus/pci/devices/$1"/virtfn*; do basename "$(readlink "$v")"; done | sort; }

# vfio_bind BDF: to vfio-pci, from whatever it is bound to.
vfio_bind() {
	local dev=/sys/bus/pci/devices/$1
	echo vfio-pci >"$dev/driver_override" || return
	[ ! -e "$dev/driver" ] || echo "$1" >"$dev/driver/unbind" || return
	echo "$1" >/sys/bus/pci/drivers_probe || return
	[ "$(pci_driver "$1")" = vfio-pci ]
}
vfio_unbind() {
	local dev=/sys/bus/pci/devices/$1
	echo >"$dev/driver_override"
	[ ! -e "$dev/driver" ] || echo "$1" >"$dev/driver/unbind"
	echo "$1" >/sys/bus/pci/drivers_probe
}
