#!/bin/bash
# testhost: --memory 4G --timeout 120 destructive
# What a machine says of the devices it has and of their address spaces; and a document that cannot be.
. "$(dirname "$0")/../lib.sh"
destructive
nvme0=$(device 1b36:0010 0) && nvme1=$(device 1b36:0010 1) || skip_all "needs two NVMe controllers"
plan 14

cat >"$TMP/status.py" <<'PYTHON'
# Creates a machine (nothing runs), prints its status or the error, and destroys it.
import ctypes, os, sys
lib = ctypes.CDLL(os.environ["HOSPES_BUILD"] + "/machine/libhospes.so.0")
class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("text", ctypes.c_char * 768)]
vm, error, status = ctypes.c_void_p(), Error(), ctypes.c_char_p()
text = sys.argv[1].encode()
if lib.hospes_vm_create(ctypes.byref(vm), text, ctypes.c_size_t(len(text)), None, ctypes.byref(error)):
    print(error.text.decode())
    sys.exit(1)
lib.hospes_vm_status(vm, ctypes.byref(status), ctypes.byref(error))
print(status.value.decode())
lib.hospes_vm_destroy(vm)
PYTHON
# machine PASSTHROUGH [MORE]
machine() {
	python3 "$TMP/status.py" "{\"kernel\": {\"path\": \"$HOSPES_GUEST_BZIMAGE\", \"cache\": false},
		\"memory\": {\"size\": \"256M\"}, \"passthrough\": [$1]${2:-}}"
}

out=$(machine "{\"device\": \"$nvme0\"}")
is $? 1 "a device that is not VFIO's is refused"
like "$out" "$nvme0: .*nvme.*hospes vf bind $nvme0" "with the line to type"
is "$(pci_driver "$nvme0")" nvme "and left as it was"
vfio_bind "$nvme0" && vfio_bind "$nvme1" || bail "cannot bind the controllers"

out=$(machine "{\"device\": \"$nvme0\", \"id\": \"a\"}, {\"device\": \"${nvme1#0000:}\", \"id\": \"b\"}")
is $? 0 "two devices" || diag "$out"
is "$(jq -r '.iommu.backend' <<<"$out")" iommufd "auto takes iommufd here"
like "$(jq -r '.iommu.reason' <<<"$out")" . "and says why"
is "$(jq -r '.iommu.fault_source' <<<"$out")" "kernel log" "DMA faults are reported by the kernel's log"
is "$(jq -r '.iommu.spaces[] | "\(.name) \(.strategy) \(.mapped_bytes) \(.devices[])"' <<<"$out")" \
	"$nvme0 direct 268435456 a
$nvme1 direct 268435456 b" "each has a space of its own with all memory in it"
is "$(jq -r '[.iommu.spaces[].pinned_bytes] | add' <<<"$out")" 268435456 "which is pinned once"
is "$(jq -r '.devices[] | select(.kind == "passthrough") | "\(.id) \(.host) \(.state) \(.interrupt)"' <<<"$out")" \
	"a $nvme0 present none
b $nvme1 present none" "the devices are there"

out=$(machine "{\"device\": \"$nvme0\", \"ioas\": \"both\"}, {\"device\": \"$nvme1\", \"ioas\": \"both\"}" \
	', "iommu": {"backend": "type1"}')
is "$(jq -r '.iommu.spaces[] | "\(.name) \(.devices | length) \(.mapped_bytes)"' <<<"$out")" "both 2 268435456" \
	"type1: one space for both" || diag "$out"
is "$(jq -r '.iommu.backend' <<<"$out")" type1 "by type1"

out=$(machine "{\"device\": \"$nvme0\"}, {\"device\": \"/sys/bus/pci/devices/$nvme0\"}")
like "$out" "are both $nvme0" "one device twice is refused, whatever it is called"
out=$(machine "{\"device\": \"0000:7f:00.0\"}")
like "$out" "0000:7f:00.0: no such PCI device" "one that is not there is refused"
