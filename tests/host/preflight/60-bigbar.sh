#!/bin/bash
# testhost: --profile bigbar --timeout 120 destructive
# A BAR of 16 GiB: it goes into the guest's window for 64-bit BARs.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-preflight"
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "is about the emulated host"

big=$(device 1b36:0005)
vfio_bind "$big"
is "$(blockers "$big" --memory 1G)" "" "nothing blocks"
like "$(found ok bars "$big" --memory 1G)" "largest is 16 GiB; the guest's window has [0-9.]+ [GT]iB" \
	"the BAR and the window are told"
is "$(try "$big" iommufd 0x40000000)" ok "the kernel gives it"
done_testing
