#!/bin/bash
# testhost: --memory 6G --timeout 600 destructive
# hospes iommu compare, for real and short: reads of an NVMe controller under direct and strict, as table,
# JSON and picture; and what it says when it cannot.
. "$(dirname "$0")/../lib.sh"
destructive
nvme=$(device 1b36:0010 0) || skip_all "needs an NVMe controller"
plan 22

compare() {
	hospes iommu compare --passthrough "$nvme" --kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M \
		--disk "path=$TMP/root.img,readonly=on" --timeout 240 "$@"
}
cp --sparse=always "$HOSPES_GUEST_DISK" "$TMP/root.img"

out=$(hospes iommu compare --kernel "$HOSPES_GUEST_BZIMAGE" 2>&1)
like "$out" '--passthrough: name the one device' "without a device it says where they are"
out=$(compare --strategies direct,stirct 2>&1)
like "$out" "'stirct': not direct, strict" "an unknown strategy: the known ones are named"
out=$(compare --strategies strict,cached,ttl=2s,quota=1K,deferred 2>&1)
like "$out" 'cached,ttl=2s,quota=1K, guest strict: .*quota=4K to 16T or never' "a parameter is checked before the guests start"
out=$(compare --workload net 2>&1)
like "$out" 'needs --peer' "a network needs another end"
out=$(compare --svg "$TMP/no/such/dir.svg" 2>&1)
like "$out" 'dir.svg.: cannot be written' "a file that cannot be written is found before the guests start"

ok "the controller is VFIO's" vfio_bind "$nvme"
out=$(hospes iommu compare --passthrough "$nvme" --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" \
	--guest none --timeout 240 --json "$TMP/none.json" 2>&1)
like "$out" 'direct: the guest: needs fio: install it' "an image without fio: it is said"
repeat=$(times 1 3) seconds=$(times 1 3)
ok "direct and strict, two sizes" eval "compare --strategies direct,strict --guest strict --sizes 4K,64K --depths 1 \
	--repeat $repeat --seconds $seconds --json '$TMP/c.json' --svg '$TMP/c.svg' >'$TMP/c.txt' 2>'$TMP/c.err'"
table=$(cat "$TMP/c.txt")
cp "$TMP/c.json" "$TMP/whole.json"
ok "and once more, with all of it there" eval "compare --strategies direct,strict --guest strict --sizes 4K,64K --depths 1 \
	--repeat $repeat --seconds $seconds --json '$TMP/c.json' --resume >'$TMP/again.txt' 2>'$TMP/again.err'"
is "$(cat "$TMP/again.err")" "" "no guest was started"
out=$(compare --strategies direct --sizes 4K --seconds 9 --json "$TMP/whole.json" --resume 2>&1)
like "$out" 'its runs are of [0-9]+ s, and now of 9 s; name another file' "other runs are not gone on with"
diag "$table"
diag "$(cat "$TMP/c.err")"
[ -z "${OUT:-}" ] || cp "$TMP"/c.* "$OUT/"

# get EXPRESSION: of the JSON document, d; v(row, case, figure) is a median.
get() {
	python3 - "$TMP/c.json" "$1" <<'PY'
import json, sys
d = json.load(open(sys.argv[1]))
rows = {r["label"]: i for i, r in enumerate(d["rows"])}
def v(row, case, figure):
    for r in d["results"]:
        if r["row"] == rows[row] and r["case"] == case:
            return r["values"][figure]["median"]
print(eval(sys.argv[2]))
PY
}
is "$(get 'sorted(rows)')" "['direct', 'direct, guest strict', 'strict, guest strict']" "three guests"
is "$(get 'len(d["results"])')" 6 "each did both sizes"
is "$(get 'v("direct", 0, "maps")')" 0.0 "direct: nothing is mapped while it works"
is "$(get 'v("strict, guest strict", 0, "maps") >= 1 and v("strict, guest strict", 0, "unmaps") >= 1')" True \
	"strict: a map and an unmap for a read of 4 KiB at least"
is "$(get 'v("strict, guest strict", 1, "maps") > v("strict, guest strict", 0, "maps")')" True \
	"and more of them for 64 KiB"
is "$(get 'v("direct", 0, "mapped_bytes") >= 500 << 20 and v("direct", 0, "pinned_bytes") >= 500 << 20')" True \
	"direct exposes and pins all of the guest"
is "$(get 'v("strict, guest strict", 0, "mapped_bytes") < 16 << 20')" True "strict: what is in flight"
is "$(get 'v("strict, guest strict", 0, "stale_bytes")')" 0.0 "and nothing stale"
is "$(get 'all(r["values"]["operations_per_second"]["median"] > 0 and r["values"]["cpu_us"]["median"] > 0 for r in d["results"])')" \
	True "each has throughput and CPU time"
like "$table" 'theirs: .*OLS 2007' "the figures of others stand beside it, as theirs"
ok "the picture is XML" python3 -c "import sys, xml.dom.minidom; xml.dom.minidom.parse('$TMP/c.svg')"
