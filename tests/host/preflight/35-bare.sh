#!/bin/bash
# testhost: --profile bare --append initcall_blacklist=vfio_pci_init --timeout 120 destructive
# A host as it came: with an IOMMU that the kernel does not use, CPUs without virtualization, no driver for VFIO.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-preflight"
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "is about the emulated host"

nvme=$(device 1b36:0010)
is "$(blockers "$nvme" | tr ' ' '\n' | sort | xargs)" "driver iommu kernel kernel" "all that blocks"
like "$(found blocker iommu "$nvme")" "in no IOMMU group.* => .*does not use the IOMMU: add 'intel_iommu=on' to its command line" \
	"the IOMMU is not in use: the option is named"
like "$(found blocker kernel "$nvme")" "has no driver vfio-pci => modprobe vfio-pci" "no driver for VFIO"
not_ok "hospes cannot bind it" hospes vf bind "$nvme"
like "$(found blocker kernel "$nvme")" "no /dev/kvm => modprobe kvm_intel or kvm_amd; virtualization on" "no virtualization"
out=$(start "$nvme" --memory 256M)
is $? 1 "run does not start"
like "$out" "/dev/kvm" "and says what it misses first" || diag "$out"
like "$(hospes iommu list)" "^No IOMMU" "the list says it"
done_testing
