#!/bin/bash
# testhost: --cpus 2 --timeout 1200 shared
# How a machine ends: power off, reboot, panic, triple fault, SIGTERM; each with its exit status, and
# nothing left behind.
. "$(dirname "$0")/../lib.sh"
plan 26

small=(--kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" --memory 128M)

ends() { # NAME STATUS SECONDS CMDLINE ARG…
	local name=$1 wanted=$2 seconds=$3 cmdline=$4 status=0
	shift 4
	guest_start "$name" hospes run "${small[@]}" --cmdline "console=ttyS0 quiet $cmdline" "$@"
	guest_wait "$name" "$seconds" || status=$?
	is "$status" "$wanted" "$name ends with $wanted" || guest_show "$name"
}

ends poweroff 0 60 'hospes.end=poweroff'
ends panic 3 60 'panic=-1 hospes.end=panic'
like "$(guest_log panic)" 'kernel panicked' "and says so"
like "$(guest_log panic)" 'vCPU 0: .*(rip|RIP)' "with the registers in the log"
ends triple 3 60 'reboot=t hospes.end=reboot'
like "$(guest_log triple)" 'triple fault' "and says so"

# A reboot goes on; the count in the guest's log tells it when it is done.
ends stop-on-reset 0 60 'hospes.end=reboot' --on-reset stop
for how in a b k p; do
	guest_start "reboot-$how" hospes run "${small[@]}" \
		--cmdline "console=ttyS0 quiet reboot=$how hospes.end=reboot"
	ok "reboot=$how: two boots" guest_times "reboot-$how" 'HOSPES-GUEST: up' 2 180
	guest_kill "reboot-$how"
done

guest_start button hospes run "${small[@]}" \
	--cmdline 'console=ttyS0 quiet hospes.sh="echo listening; sleep 1000"'
ok "a guest waits" guest_wait_for button '^listening' 60
kill -TERM "${guest_pid[button]}"
guest_wait button 90
is $? 0 "SIGTERM presses the power button, the guest powers off"
like "$(guest_log button)" 'HOSPES-GUEST: power button' "it was the button"

# The driver clears what was pressed before it: the button is pressed again.
guest_start early hospes run "${small[@]}" \
	--cmdline 'console=ttyS0 earlyprintk=ttyS0 hospes.sh="echo listening; sleep 1000"'
ok "a kernel has just begun" guest_wait_for early 'Linux version' 60
kill -TERM "${guest_pid[early]}"
guest_wait early 90
is $? 0 "SIGTERM: it powers off once it can"

guest_start deaf hospes run "${small[@]}" --grace 2 --cmdline 'console=ttyS0 quiet hospes.end=hang'
ok "a deaf guest runs" guest_wait_for deaf 'HOSPES-GUEST: end hang' 60
kill -USR1 "${guest_pid[deaf]}"
ok "SIGUSR1 shows its registers" guest_wait_for deaf '^vCPU 0: rip [0-9a-f]{16} ' 20
# Unless it was just about to fault its page in: then the next time.
shows_code() { kill -USR1 "${guest_pid[deaf]}" && guest_wait_for deaf '^code at [0-9a-f]+ \(gpa ' 2; }
ok "with the code it is at" retry 20 shows_code
like "$(guest_log deaf)" '"state": "running"' "after its status, and it runs on"
kill -TERM "${guest_pid[deaf]}"
guest_wait deaf 90
is $? 1 "after the grace time it is ended"
like "$(guest_log deaf)" 'did not power off within 2 s' "and told so"

guest_start impatient hospes run "${small[@]}" --cmdline 'console=ttyS0 quiet hospes.end=hang'
guest_wait_for impatient 'HOSPES-GUEST: end hang' 60
kill -TERM "${guest_pid[impatient]}"
guest_wait_for impatient 'asking the guest' 60
kill -TERM "${guest_pid[impatient]}"
guest_wait impatient 60
is $? 1 "a second SIGTERM ends it at once"

truncate -s 1M "$TMP/disk"
"${HOSPES_BUILD}/examples/orchestrator" "$HOSPES_GUEST_BZIMAGE" "$HOSPES_GUEST_INITRD" "$TMP/disk" \
	>"$TMP/orchestrator" 2>&1
is $? 0 "two machines in one process" || diag "$(tail -n 20 "$TMP/orchestrator")"
like "$(cat "$TMP/orchestrator")" 'greetings: 2' "both said hello"
"${HOSPES_BUILD}/examples/minimal" "$HOSPES_GUEST_BZIMAGE" "$HOSPES_GUEST_INITRD" \
	>"$TMP/minimal" 2>&1 </dev/null &
minimal=$!
ok "the forty-line embedder boots" wait_for "$TMP/minimal" 'HOSPES-GUEST: up' 60
kill -9 "$minimal"
