#!/bin/bash
# testhost: --memory 5G --timeout 500 destructive
# A confined machine (--sandbox strict) does all that it is for: disk, net, console, an NVMe controller and a VF behind the
# virtual IOMMU, a reboot, 'hospes ctl', a strategy and a disk that come while it runs, the end. Its threads show it.
. "$(dirname "$0")/../lib.sh"
destructive
pf=$(device 8086:10c9) && nvme=$(device 1b36:0010) || skip_all "needs an igb and an NVMe controller"
plan 22
unset XDG_RUNTIME_DIR
ok "a VF appears" vfs_create "$pf" 1
vf=$(vfs "$pf")
ip addr add 10.9.0.1/24 dev "$(netdev "$pf")"
for d in "$vf" "$nvme"; do vfio_bind "$d" || bail "$d does not bind to vfio-pci"; done
ip tuntap add tap-box mode tap && ip link set tap-box up
truncate -s 64M "$TMP/data.img" "$TMP/more.img"

# A mark on the disk tells a guest that it has been rebooted.
mark='dd if=/dev/nvme0n1 bs=6 count=1 2>/dev/null | grep -q marked || { echo MARKING; printf marked | dd of=/dev/nvme0n1 conv=fsync; busybox reboot -f; }'
fio='fio --direct=1 --ioengine=libaio --verify=crc32c --do_verify=1 --output-format=terse --size=4M --rw=randwrite --bs=16k --iodepth=8 --name=v'
guest_start box hospes run --sandbox strict --grace 80 --name box --kernel "$HOSPES_GUEST_BZIMAGE" --memory 512M --cpus 2 --verbose \
	--disk "path=$HOSPES_GUEST_DISK,readonly=on" --disk "path=$TMP/data.img,id=data" --net tap=tap-box \
	--viommu --passthrough "$nvme,strategy=strict" --passthrough "$vf,strategy=deferred" \
	--cmdline "console=ttyS0 quiet root=/dev/vda ro iommu.strict=1 init=/usr/lib/hospes/init hospes.ip1=10.9.0.2/24 hospes.sh=\"$mark; \
$fio --filename=/dev/nvme0n1 --offset=1M && $fio --filename=/dev/vdb && echo VERIFIED; ping -q -c 3 -i 0.2 10.9.0.1 | sed -n s/transmitted/to\ PF/p; \
while [ ! -b /dev/vdc ]; do sleep 1; done; $fio --filename=/dev/vdc && echo ADDED; while sleep 1; do echo tick; done\""
ok "NVMe and disk: fio verifies" guest_wait_for box '^VERIFIED' 200 || guest_show box 60
like "$(guest_log box)" '^MARKING' "having been rebooted"
ok "the VF reaches its PF" guest_wait_for box '^3 packets to PF.* 0% packet loss' 60 || guest_show box 30

ctl() { timeout 60 hospes ctl box "$@"; }
sandbox=$(ctl status | jq -c .sandbox)
is "$(jq -c '[.layers, .lacks]' <<<"$sandbox")" '[["no_new_privs","landlock","seccomp"],{}]' "the status lists its layers"
is "$(jq -c .threads <<<"$sandbox")" '{"foreign":1,"vcpu":2,"io":1,"machine":1,"viommu":1}' "and the threads that are in them"
pid=${guest_pid[box]}
is "$(grep -h ^Seccomp: "/proc/$pid"/task/*/status | sort -u | tr -d '\t')" "Seccomp:2" "each thread is under a filter"
is "$(grep -h ^NoNewPrivs: "/proc/$pid"/task/*/status | sort -u | tr -d '\t')" "NoNewPrivs:1" "none gains a privilege"

ok "ctl pause" ctl pause
ok "ctl resume" ctl resume
ok "ctl set changes the disk's size" ctl set data.size=32M
is "$(ctl add --disk "path=$TMP/more.img,id=more" 2>&1)" more "a disk comes"
ok "the guest uses it" guest_wait_for box '^ADDED' 120 || guest_show box 40
ok "ctl remove" ctl remove more
n=$(($(grep -c 'HOSPES-GUEST: up' "$TMP/box.log") + 1))
ok "ctl reset" ctl reset
ok "the guest starts again" guest_times box 'HOSPES-GUEST: up' "$n" 120 || guest_show box 40
unlike "$(guest_log box)" 'system call|cannot' "no thread asked for what is not its own"
kill -USR1 "$pid"
ok "SIGUSR1 shows its registers" guest_wait_for box '^vCPU 0: rip [0-9a-f]{16} ' 20
kill -TERM "$pid"
guest_wait box 90
is $? 0 "SIGTERM: the guest powers off" || guest_show box 40
ok "its socket is gone" test ! -e /run/hospes/box.sock

guest_start free hospes run --sandbox off --name free --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" \
	--memory 128M --cmdline 'console=ttyS0 quiet hospes.sh="echo UP; sleep 1000"'
guest_wait_for free '^UP' 60
is "$(grep -h ^Seccomp: "/proc/${guest_pid[free]}"/task/*/status | sort -u | tr -d '\t')" "Seccomp:0" "off: no thread is"
guest_kill free
is "$(dmesg | grep -c 'sig=31')" 0 "the kernel stopped nothing"
