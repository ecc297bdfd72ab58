# shellcheck shell=bash
# For the scripts here: machines inside a program (embed.c) that asks for their status and switches
# strategies, and the host's I/O page tables as its kernel shows them.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
destructive
programs=$HOSPES_BUILD/tests/host/viommu

# embed NAME DOCUMENT: the document's machine, whose console is what tell writes to; all output in its log.
embed() {
	mkfifo "$TMP/$1.console"
	printf '%s' "$2" >"$TMP/$1.json"
	guest_start "$1" bash -c 'exec "$1" "$2" 7<>"$3"' - "$programs/embed" "$TMP/$1.json" "$TMP/$1.console"
}
# answer NAME SECONDS PATTERN COMMAND…: runs it, and waits for one more such line, which it prints.
answer() {
	local name=$1 seconds=$2 pattern=$3 n
	shift 3
	n=$(grep -acE "$pattern" "$TMP/$name.log")
	"$@"
	guest_times "$name" "$pattern" $((n + 1)) "$seconds" || { echo "no answer"; return 1; }
	tr -d '\r' <"$TMP/$name.log" | grep -aE "$pattern" | tail -n 1
}
tell_guest() { printf '%s\n' "$2" >"$TMP/$1.console"; }
# in_guest NAME LINE PATTERN [SECONDS]: to the program in the guest; its answer.
in_guest() { answer "$1" "${4:-60}" "$3" tell_guest "$1" "$2"; }
# to_machine NAME LINE PATTERN [SECONDS]: to embed.
to_machine() { answer "$1" "${4:-60}" "$3" guest_send "$1" "$2"; }
status_of() { to_machine "$1" status '^status: ' | sed 's/^status: //'; }

# hardware BDF: what the host's IOMMU has mapped for the device: "PFN ACCESS" of each page of 4 KiB, in hex.
# Larger ones are as many.
hardware() {
	mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
	python3 - "/sys/kernel/debug/iommu/intel/$1/domain_translation_struct" <<'TABLE'
import sys
# Page number | entries of each level down to the one that maps it.
for line in open(sys.argv[1], encoding="ascii"):
    words = line.replace("|", " ").split()
    if line.startswith("0x"):
        first, entry = int(words[0], 16), int(words[-1], 16)
        for i in range(512 ** (6 - len(words))):
            print(f"{first + i:x} {entry & 3}")
TABLE
}
has_tables() {
	mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
	[ -d "/sys/kernel/debug/iommu/intel/$1" ]
}

# consistent NAME WHEN BDF…: in the domains of these devices (all of the host's that are behind the guest's
# IOMMU, each in its own, not under direct) there is as much by the guest's requests and what is stale, by the ledgers
# and by the hardware's tables; and the guest's domains are those of its devices. A machine of embed's is paused for it; a guest of
# hospes run is to be idle, and is asked up to five times.
consistent() {
	local name=$1 when=$2 status got table d tries=5
	shift 2
	[ $# = 0 ] || has_tables "$1" || { skip "$when: the hardware's tables" "this kernel does not show them"; return; }
	while [ $tries -gt 0 ]; do
		if [ -p "$TMP/$name.console" ]; then
			tries=0
			to_machine "$name" pause '^pause: 0' >/dev/null
			status=$(status_of "$name")
		else
			tries=$((tries - 1))
			status=$(guest_status "$name")
		fi
		table=0
		for d in "$@"; do table=$((table + $(hardware "$d" | wc -l) * 4096)); done
		[ ! -p "$TMP/$name.console" ] || to_machine "$name" resume '^resume: 0' >/dev/null
		got=$(jq -c '.viommu | [.endpoints[] | select(.strategy)] as $real | [.mapped_bytes - ([.endpoints[] | .guest_mapped_bytes, .retained.bytes] | add),
			([$real[] | .guest_mapped_bytes, .retained.bytes] | add // 0), ([$real[].mapped_bytes] | add // 0)]' <<<"$status")
		[ "$got" != "[0,$table,$table]" ] || tries=0
	done
	is "$got" "[0,$table,$table]" "$when: guest, ledgers and hardware agree ($table bytes)" ||
		diag "$(jq -c .viommu <<<"$status")"
}
# What a guest of hospes run does last: it is idle until settled lets it go on, having had a look.
# shellcheck disable=SC2034 # in the scripts
idle='echo IDLE; read x </dev/ttyS0'
# settled NAME SECONDS BDF…
settled() {
	local name=$1 seconds=$2
	shift 2
	guest_wait_for "$name" '^IDLE' "$seconds" || guest_show "$name" 60
	consistent "$name" "$name: at its end" "$@"
	guest_send "$name" ''
}
