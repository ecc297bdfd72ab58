"""Mends four faults of QEMU's emulation in a copy of its program, so that guests in L1 run. Seen in QEMU
10.0.13; the first two are in helper_vmrun() (target/i386/tcg/system/svm_helper.c):

1. When VMRUN injects an interrupt, the function notes its vector as the CPU's pending exception,
   delivers it, and leaves the note behind. Should the CPU's loop be left before the guest's next
   exception or exit (which with -icount it is whenever the budget of instructions is used up, and
   otherwise when another thread wants this CPU to stop), the note is taken for an exception, and the
   same interrupt is delivered a second time, whether or not the guest has interrupts enabled. Guests
   then spin in locks that they hold themselves, or die of double faults. Mended by not noting it.
2. It asks for an interrupt window by a read, modify and write of interrupt_request, without QEMU's
   lock and not atomically, so that it can undo what another thread sets there at that moment: an
   interrupt of L1 is lost. Mended by making it atomic (as later versions of QEMU do).
3. Whenever any CPU loads a state of its FPU without a pending exception (XRSTOR, so at nearly each switch
   of L1's kernel), cpu_clear_ignne() clears a bit in the first CPU's hflags2, by a read, modify and write
   that is not atomic (target/i386/tcg/system/fpu_helper.c). In the same word the first CPU, in another
   thread, keeps whether it is in a guest with nested paging, and its global interrupt flag. When they
   meet, that CPU has left its guest and still translates by the guest's nested table: the next instruction
   ends the guest "once more", with the host's registers as the guest's. Guests hang in page faults or
   die of triple faults, and L1 itself may. Mended by making it atomic: the first CPU's own writes are
   then never undone.
4. A guest that writes CR8 asks for a virtual interrupt (helper_write_crN) after QEMU's lock was dropped, and
   tcg_handle_interrupt() aborts the whole emulator because the lock is not held; edk2's interrupt
   handlers do that. Mended by leaving the assertion out and setting the bit atomically, which is what
   the lock was for: the thread is the CPU's own.

The places are found by the function's symbol and by what the instructions do; where they do not look
as expected (another version, another compiler), the program stays as it is."""

import re
import struct


class NotFound(Exception):
    pass


class Program:
    """An ELF program of this machine's kind: functions by name, and its bytes."""

    def __init__(self, data):
        self.data = data
        if data[:6] != b"\x7fELF\x02\x01":
            raise NotFound("not a 64-bit little-endian ELF")
        table, count = struct.unpack_from("<Q", data, 0x28)[0], struct.unpack_from("<H", data, 0x3c)[0]
        # Of each section header: type, address, offset, size, link.
        self.sections = [struct.unpack_from("<4xI8xQQQI", data, table + 64 * i) for i in range(count)]

    def function(self, name):
        """(address, offset in the file, bytes)."""
        for kind, _, offset, size, link in self.sections:
            if kind != 11:  # SHT_DYNSYM
                continue
            names = self.sections[link][2]
            for at in range(offset, offset + size, 24):
                word, section, address, length = struct.unpack_from("<I2xHQQ", self.data, at)
                if self.data[names + word:names + word + len(name) + 1] == name + b"\0" and section:
                    _, base, start, _, _ = self.sections[section]
                    where = address - base + start
                    return address, where, bytes(self.data[where:where + length])
        raise NotFound(f"no symbol {name.decode()}")


def only(found, what):
    found = list(found)
    if len(found) != 1:
        raise NotFound(f"{what}: {len(found)} places")
    return found[0]


def forget_vector(program):
    """(offset, old, new) for fault 1."""
    address, where, code = program.function(b"helper_vmrun")
    target = program.function(b"do_interrupt_x86_hardirq")[0]
    # The field is where an NMI's number is put: movl $2, FIELD(%rbx).
    field = only(re.finditer(rb"\xc7\x83(.{4})\x02\0\0\0", code, re.DOTALL), "note of an NMI")[1]
    call = only((m.start() for m in re.finditer(rb"\xe8", code) if m.start() + 5 <= len(code) and
                 address + m.start() + 5 + struct.unpack_from("<i", code, m.start() + 1)[0] == target),
                "delivery of an interrupt")
    # mov %REG, FIELD(%rbx) in the straight line before the call.
    store = only((m for m in re.finditer(rb"\x89[\x83\x8b\x93\xb3\xbb]" + re.escape(field), code)
                  if call - 64 <= m.start() < call), "note of an interrupt")
    return where + store.start(), store[0], b"\x66\x0f\x1f\x44\0\0"


def lock_window(program):
    """(offset, old, new) for fault 2: orl $0x100, FIELD(%rbx), where FIELD lies before the registers,
    becomes lock btsl $8, FIELD(%rbx) and a nop."""
    _, where, code = program.function(b"helper_vmrun")
    place = only((m for m in re.finditer(rb"\x81\x8b(.{4})\0\x01\0\0", code, re.DOTALL)
                  if struct.unpack("<i", m[1])[0] < 0), "request of an interrupt window")
    return where + place.start(), place[0], b"\xf0\x0f\xba\xab" + place[1] + b"\x08\x90"


def clear_ignne(program):
    """(offset, old, new) for fault 3: andl $~0x80, FIELD(%REG) becomes lock btrl $7, FIELD(%REG) and a nop."""
    _, where, code = program.function(b"cpu_clear_ignne")
    place = only(re.finditer(rb"\x81([\xa0-\xa3\xa5-\xa7])(.{4})\x7f\xff\xff\xff", code, re.DOTALL),
                 "the bit's clearing")
    register = bytes([place[1][0] + 0x10])
    return where + place.start(), place[0], b"\xf0\x0f\xba" + register + place[2] + b"\x07\x90"


def take_virtual_interrupt(program):
    """(offset, old, new) for fault 4: behind the call of bql_locked(), test %al,%al; je; or %REG,FIELD(%rbx)
    become lock or %REG,FIELD(%rbx) and a nop."""
    address, where, code = program.function(b"tcg_handle_interrupt")
    target = program.function(b"bql_locked")[0]
    place = only((m for m in re.finditer(rb"\x84\xc0\x74.(\x09[\x83\x8b\x93\xab\xb3\xbb].{4})", code, re.DOTALL)
                  if m.start() >= 5 and code[m.start() - 5] == 0xe8 and
                  address + m.start() + struct.unpack_from("<i", code, m.start() - 4)[0] == target),
                 "assertion of the lock")
    return where + place.start(), place[0], b"\xf0" + place[1] + b"\x0f\x1f\x00"


def mend(source, destination):
    """Writes a mended copy of the program; returns what was done, a line for each fault."""
    with open(source, "rb") as f:
        data = bytearray(f.read())
    done = []
    for name, find in (("an injected interrupt is delivered once", forget_vector),
                       ("interrupt windows are asked for atomically", lock_window),
                       ("the first CPU's flags are changed atomically", clear_ignne),
                       ("a guest may write CR8", take_virtual_interrupt)):
        try:
            offset, old, new = find(Program(data))
            assert data[offset:offset + len(old)] == old and len(old) == len(new)
            data[offset:offset + len(new)] = new
            done.append(f"{name}: mended at {offset:#x}")
        except (NotFound, struct.error, IndexError) as e:
            done.append(f"{name}: NOT mended ({e}); guests may hang now and then")
    with open(destination, "wb") as f:
        f.write(data)
    return done
