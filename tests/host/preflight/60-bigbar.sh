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
	"the BAR and the window are reported"
is "$(try "$big" iommufd 0x40000000)" ok "the kernel gives it"
like "$(found ok msi "$big")" "has no interrupts" "it has no interrupts"

# Memory that leaves the window no room for it. No host of ours has so much, which run says first.
full=$(found blocker bars "$big" --memory 1008G)
like "$full" "16 GiB of 64-bit BARs, .* window for them has 8 GiB => less --memory" "a window that is too small"
is "$(found blocker bars "$big" --memory 1000G)" "" "the remedy works"
like "$(start "$big" --memory 1008G)" "memory.size: 1032192M, but this host has" "run does not start it"
done_testing
