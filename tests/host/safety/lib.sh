# shellcheck shell=bash
# For the scripts here: what the kernel keeps for devices, and the memory of processes.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
destructive

# Bind for the script, with the driver they had afterwards where that matters.
with_vfio() { for d in "$@"; do vfio_bind "$d" || bail "$d does not bind to vfio-pci"; done; }

# Each CPU keeps a part of these counters to itself until they are refreshed.
vmstat() {
	cat /proc/sys/vm/stat_refresh >/dev/null
	awk -v n="$1" '$1 == n { print $2 }' /proc/vmstat
}
pinned() { echo $(($(vmstat nr_foll_pin_acquired) - $(vmstat nr_foll_pin_released))); }
io_tables() { awk '/^SecPageTables/ { print $2 }' /proc/meminfo; } # KiB, KVM's tables with them
pins_are() { [ "$(pinned)" = "$1" ]; }
tables_are() { cat /proc/sys/vm/stat_refresh >/dev/null && [ "$(io_tables)" = "$1" ]; }
host_is_well() { unlike "$(dmesg)" 'BUG:|Call Trace|blocked for more|Bad page|refcount' "the host has nothing to complain of"; }

# memory PID find TEXT:  "HVA HPA" of a page that begins with TEXT, in the process's writable memory
# memory PID read HVA N: its bytes, in hex
# memory PID at HVA:     the HPA
memory() { python3 "$(dirname "${BASH_SOURCE[0]}")/memory.py" "$@"; }

# Attackers: guests that run dma.c, told what to do by lines.
attackers() {
	dma=$HOSPES_BUILD/tests/host/safety/dma
	[ -x "$dma" ] || skip_all "hospes was built without its tests"
	cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
device=-
for d in /sys/bus/pci/devices/*; do
	[ "$(cat $d/vendor) $(cat $d/device)" != '0x1234 0x11e8' ] || device=${d##*/}
done
/dma $device </dev/ttyS0
GUEST
	guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh" "$dma"
}
# start NAME ARG… of hospes run
start() {
	local name=$1
	shift
	CANARY="canary of hospes itself" guest_start "$name" hospes run --kernel "$HOSPES_GUEST_BZIMAGE" \
		--initrd "$TMP/initrd" --verbose --cmdline 'console=ttyS0 quiet' "$@"
	guest_wait_for "$name" '^dma: ready' 60 || { guest_show "$name"; bail "$name does not start"; }
}
# say NAME LINE PATTERN: to the program in the guest; its answer, which is the last line of this kind.
say() {
	local n
	n=$(grep -acE "$3" "$TMP/$1.log")
	guest_send "$1" "$2"
	guest_times "$1" "$3" $((n + 1)) 40 || { echo "no answer to '$2'"; return 1; }
	tr -d '\r' <"$TMP/$1.log" | grep -aE "$3" | tail -n 1
}
