#!/bin/bash
# testhost: outside
# Each profile is the host that its name says.
. "$(dirname "$0")/../lib.sh"
plan 10
cat >"$TMP/show.sh" <<'END'
groups=$(ls /sys/kernel/iommu_groups | wc -l)
echo "groups $([ "$groups" -gt 0 ] && echo some || echo none)"
echo nvme VFs $(cat /sys/bus/pci/drivers/nvme/*/sriov_totalvfs 2>/dev/null)
dmesg | grep -q 'Enabled IRQ remapping' && echo remapping
echo functions $(ls -d /sys/bus/pci/devices/*.1 | while read -r d; do lspci -n -s "${d##*/}"; done | grep -c 8086:100e)
python3 - <<'PY'
import glob
for path in glob.glob("/sys/bus/pci/devices/*/resource"):
    for line in open(path):
        a, b, _ = (int(x, 16) for x in line.split())
        if b - a + 1 == 16 << 30:
            print("big", path)
for path in glob.glob("/sys/class/iommu/dmar0/intel-iommu/cap"):
    print("width", (int(open(path).read(), 16) >> 16 & 0x3f) + 1)
PY
END
show() { testhost_run --timeout 120 --profile "$1" "$TMP/show.sh" 2>&1; }
out=$(show noiommu)
like "$out" '^groups none' "noiommu: no IOMMU group"
out=$(show noremap)
like "$out" '^groups some' "noremap: an IOMMU"
unlike "$out" '^remapping' "noremap: no interrupt remapping"
out=$(show aw39)
like "$out" '^width 39' "aw39: 39 bits of I/O address"
like "$out" '^remapping' "aw39: interrupt remapping"
out=$(show bigbar)
like "$out" '^big ' "bigbar: a BAR of 16 GiB"
out=$(show nvmevf)
like "$out" '^nvme VFs 2$' "nvmevf: an nvme with two VFs"
out=$(show functions)
like "$out" '^functions 1$' "functions: a card with a second function"
out=$(show default)
like "$out" '^width 48' "default: 48 bits"
unlike "$out" '^big ' "default: no huge BAR"
