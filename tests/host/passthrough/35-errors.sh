#!/bin/bash
# testhost: --memory 5G --timeout 300 destructive
# An uncorrectable error above a passed-through device (an igb's physical function; QEMU's igb itself
# sends none, so its root port has it, and the kernel tells all below): said, and followed as
# on_error says; the guest lives.
. "$(dirname "$0")/../lib.sh"
destructive
[ "${HOSPES_TESTHOST:-}" = l1 ] || skip_all "errors are injected by the emulated host"
pf=$(device 8086:10c9) || skip_all "no igb"
plan 24
ok "the igb is VFIO's" vfio_bind "$pf"
cat >"$TMP/hospes.sh" <<'GUEST'
#!/bin/sh
d=$(ls -d /sys/bus/pci/drivers/igb/0000:* | head -n 1)
ip link set "$(ls "$d/net")" up
echo "driver has it"
read -r line </dev/ttyS0
echo "still here"
GUEST
guest_initrd "$HOSPES_GUEST_INITRD" "$TMP/initrd" "$TMP/hospes.sh"
start() {
	guest_start "$1" hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$TMP/initrd" --memory 256M \
		--verbose --passthrough "$pf,on_error=$1" --cmdline 'console=ttyS0 quiet'
}

# An error of the root port; the machine that has the device is reported.
inject() {
	ok "$1: an error is injected" l0 pcie_aer_inject_error rp1 COMP_ABORT
	ok "$1: the error is reported" guest_wait_for "$1" 'reported an uncorrectable error' 30 || diag "$(dmesg | tail -n 20)"
}
# goes_on NAME: the guest answers, and ends when told.
goes_on() {
	guest_send "$1" go
	ok "$1: the guest still answers" guest_wait_for "$1" '^still here' 60
	guest_wait "$1" 60
	is $? 0 "$1: and powers off" || guest_show "$1"
}

start log
ok "log: a guest drives it" guest_wait_for log '^driver has it' 60
inject log
unlike "$(guest_log log)" 'reset after an error' "log: nothing else is done"
goes_on log

start reset
ok "reset: a guest drives it" guest_wait_for reset '^driver has it' 60
inject reset
ok "reset: and the device reset" guest_wait_for reset 'reset after an error' 30
goes_on reset

start stop
ok "stop: a guest drives it" guest_wait_for stop '^driver has it' 60 || guest_show stop
inject stop
guest_wait stop 60
is $? 1 "stop: the machine ends" || guest_show stop
like "$(guest_log stop)" 'failed, and on_error is stop' "stop: and says why"

# What goes on after a pause is the embedder's decision.
cat >"$TMP/pause.py" <<'PYTHON'
import os, sys, time
sys.path.insert(0, os.environ["HOSPES_SRC"] + "/tests/host")
import hospes
vm = hospes.VM({
    "kernel": {"path": os.environ["HOSPES_GUEST_BZIMAGE"], "initrd": sys.argv[1], "cmdline": "console=ttyS0 quiet"},
    "memory": {"size": "256M"}, "consoles": [{"type": "serial", "in": 0, "out": 1}],
    "passthrough": [{"device": sys.argv[2], "on_error": "pause"}]})
vm.call("start")
end = time.monotonic() + 300
while vm.state() == hospes.RUNNING and time.monotonic() < end and not vm.wait(0.2):
    pass
os.write(1, b"machine is paused\n" if vm.state() == hospes.PAUSED else b"machine did not pause\n")
while not os.path.exists(sys.argv[3]) and not vm.wait(0.2):
    pass
os.write(1, b"machine resumes\n")
vm.call("resume")
ended = vm.wait(60)
outcome = vm.outcome()
vm.destroy()
sys.exit(0 if ended and outcome == hospes.POWERED_OFF else 1)
PYTHON
guest_start pause python3 "$TMP/pause.py" "$TMP/initrd" "$pf" "$TMP/go"
ok "pause: a guest drives it" guest_wait_for pause '^driver has it' 60 || guest_show pause
ok "pause: an error is injected" l0 pcie_aer_inject_error rp1 COMP_ABORT
ok "pause: the machine is paused" guest_wait_for pause '^machine is paused' 30 || diag "$(dmesg | tail -n 20)"
guest_send pause go
wait_for "$TMP/pause.log" '^still here' 3
is $? 1 "pause: the guest does not answer"
touch "$TMP/go"
ok "pause: resumed, it does" guest_wait_for pause '^still here' 60
guest_wait pause 90
is $? 0 "pause: and powers off" || guest_show pause
