#!/bin/bash
# testhost: --cpus 2 --timeout 900 shared
# A flood on the serial line loses nothing, in either direction; a virtio console likewise.
. "$(dirname "$0")/../lib.sh"
plan 6

small=(--kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" --memory 128M)
lines=$(times 2000 20000)

for tty in ttyS0 hvc0; do
	kind=serial write='sed s/^/flood-/'
	# Linux waits for each write to a virtio console, spinning; with newlines to translate, that is twice
	# for each line. As it comes, some KiB are written at once.
	[ "$tty" = ttyS0 ] || kind=virtio write="sed s/^/flood-/ | (stty -F /dev/hvc0 -opost; cat)"
	guest_start "out-$kind" hospes run "${small[@]}" --console "$kind" \
		--cmdline "console=$tty quiet hospes.sh=\"seq 1 $lines | $write\""
	guest_wait "out-$kind" 200
	is $? 0 "$kind: the guest ends"
	is "$(guest_log "out-$kind" | tr -d '\r' | grep -a '^flood-' | sha256sum)" \
		"$(seq 1 $lines | sed s/^/flood-/ | sha256sum)" "$kind: $lines lines came out whole" ||
		diag "$(guest_log "out-$kind" | grep -ac '^flood-') lines"

	# Into the guest: raw, so that neither echo nor line editing stand between.
	seq 1 $lines >"$TMP/in"
	bytes=$(stat -c %s "$TMP/in")
	guest_start "in-$kind" hospes run "${small[@]}" --console "$kind" --cmdline \
		"console=$tty quiet hospes.sh=\"stty -F /dev/$tty raw -echo; echo ready; head -c $bytes /dev/$tty | sha256sum\""
	guest_wait_for "in-$kind" '^ready' 60
	cat "$TMP/in" >&"${guest_stdin[in-$kind]}"
	guest_wait "in-$kind" 200
	like "$(guest_log "in-$kind")" "$(sha256sum <"$TMP/in" | cut -d' ' -f1)" \
		"$kind: $bytes bytes went in whole" || guest_show "in-$kind"
done
