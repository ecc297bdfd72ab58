#!/bin/bash
# testhost: --cpus 2 --memory 5G --timeout 600
# A guest that has suspended itself is woken by SIGTERM and powers off; so does one that still boots.
. "$(dirname "$0")/../lib.sh"
plan 7

debian() { # NAME
	guest_start "$1" hospes run --kernel "$HOSPES_DEBIAN_BZIMAGE" --initrd "$HOSPES_DEBIAN_INITRD" \
		--cpus 2 --memory 768M --disk "path=$HOSPES_GUEST_DISK" --grace 55 \
		--cmdline 'console=ttyS0 root=/dev/vda rw no_console_suspend systemd.show_status=0'
}

debian sleeper
ok "a systemd guest boots" guest_wait_for sleeper 'root@[a-z]*:.*#' 300 || guest_show sleeper
guest_send sleeper 'systemctl suspend'
ok "it suspends itself" guest_wait_for sleeper 'PM: suspend entry' 120 || guest_show sleeper
ok "until nothing of it runs" guest_wait_for sleeper '(OOM killer|remaining freezable tasks|Freezing remaining)' 60 || guest_show sleeper
kill -TERM "${guest_pid[sleeper]}"
guest_wait sleeper 90
is $? 0 "SIGTERM: it powers off" || guest_show sleeper
like "$(guest_log sleeper)" 'PM: suspend exit' "having woken up"

debian early
ok "one boots" guest_wait_for early 'Linux version' 120 || guest_show early
kill -TERM "${guest_pid[early]}"
guest_wait early 90
is $? 0 "SIGTERM: it powers off, once it has its driver" || guest_show early
