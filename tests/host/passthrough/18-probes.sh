#!/bin/bash
# testhost: --memory 4G --timeout 120 destructive
# The static probes (base/probe.h) as a tracer sees them: uprobes at "map" and "unmap" count what the ledger
# counts, with the arguments that the program gives.
. "$(dirname "$0")/../lib.sh"
destructive
edu=$(device 1234:11e8) || skip_all "no edu device"
vfio_bind "$edu" || bail "$edu does not bind to vfio-pci"
lib=$(readlink -f "$HOSPES_BUILD/machine/libhospes.so.0")
trace=/sys/kernel/tracing
[ -e $trace/uprobe_events ] || mount -t tracefs tracefs $trace

# place NAME: "OFFSET ARGUMENTS" of each of that name in the file; the arguments as uprobes want them.
place() {
	python3 - "$lib" "$1" <<'PYTHON'
import re, struct, sys
data, wanted = open(sys.argv[1], "rb").read(), sys.argv[2]
phoff, shoff = struct.unpack_from("<QQ", data, 0x20)
phsize, phnum, shsize, shnum, strings = struct.unpack_from("<HHHHH", data, 0x36)
loads = [h for h in (struct.unpack_from("<IIQQQQ", data, phoff + i * phsize) for i in range(phnum)) if h[0] == 1]
sections = [struct.unpack_from("<IIQQQQ", data, shoff + i * shsize) for i in range(shnum)]
names = sections[strings][4]
for name, _, _, _, at, size in sections:
    if not data[names + name:].startswith(b".note.stapsdt\0"):
        continue
    end = at + size
    while at < end:
        owner, length, _ = struct.unpack_from("<III", data, at)
        note = data[at + 12 + (owner + 3 & ~3):][:length]
        at += 12 + (owner + 3 & ~3) + (length + 3 & ~3)
        address = struct.unpack_from("<Q", note)[0]
        provider, probe, arguments = (s.decode() for s in note[24:].split(b"\0")[:3])
        if (provider, probe) == ("hospes", wanted):
            segment = next(h for h in loads if h[3] <= address < h[3] + h[5])
            kinds = [re.match(r"(-?)(\d)@(.*)", a).groups() for a in arguments.split()]
            # The kernel calls %rax and %eax %ax, %r8d %r8.
            register = r"%(?:[re]([a-d]x|[sd]i|[sb]p)|(r\d+)[dwb])\b"
            kinds = [(sign, size, re.sub(register, lambda m: "%" + (m[1] or m[2]), w)) for sign, size, w in kinds]
            where = [re.sub(r"^(-?\d*)\((%\w+)\)$", lambda m: f"{int(m[1] or 0):+d}({m[2]})", k[2]) for k in kinds]
            fetch = [f"a{i}={w}:{'s' if k[0] else 'u'}{int(k[1]) * 8}" for i, (k, w) in enumerate(zip(kinds, where))
                     if not w.startswith("$")]
            print(hex(address - segment[3] + segment[2]), *fetch)
PYTHON
}

probes=0
for name in map unmap; do
	n=0
	while read -r offset arguments; do
		echo "p:hospes/${name}_$n $lib:$offset $arguments" >>$trace/uprobe_events || diag "$name: $offset $arguments"
		n=$((n + 1)) probes=$((probes + 1))
	done < <(place $name)
	ok "$name is in the library" [ "$n" -gt 0 ]
done
is "$(find $trace/events/hospes -name '*_[0-9]*' | wc -l)" "$probes" "the kernel takes each as a uprobe"
echo 1 >$trace/events/hospes/enable

python3 - "$edu" >"$TMP/status" <<'PYTHON'
import ctypes, os, sys
sys.path.insert(0, os.environ["HOSPES_SRC"] + "/tests/host")
import hospes
vm = hospes.VM({"kernel": {"path": os.environ["HOSPES_GUEST_BZIMAGE"], "cache": False}, "memory": {"size": "128M"},
                "passthrough": [{"device": sys.argv[1]}]})
status = ctypes.c_char_p()
hospes.lib.hospes_vm_status(vm.vm, ctypes.byref(status), ctypes.byref(vm.error))
print(status.value.decode())
vm.destroy()
PYTHON
is $? 0 "a machine was made, and gone" || diag "$(cat "$TMP/status")"
echo 0 >$trace/events/hospes/enable
cp $trace/trace "$TMP/trace"
echo >$trace/uprobe_events
mapped=$(grep -c ' map_[0-9]*:' "$TMP/trace")
is "$mapped" "$(jq '[.iommu.spaces[].operations.map.calls] | add' "$TMP/status")" "as many maps as the ledger has" ||
	diag "$(tail -n 20 "$TMP/trace")"
is "$(sed -nE 's/.* map_[0-9]+: .* a1=([0-9]+).*/\1/p' "$TMP/trace" | jq -s add)" \
	"$(jq '[.iommu.spaces[].mapped_bytes] | add' "$TMP/status")" "of as many bytes" || diag "$(tail -n 20 "$TMP/trace")"
ok "and each is unmapped at the end" grep -q ' unmap_[0-9]*:' "$TMP/trace"
done_testing
