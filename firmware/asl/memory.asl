/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SSDT of machines whose memory comes and goes, in units: how the guest hears of them. The registers are in
 * devices/platform/plug.h. What differs by machine is in the run-time SSDT (acpi_ssdt.c): where the
 * registers are (\_SB.MPRT), the units, and \_SB.MNTF (number, event), which notifies one.
 */
DefinitionBlock ("", "SSDT", 2, "HOSPES", "MEMORY", 0x00000001)
{
    External (\_SB.MPRT, IntObj)
    External (\_SB.MNTF, MethodObj)

    Scope (\_SB)
    {
        OperationRegion (MREG, SystemIO, \_SB.MPRT, 0x40)
        Field (MREG, DWordAcc, NoLock, WriteAsZeros)
        {
            Offset (0x04),
            MEVT, 32, /* the next event: number | code << 16 */
            MEJC, 32, /* a number: that unit is given up */
            MANS, 32, /* number | status << 8 | event << 16 */
            Offset (0x20),
            MIN0, 32  /* bits: units that are there */
        }

        /* _STA of the unit with this bit in this word. */
        Method (MSTA, 2, NotSerialized)
        {
            If ((Arg0 >> Arg1) & One)
            {
                Return (0x0F)
            }

            Return (Zero)
        }

        /* _OST of a unit: number, event, status. */
        Method (MOST, 3, NotSerialized)
        {
            MANS = Arg0 | ((Arg2 & 0xFF) << 8) | ((Arg1 & 0xFFFF) << 16)
        }
    }

    Scope (\_GPE)
    {
        /* What is written back has been heard. */
        Method (_L08, 0, Serialized)
        {
            While (One)
            {
                Local0 = \_SB.MEVT
                If (Local0 == Zero)
                {
                    Break
                }

                \_SB.MEVT = Local0
                \_SB.MNTF (Local0 & 0xFFFF, Local0 >> 16)
            }
        }
    }
}
