#!/bin/bash
# testhost: --cpus 2 --memory 2G --timeout 300
# A guest on the first CPU is left alone by an FPU state that the other CPU loads. QEMU 10.0.13 lets these
# two meet in a word of flags, which tools/testhost.d/mend.py mends; without that, the guest hangs or dies here.
. "$(dirname "$0")/../lib.sh"
plan 2

# Each switch between the two loads the state of one.
taskset -c 1 perf bench sched pipe -l 100000000 >/dev/null 2>&1 &
busy=$!
line=$(printf 'x%.0s' {1..100})
guest_start vm hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" --memory 128M \
	--cpus 1,pin=0 --cmdline "console=ttyS0 quiet hospes.sh=\"yes $line | head -n 3000\""
guest_wait vm 200
is $? 0 "a guest that leaves for the host at each of 300,000 characters ends well" || guest_show vm
is "$(guest_log vm | tr -d '\r' | grep -c '^x\{100\}$')" 3000 "and has said all that it had to say"
kill "$busy"
