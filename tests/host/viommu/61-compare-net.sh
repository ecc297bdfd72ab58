#!/bin/bash
# testhost: --memory 5G --timeout 600 destructive
# hospes iommu compare with a network: a virtual function of a card in the guest, its physical function as the
# other end; streams and requests, direct and strict.
. "$(dirname "$0")/../lib.sh"
destructive
pf=$(device 8086:10c9) || skip_all "needs an SR-IOV card of igb"
plan 7

ok "a VF appears" vfs_create "$pf" 1
vf=$(vfs "$pf")
ok "it is VFIO's" vfio_bind "$vf"
ip addr add 10.9.0.1/24 dev "$(netdev "$pf")"
iperf3 -s >"$TMP/server.log" 2>&1 &
server=$!
cp --sparse=always "$HOSPES_GUEST_DISK" "$TMP/root.img"

ok "streams and requests, direct and strict" eval "hospes iommu compare --passthrough '$vf' --workload net --peer 10.9.0.1 \
	--address 10.9.0.2/24 --kernel '$HOSPES_GUEST_BZIMAGE' --memory 512M --disk 'path=$TMP/root.img,readonly=on' \
	--timeout 240 --guest strict --strategies direct,strict --sizes 1K --repeat 1 --seconds 2 \
	--json '$TMP/c.json' >'$TMP/c.txt' 2>'$TMP/c.err'"
kill "$server"
diag "$(cat "$TMP/c.txt" "$TMP/c.err")"
# medians CASE FIGURE: of the three guests, in their order.
medians() { jq -c "[.results[] | select(.case == $1) | .values.$2.median]" "$TMP/c.json"; }
is "$(jq -c '[.cases[].kind]' "$TMP/c.json")" '["stream","response"]' "both were asked for"
is "$(medians 0 operations_per_second | jq 'length == 3 and all(. > 0)')" true "each guest sent messages"
is "$(medians 1 latency_us | jq 'length == 3 and all(. > 0)')" true "and had answers"
is "$(medians 1 maps | jq '.[0] == 0 and .[2] >= 1')" true "strict: a request maps at least once; direct: not at all"
