/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DSDT: the part of the namespace that is code, or is the same in every machine. What differs by
 * machine (windows, routing, which devices there are) is data, built at start by acpi_ssdt.c into an
 * SSDT, whose Scopes name the devices declared here.
 */
DefinitionBlock ("", "DSDT", 2, "HOSPES", "HOSPES", 0x00000001)
{
    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_UID, Zero)
            Name (_SEG, Zero)
            Name (_BBN, Zero)
            /* _CRS and _PRT: SSDT */

            /* PCI Firmware 3.3, 4.5.1: everything PCIe is the system's to control. */
            Method (_OSC, 4, Serialized)
            {
                If (SizeOf (Arg3) < 12)
                {
                    If (SizeOf (Arg3) >= 4)
                    {
                        CreateDWordField (Arg3, Zero, CDW0)
                        CDW0 |= 0x02 /* failure */
                    }

                    Return (Arg3)
                }

                CreateDWordField (Arg3, Zero, CDW1)
                If (Arg0 != ToUUID ("33db4d5b-1ff7-401c-9657-7441c03dd766"))
                {
                    CDW1 |= 0x04 /* unrecognised UUID */
                    Return (Arg3)
                }

                If (Arg1 != One)
                {
                    CDW1 |= 0x08 /* unrecognised revision */
                    Return (Arg3)
                }

                CreateDWordField (Arg3, 8, CDW3)
                /* native hot plug, PME, AER, capability structure */
                Local0 = CDW3 & 0x1D
                If (Local0 != CDW3)
                {
                    CDW1 |= 0x10 /* some were masked */
                    CDW3 = Local0
                }

                Return (Arg3)
            }

            Method (_DSM, 4, NotSerialized)
            {
                If (Arg0 == ToUUID ("e5c937d0-3553-4d7a-9117-ea4d19c3434d"))
                {
                    If (Arg2 == Zero)
                    {
                        Return (Buffer (One) { 0x21 }) /* functions 0 and 5 */
                    }

                    If (Arg2 == 0x05)
                    {
                        Return (Zero) /* keep the resources as they are at boot */
                    }
                }

                Return (Buffer (One) { 0x00 })
            }
        }

        /* Virtual Machine Generation ID (Microsoft's specification): 16 bytes in memory, at an address
         * that acpi.c and acpi.h have too. They are others, and the guest hears of it, when the machine is
         * made from a snapshot; Linux then reseeds its random numbers. */
        Device (VMGI)
        {
            Name (_HID, "HSPS0001")
            Name (_CID, "VM_Gen_Counter")
            Name (_DDN, "VM_Gen_Counter")
            Name (ADDR, Package (0x02) { 0x000FFFC0, Zero })
        }

        Device (GED)
        {
            Name (_HID, "ACPI0013")
            Name (_UID, Zero)
            Name (_CRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive) { 5 }
            })
            Method (_EVT, 1, Serialized)
            {
                Notify (\_SB.VMGI, 0x80)
            }
        }

        /* What is decoded outside of PCI: the ECAM window, in _CRS (SSDT). */
        Device (MBRD)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, Zero)
        }
    }
}
