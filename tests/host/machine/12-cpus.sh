#!/bin/bash
# testhost: --cpus 2 --timeout 900 shared
# Many vCPUs: 16 of them come up, in the shape that was asked for, with x2APIC, and power off works.
. "$(dirname "$0")/../lib.sh"

# The shape as the guest's kernel has it: of each CPU, which share its core and its package.
# shellcheck disable=SC2016 # for the guest
shape='cd /sys/devices/system/cpu; echo online $(cat online); grep -c ^processor /proc/cpuinfo;
echo packages $(cat cpu*/topology/physical_package_id | sort -u | wc -l);
echo cores $(cat cpu*/topology/core_cpus_list | sort -u | wc -l);
echo threads of cpu0: $(cat cpu0/topology/core_cpus_list);
echo package of cpu0: $(cat cpu0/topology/package_cpus_list);
echo apics $(grep ^apicid /proc/cpuinfo | sort -u | wc -l);
for i in $(seq 0 15); do taskset -c $i sh -c :; done && echo each CPU ran a program'
shape=${shape//$'\n'/ }

# boot NAME CPUS: a guest that prints its shape.
boot() {
	guest_start "$1" hospes run --kernel "$HOSPES_GUEST_BZIMAGE" --initrd "$HOSPES_GUEST_INITRD" \
		--memory 512M --cpus "$2" --cmdline "console=ttyS0 hospes.test=info hospes.sh=\"$shape\""
	guest_wait "$1" 240
	is $? 0 "$1: 16 vCPUs boot and power off" || guest_show "$1"
}

# shaped NAME PACKAGES CORES THREADS PACKAGE
shaped() {
	local log
	log=$(guest_log "$1" | tr -d '\r')
	like "$log" '^cpus 16$' "$1: the guest sees 16"
	like "$log" '^online 0-15$' "$1: all are online"
	like "$log" "^packages $2\$" "$1: $2 sockets"
	like "$log" "^cores $3\$" "$1: $3 cores"
	like "$log" "^threads of cpu0: $4\$" "$1: CPUs $4 are one core"
	like "$log" "^package of cpu0: $5\$" "$1: CPUs $5 are one socket"
	like "$log" '^apics 16$' "$1: each has its own APIC id"
	like "$log" 'Switched APIC routing to: (physical|cluster) x2apic' "$1: in x2APIC mode"
	like "$log" '^each CPU ran a program$' "$1: each runs programs"
	unlike "$log" 'ACPI (Error|Warning|BIOS Error|Exception)|\[Firmware (Bug|Warn)\]|Call Trace|Unsupported|rcu.*stall' \
		"$1: the kernel has nothing to complain of"
}

boot flat 16
shaped flat 1 16 0 0-15
boot smt 16,sockets=2,cores=4,threads=2
shaped smt 2 8 0-1 0-7
done_testing
