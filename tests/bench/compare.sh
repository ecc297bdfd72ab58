#!/bin/bash
# testhost: --clock instructions --memory 4G --timeout 3300 destructive
# The table and the picture of docs/price-of-safety.md: hospes iommu compare over all strategies, in $OUT.
# usage: compare.sh DATE [OPTION of hospes iommu compare…]; DATE as in 2026-11-20, as this clock has none.
set -eu
[ "${HOSPES_TESTHOST:-}" = l1 ] || { echo "compare.sh: reads a whole controller; only in the test host" >&2; exit 2; }
date -s "$1" >/dev/null
shift
nvme=$(lspci -D -n -d 1b36:0010 | cut -d' ' -f1 | head -n 1)
hospes vf bind "$nvme"
# A wait by looking is busy for as long as the disk takes.
echo 0 >/sys/module/kvm/parameters/halt_poll_ns
cp --sparse=always "$HOSPES_GUEST_DISK" /root/root.img
hospes iommu compare --passthrough "$nvme" --kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M \
	--disk path=/root/root.img,readonly=on --timeout 900 \
	--json "$OUT/compare.json" --svg "$OUT/compare.svg" --seconds 1 --repeat 3 "$@" | tee "$OUT/compare.txt"
