#!/bin/bash
# testhost: --cpus 2 --timeout 900 shared
# Real gdb debugs a guest of two vCPUs: hardware breakpoints in its kernel and in a program of it, steps, memory,
# registers, a watchpoint, Ctrl-C; then the guest ends as if nothing had been. (Breakpoints in memory are in
# tests/native: the CPU that the test host emulates does not let KVM intercept int3.)
. "$(dirname "$0")/../lib.sh"
plan 17

program=$HOSPES_BUILD/tests/host/machine/debuggee
socket=$TMP/gdb
cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
/debuggee &
echo "mkdir is at $(sed -n 's/ . __x64_sys_mkdir$//p' /proc/kallsyms)"
while kill -0 $! 2>/dev/null; do mkdir /d; rmdir /d; done
echo the end
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$program" "$TMP/hospes.sh"

guest_start vm hospes run --name vm --gdb "$socket,wait=on" --cpus 2 --memory 128M --kaslr off \
	--kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --console serial --cmdline 'console=ttyS0 quiet'
ok "the machine has its socket" retry 30 test -S "$socket"
is "$(stat -c '%a %U' "$socket")" "600 root" "which is root's alone"
is "$(timeout 60 hospes ctl vm status | jq -c '[.state, .debugger.attached, .debugger.stopped]')" '["paused",false,false]' \
	"the guest waits for a debugger"

# gdb_run COMMAND…: a session, which ends by detaching.
gdb_run() {
	local arguments=() command
	for command in 'set pagination off' 'set confirm off' "target remote $socket" "$@"; do
		arguments+=(-ex "$command")
	done
	timeout 300 gdb -nx -batch "${arguments[@]}" "$program" 2>&1
}
gdb_run 'info threads' 'printf "begins at %lx\n", $pc' 'stepi' detach >"$TMP/first"
like "$(cat "$TMP/first")" 'Thread 2 .*vCPU 1 \[waiting\]' "gdb sees the vCPUs as threads"
like "$(cat "$TMP/first")" 'begins at [0-9a-f]+' "and the first before its first instruction"
ok "once it has detached, the guest boots" guest_wait_for vm '^mkdir is at ' 90
mkdir=0x$(sed -n 's/^mkdir is at \([0-9a-f]*\).*/\1/p' "$TMP/vm.log" | head -n 1)

# shellcheck disable=SC2016 # gdb's variables
gdb_run "hbreak *$mkdir" continue 'printf "hardware %lx\n", $pc' 'stepi' 'printf "step %lx\n", $pc' delete \
	'set $old = $r15' 'set $r15 = 0x1234567890abcdef' \
	'printf "r15 %lx\n", $r15' 'set $r15 = $old' 'printf "cr0 %lx efer %lx\n", $cr0, $efer' delete \
	detach >"$TMP/kernel" 2>&1
mkdir=${mkdir#0x}
like "$(cat "$TMP/kernel")" "^hardware $mkdir" "a hardware breakpoint stops the kernel"
ok "a step goes one instruction further" grep -qE "^step [0-9a-f]+" "$TMP/kernel"
unlike "$(cat "$TMP/kernel")" "^step $mkdir\$" "and no less"
like "$(cat "$TMP/kernel")" '^r15 1234567890abcdef' "a register is changed"
like "$(cat "$TMP/kernel")" '^cr0 8[0-9a-f]+ efer d01' "control registers are read"

# shellcheck disable=SC2016
gdb_run 'hbreak tick' continue 'printf "user %d\n", $edi' delete \
	'set $before = counter' delete 'watch counter' continue 'printf "watched %d\n", counter - $before' delete \
	detach >"$TMP/user" 2>&1
like "$(cat "$TMP/user")" '^user 7' "a hardware breakpoint stops a program of the guest"
like "$(cat "$TMP/user")" '^watched 7' "and a watchpoint, behind the access"

# Ctrl-C, while the guest runs.
timeout 300 gdb -nx -batch -ex "target remote $socket" -ex continue -ex 'printf "after it\n"' \
	-ex 'hbreak tick' -ex continue -ex 'set var counter = 200000' -ex delete -ex detach "$program" >"$TMP/interrupt" 2>&1 &
debugger=$!
ok "the guest runs under gdb" wait_for "$TMP/interrupt" 'Continuing|warning|0x' 60
is_running() { [ "$(timeout 60 hospes ctl vm status | jq -c '[.state, .debugger.attached]')" = '["running",true]' ]; }
retry 60 is_running
pkill -INT -P "$debugger" gdb
wait "$debugger"
like "$(cat "$TMP/interrupt")" 'SIGINT' "Ctrl-C stops it"
ok "memory that gdb has changed is the program's" guest_wait_for vm '^counted to 200007' 60
guest_wait vm 60
is "$?" 0 "and the guest ends by itself"
for log in first kernel user interrupt vm.log; do [ "$tap_failed" = 0 ] || diag "$log: $(cat "$TMP/$log")"; done
