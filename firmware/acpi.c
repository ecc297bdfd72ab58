/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables and where everything goes.
 *
 *   0xe0000  RSDP                 ACPI data: DSDT, SSDT, FADT, MADT, MCFG, XSDT follow
 *   0xf0000  SMBIOS _SM3_ and structures, FACS: reserved
 *   0xffff0  the BIOS's entry after a reset, which resets the machine: reserved
 *
 * Not hardware-reduced: PM1 registers, so that the power button and S5 need neither interpreted
 * code nor GPEs (of which there is one where processors come and go, and one for memory), and the
 * 8259 and PIT that KVM has anyway are declared as they are. The PM timer is the clock of a guest
 * without kvmclock whose TSC cannot be trusted.
 */
#include <errno.h>
#include <string.h>

#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/rand.h"
#include "firmware/acpi_impl.h"

#include "cpus.hex"
#include "dsdt.hex"
#include "memory.hex"

enum {
	ACPI_AREA_GPA = 0xe0000,
	ACPI_AREA_BYTES = 0x10000,
	SMBIOS_AREA_GPA = 0xf0000,
	SMBIOS_AREA_BYTES = 0x10000 - 128,
	FACS_GPA = SMBIOS_AREA_GPA + SMBIOS_AREA_BYTES,
	FACS_BYTES = 64,
	GENERATION_BYTES = 16,
	BIOS_ENTRY_GPA = 0xffff0,
	GENERATION_GPA = FACS_GPA + FACS_BYTES, /* as asl/dsdt.asl has it */
	RSDP_BYTES = 36,

	LAPIC_GPA = 0xfee00000u, /* where KVM's in-kernel irqchip has them */
	IOAPIC_GPA = 0xfec00000u,

	TABLE_ALIGN = 16,
	MADT_X2APIC = 9,
};

/* ACPI 6.5, table 5.9 and 5.10 */
enum {
	FADT_BYTES = 276,
	FADT_WBINVD = 1 << 0,
	FADT_PROC_C1 = 1 << 2,
	FADT_NO_SLEEP_BUTTON = 1 << 5,
	FADT_NO_RTC_WAKE = 1 << 6,
	FADT_TIMER_32 = 1 << 8,
	FADT_RESET_REGISTER = 1 << 10,
	FADT_HEADLESS = 1 << 12,
	/* Clear, and so said to be absent: 8042 (bit 1), legacy devices that no table lists (bit
	   0). */
	BOOT_NO_VGA = 1 << 2,

	CMOS_CENTURY = 0x32,
	GPE_BYTES = 2, /* of each block: status and enable, of 8 events */
	GPE1_BASE = 8,
};

/* The area under construction. */
struct tables {
	uint8_t *bytes; /* ACPI_AREA_BYTES */
	size_t used;
};

static uint8_t sum_of(const uint8_t *bytes, size_t n)
{
	uint8_t sum = 0;

	while (n--)
		sum = (uint8_t)(sum + *bytes++);
	return sum;
}

/* Append a whole table, with its length and checksum put right; its gpa in *gpa. */
static int place(struct tables *t, const uint8_t *table, size_t len, uint64_t *gpa)
{
	size_t at = align_up(t->used, TABLE_ALIGN);

	if (at > ACPI_AREA_BYTES || len > ACPI_AREA_BYTES - at)
		return -E2BIG;
	uint8_t *dst = t->bytes + at;
	memcpy(dst, table, len);
	store_le32(dst + 4, (uint32_t)len);
	dst[9] = 0;
	dst[9] = (uint8_t)-sum_of(dst, len);
	t->used = at + len;
	*gpa = ACPI_AREA_GPA + at;
	return 0;
}

/* Generic Address Structure of a port (5.2.3.2): access size is 1 byte, 2, 4, 8 for 1 to 4. */
static void port_gas(uint8_t g[static 12], uint16_t port, uint8_t bits, uint8_t access)
{
	g[0] = 1;
	g[1] = bits;
	g[2] = 0;
	g[3] = access;
	store_le64(g + 4, port);
}

static int place_fadt(struct tables *t, const struct acpi_config *c, uint64_t dsdt, uint64_t *gpa)
{
	uint8_t f[FADT_BYTES];

	memset(f, 0, sizeof(f));
	acpi_header(f, "FACP", 6);
	store_le32(f + 36, FACS_GPA);
	store_le32(f + 40, (uint32_t)dsdt);
	f[45] = 4; /* preferred profile: enterprise server */
	store_le16(f + 46, (uint16_t)c->platform->sci_gsi);
	/* SMI_CMD, ACPI_ENABLE and ACPI_DISABLE are 0: always in ACPI mode. */
	store_le32(f + 56, c->pm_port);
	store_le32(f + 64, c->pm_port + 4u);
	store_le32(f + 76, c->pm_port + 8u);
	f[88] = 4; /* PM1_EVT_LEN */
	f[89] = 2; /* PM1_CNT_LEN */
	f[91] = 4; /* PM_TMR_LEN */
	if (c->cpus_port) {
		store_le32(f + 80, c->cpus_port); /* GPE0_BLK */
		f[92] = GPE_BYTES;
		port_gas(f + 220, c->cpus_port, 8 * GPE_BYTES, 1);
	}
	if (c->memory_port) {
		store_le32(f + 84, c->memory_port); /* GPE1_BLK */
		f[93] = GPE_BYTES;
		f[94] = GPE1_BASE;
		port_gas(f + 232, c->memory_port, 8 * GPE_BYTES, 1);
	}
	store_le16(f + 96, 0xfff); /* C2 latency: not supported */
	store_le16(f + 98, 0xfff); /* C3 */
	f[108] = CMOS_CENTURY;
	store_le16(f + 109, BOOT_NO_VGA);
	store_le32(f + 112, FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLEEP_BUTTON | FADT_NO_RTC_WAKE |
				    FADT_TIMER_32 | FADT_RESET_REGISTER | FADT_HEADLESS);
	port_gas(f + 116, c->reset_port, 8, 1);
	f[128] = c->reset_value;
	f[131] = 5; /* minor version */
	store_le64(f + 140, dsdt);
	port_gas(f + 148, c->pm_port, 32, 2);
	port_gas(f + 172, (uint16_t)(c->pm_port + 4), 16, 2);
	port_gas(f + 208, (uint16_t)(c->pm_port + 8), 32, 3);
	memcpy(f + 268, "HOSPES\0\0", 8); /* hypervisor vendor */
	return place(t, f, sizeof(f), gpa);
}

static void madt_override(struct aml *a, uint8_t irq, uint32_t gsi, uint16_t flags)
{
	uint8_t e[10] = {2, sizeof(e), 0 /* ISA */, irq};

	store_le32(e + 4, gsi);
	store_le16(e + 8, flags);
	aml_bytes(a, e, sizeof(e));
}

/* A processor whose id does not fit the 8 bits of a local APIC entry (255 is broadcast) gets an
 * x2APIC entry (5.2.12.12). */
size_t acpi_processor(uint8_t e[static ACPI_PROCESSOR_BYTES], const struct arch_topology *topology,
		      unsigned int number, bool enabled)
{
	uint32_t id = arch_cpu_id(topology, number), flags = enabled ? 1 << 0 : 1 << 1;

	memset(e, 0, ACPI_PROCESSOR_BYTES);
	if (id < 255 && number < 255) {
		e[1] = 8;
		e[2] = (uint8_t)number;
		e[3] = (uint8_t)id;
		store_le32(e + 4, flags);
	} else {
		e[0] = MADT_X2APIC;
		e[1] = 16;
		store_le32(e + 4, id);
		store_le32(e + 8, flags);
		store_le32(e + 12, number);
	}
	return e[1];
}

/* Has one of them an x2APIC entry? */
static bool madt_processors(struct aml *a, const struct acpi_config *c)
{
	uint8_t e[ACPI_PROCESSOR_BYTES];
	bool x2apic = false;

	for (unsigned int i = 0; i < c->topology->cpus; i++) {
		bool in = !c->cpus_port || c->cpus_in[i / 32] >> i % 32 & 1;

		aml_bytes(a, e, acpi_processor(e, c->topology, i, in));
		x2apic |= e[0] == MADT_X2APIC;
	}
	return x2apic;
}

static int place_madt(struct tables *t, const struct acpi_config *c, uint64_t *gpa)
{
	enum { LEVEL_HIGH = 0x0d };
	uint8_t head[ACPI_HEADER_BYTES + 8];
	uint8_t ioapic[12] = {1, sizeof(ioapic), 0};
	uint8_t nmi[6] = {4, sizeof(nmi), 0xff /* all */, 0, 0, 1 /* LINT1 */};
	uint8_t x2nmi[12] = {0x0a, sizeof(x2nmi), 0, 0, 0xff, 0xff, 0xff, 0xff, 1};
	struct aml a = {0};

	acpi_header(head, "APIC", 5);
	store_le32(head + 36, LAPIC_GPA);
	store_le32(head + 40, 1); /* there is an 8259 pair too */
	aml_bytes(&a, head, sizeof(head));

	bool x2apic = madt_processors(&a, c);

	store_le32(ioapic + 4, IOAPIC_GPA);
	aml_bytes(&a, ioapic, sizeof(ioapic));

	madt_override(&a, 0, 2, 0); /* the PIT is wired to pin 2 */
	if (c->platform->sci_gsi < 16)
		madt_override(&a, (uint8_t)c->platform->sci_gsi, c->platform->sci_gsi, LEVEL_HIGH);
	for (uint32_t gsi = c->platform->intx_gsi; gsi < c->platform->intx_gsi + 4; gsi++)
		if (gsi < 16 && gsi != c->platform->sci_gsi)
			madt_override(&a, (uint8_t)gsi, gsi, LEVEL_HIGH);

	aml_bytes(&a, nmi, sizeof(nmi));
	if (x2apic)
		aml_bytes(&a, x2nmi, sizeof(x2nmi));

	int r = a.failed ? -ENOMEM : place(t, a.bytes, a.len, gpa);
	aml_done(&a);
	return r;
}

static int place_mcfg(struct tables *t, const struct acpi_config *c, uint64_t *gpa)
{
	uint8_t m[ACPI_HEADER_BYTES + 8 + 16];

	memset(m, 0, sizeof(m));
	acpi_header(m, "MCFG", 1);
	store_le64(m + 44, c->platform->pci.ecam_gpa);
	m[54] = 0; /* first bus */
	m[55] = c->pci_last_bus;
	return place(t, m, sizeof(m), gpa);
}

static int place_ssdt(struct tables *t, const struct acpi_config *c, uint64_t *gpa)
{
	struct aml a = {0};

	acpi_ssdt(&a, c);
	int r = a.failed ? -ENOMEM : place(t, a.bytes, a.len, gpa);
	aml_done(&a);
	return r;
}

/* VIOT (ACPI 6.5, 5.2.33): the virtual IOMMU, then a range of one requester id for each function
 * behind it. An endpoint's number is its requester id. With no endpoint, Linux 6.12 knows no
 * firmware node of the IOMMU, takes every function for one behind it, and oopses: so its own
 * function is listed then, which Linux passes over. */
static int place_viot(struct tables *t, const struct acpi_viommu *v, uint64_t *gpa)
{
	enum {
		NODES = ACPI_HEADER_BYTES + 12,
		IOMMU_BYTES = 16,
		RANGE_BYTES = 24,
		NODE_PCI_RANGE = 1,
		NODE_VIRTIO_IOMMU_PCI = 3,
	};
	const uint16_t *endpoints = v->n ? v->endpoints : &v->requester;
	unsigned int n = v->n ? v->n : 1;
	size_t len = NODES + IOMMU_BYTES + (size_t)n * RANGE_BYTES;
	cleanup_free uint8_t *viot = calloc(1, len);
	uint8_t *node;

	if (!viot)
		return -ENOMEM;
	acpi_header(viot, "VIOT", 0);
	store_le16(viot + 36, (uint16_t)(n + 1));
	store_le16(viot + 38, NODES);
	node = viot + NODES;
	node[0] = NODE_VIRTIO_IOMMU_PCI;
	store_le16(node + 2, IOMMU_BYTES);
	store_le16(node + 6, v->requester);
	node += IOMMU_BYTES;
	for (unsigned int i = 0; i < n; i++, node += RANGE_BYTES) {
		node[0] = NODE_PCI_RANGE;
		store_le16(node + 2, RANGE_BYTES);
		store_le32(node + 4, endpoints[i]);
		store_le16(node + 12, endpoints[i]); /* first and last; the segments are 0 */
		store_le16(node + 14, endpoints[i]);
		store_le16(node + 16, NODES);
	}
	return place(t, viot, len, gpa);
}

/* XSDT: DSDT is the FADT's, everything else is listed. */
static int place_all(struct tables *t, const struct acpi_config *c, uint64_t *xsdt)
{
	enum { LISTED_MAX = 7 };
	uint8_t x[ACPI_HEADER_BYTES + 8 * LISTED_MAX];
	uint64_t dsdt, listed[LISTED_MAX];
	unsigned int n = 4;
	int r;

	if ((r = place(t, dsdt_aml_code, sizeof(dsdt_aml_code), &dsdt)) ||
	    (r = place_fadt(t, c, dsdt, &listed[0])) || (r = place_madt(t, c, &listed[1])) ||
	    (r = place_mcfg(t, c, &listed[2])) || (r = place_ssdt(t, c, &listed[3])))
		return r;
	if (c->cpus_port && (r = place(t, cpus_aml_code, sizeof(cpus_aml_code), &listed[n++])))
		return r;
	if (c->memory_port &&
	    (r = place(t, memory_aml_code, sizeof(memory_aml_code), &listed[n++])))
		return r;
	if (c->viommu && (r = place_viot(t, c->viommu, &listed[n++])))
		return r;
	acpi_header(x, "XSDT", 1);
	for (unsigned int i = 0; i < n; i++)
		store_le64(x + ACPI_HEADER_BYTES + 8 * i, listed[i]);
	return place(t, x, ACPI_HEADER_BYTES + 8 * n, xsdt);
}

/* 5.2.5.3: the first checksum covers the 20 bytes of ACPI 1.0, the second all of it. */
static void rsdp(uint8_t r[static RSDP_BYTES], uint64_t xsdt)
{
	memset(r, 0, RSDP_BYTES);
	memcpy(r, "RSD PTR ", 8);
	memcpy(r + 9, "HOSPES", 6);
	r[15] = 2;
	store_le32(r + 20, RSDP_BYTES);
	store_le64(r + 24, xsdt);
	r[8] = (uint8_t)-sum_of(r, 20);
	r[32] = (uint8_t)-sum_of(r, RSDP_BYTES);
}

static void facs(uint8_t f[static FACS_BYTES])
{
	memset(f, 0, FACS_BYTES);
	memcpy(f, "FACS", 4);
	store_le32(f + 4, FACS_BYTES);
	f[32] = 2; /* version */
}

/* Systems that find no other way (reboot=bios of Linux) jump to f000:fff0 or ffff:0 in real mode.
 * No BIOS is there; the code makes the same reset as the port that it writes. */
static void bios_entry(uint8_t *to, const struct acpi_config *config)
{
	const uint8_t code[] = {
		0xba,
		(uint8_t)config->reset_port,
		(uint8_t)(config->reset_port >> 8), /* mov dx */
		0x30,
		0xc0,
		0xee, /* xor al, al; out dx, al: the bit has to rise */
		0xb0,
		config->reset_value,
		0xee, /* mov al; out dx, al */
		0xf4,
		0xeb,
		0xfd, /* hlt, again */
	};

	static_assert(sizeof(code) <= 16, "up to the end of the first MiB");
	memcpy(to, code, sizeof(code));
}

static int build(uint8_t *area, const struct acpi_config *config, struct err *err)
{
	struct tables t = {.bytes = area, .used = RSDP_BYTES};
	uint64_t xsdt;
	size_t used;

	int r = place_all(&t, config, &xsdt);
	if (r)
		return err_set(err, r,
			       r == -E2BIG ? "ACPI tables of %u CPUs do not fit below 1 MiB"
					   : "ACPI tables of %u CPUs: out of memory",
			       config->topology->cpus);
	rsdp(area, xsdt);

	uint8_t *reserved = area + (SMBIOS_AREA_GPA - ACPI_AREA_GPA);
	r = smbios_build(config, SMBIOS_AREA_GPA, reserved, SMBIOS_AREA_BYTES, &used);
	if (r)
		return err_set(err, r,
			       "SMBIOS tables of %u sockets and %u strings do not fit below 1 MiB",
			       config->topology->sockets, config->n_oem_strings);
	facs(area + (FACS_GPA - ACPI_AREA_GPA));
	bios_entry(area + (BIOS_ENTRY_GPA - ACPI_AREA_GPA), config);
	return rand_bytes(area + (GENERATION_GPA - ACPI_AREA_GPA), GENERATION_BYTES)
		       ? err_set(err, -EIO, "no random numbers from the host")
		       : 0;
}

int acpi_new_generation(struct gmem *gmem)
{
	uint8_t id[GENERATION_BYTES];

	static_assert(GENERATION_GPA == 0xfffc0, "as asl/dsdt.asl has it");
	static_assert(GENERATION_GPA + GENERATION_BYTES <= BIOS_ENTRY_GPA, "beside its neighbours");
	return rand_bytes(id, sizeof(id)) ? -EIO : gmem_write(gmem, GENERATION_GPA, id, sizeof(id));
}

int acpi_build(struct gmem *gmem, const struct acpi_config *config, struct err *err)
{
	enum { AREA_BYTES = 1 * MiB - ACPI_AREA_GPA };
	cleanup_free uint8_t *area = calloc(1, AREA_BYTES);

	if (!area)
		return err_set(err, -ENOMEM, "ACPI tables: out of memory");
	int r = build(area, config, err);
	if (r)
		return r;
	r = gmem_write(gmem, ACPI_AREA_GPA, area, AREA_BYTES);
	return r ? err_set(err, r, "ACPI tables: no guest memory at 0x%x", ACPI_AREA_GPA) : 0;
}

void acpi_places(struct kernel_tables *ret)
{
	*ret = (struct kernel_tables){.rsdp_gpa = ACPI_AREA_GPA, .n_reserved = 2};
	ret->reserved[0].gpa = ACPI_AREA_GPA;
	ret->reserved[0].size_bytes = ACPI_AREA_BYTES;
	ret->reserved[0].acpi = true;
	ret->reserved[1].gpa = SMBIOS_AREA_GPA;
	ret->reserved[1].size_bytes = 0x10000;
}
