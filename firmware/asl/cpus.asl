/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SSDT of machines whose processors come and go: how the guest hears of them. The registers are in
 * devices/platform/plug.h. What differs by machine is in the run-time SSDT (acpi_ssdt.c): where the
 * registers are (\_SB.CPRT), the processors, and \_SB.CNTF (number, event), which notifies one.
 */
DefinitionBlock ("", "SSDT", 2, "HOSPES", "CPUS", 0x00000001)
{
    External (\_SB.CPRT, IntObj)
    External (\_SB.CNTF, MethodObj)

    Scope (\_SB)
    {
        OperationRegion (CREG, SystemIO, \_SB.CPRT, 0x40)
        Field (CREG, DWordAcc, NoLock, WriteAsZeros)
        {
            Offset (0x04),
            CEVT, 32, /* the next event: number | code << 16 */
            CEJC, 32, /* a number: that processor is given up */
            CANS, 32, /* number | status << 8 | event << 16 */
            Offset (0x20),
            CIN0, 32, /* bits: processors 0 to 31 are there, and so on */
            CIN1, 32,
            CIN2, 32,
            CIN3, 32,
            CIN4, 32,
            CIN5, 32,
            CIN6, 32,
            CIN7, 32
        }

        /* _STA of the processor with this bit in this word. */
        Method (CSTA, 2, NotSerialized)
        {
            If ((Arg0 >> Arg1) & One)
            {
                Return (0x0F)
            }

            Return (Zero)
        }

        /* _OST of a processor: number, event, status. */
        Method (COST, 3, NotSerialized)
        {
            CANS = Arg0 | ((Arg2 & 0xFF) << 8) | ((Arg1 & 0xFFFF) << 16)
        }
    }

    Scope (\_GPE)
    {
        /* What is written back has been heard. */
        Method (_L00, 0, Serialized)
        {
            While (One)
            {
                Local0 = \_SB.CEVT
                If (Local0 == Zero)
                {
                    Break
                }

                \_SB.CEVT = Local0
                \_SB.CNTF (Local0 & 0xFFFF, Local0 >> 16)
            }
        }
    }
}
