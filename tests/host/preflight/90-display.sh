#!/bin/bash
# testhost: --profile display --timeout 300 destructive
# A graphics card, on which the host started: what explain says of it, and that its memory goes from one guest to the
# next as it is.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/lib-preflight"
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "is about the emulated host"

card=$(device 1002:5046)
vfio_bind "$card"
like "$(found warning driver "$card")" "display that the host started on.* => use another card" \
	"the host's own display is one that it loses"
unlike "$(found warning driver "$(device 1b36:0010)")" "display" "another device is none"
like "$(found warning scrub "$card")" "contents of its memory for the next guest => power the host off" \
	"what a reset leaves in it is reported"
like "$(found warning msi "$card")" "INTx only" "it has neither MSI-X nor MSI"
like "$(found warning reset "$card")" "cannot be reset" "and no reset"
like "$(found ok migration "$card")" "not with vfio-pci" "it cannot move"
is "$(blockers "$card" --memory 512M)" "" "nothing blocks"
is "$(try "$card" iommufd 0x20000000)" ok "the kernel gives it"

# in_guest COMMAND: what it prints in a guest with the card, of which $at is where its memory lies.
in_guest() {
	# shellcheck disable=SC2016 # the guest's shell expands that
	local find='d=$(dirname $(grep -l 0x1002 /sys/bus/pci/devices/*/vendor)); echo 1 >$d/enable; read at end flags <$d/resource'
	job="hospes.sh=\"$find; $1\"" start "$card" --memory 512M
}
# shellcheck disable=SC2016
out=$(in_guest 'devmem $at 32 0x5ca1ab1e; echo has $(devmem $at)')
like "$out" 'has 0x5CA1AB1E' "a guest writes to its memory" || diag "$out"
# shellcheck disable=SC2016
out=$(in_guest 'echo has $(devmem $at)')
like "$out" 'has 0x5CA1AB1E' "and the next guest reads that" || diag "$out"
done_testing
