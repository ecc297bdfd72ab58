/* SPDX-License-Identifier: Apache-2.0 */
/* The attack guest's course: look around, attack for the given time, say so, power off. */
#include "attack.h"

/* As the PVH boot protocol has it. */
struct start_info {
	uint32_t magic, version, flags, n_modules;
	uint64_t modules, cmdline, rsdp, memmap;
	uint32_t n_memmap, reserved;
};
struct memmap_entry {
	uint64_t base, size;
	uint32_t type, reserved;
};

uint64_t attack_idt[512] __attribute__((aligned(16)));
extern char attack_trap[], attack_nmi[];
uint64_t ram_end, ecam_gpa;

void attack_main(const struct start_info *info);
void attack_exception(const uint64_t *stack);

void attack_exception(const uint64_t *stack)
{
	print("\nattack: exception, stack:");
	for (unsigned int i = 0; i < 5; i++) {
		print(" ");
		print_number(stack[i]);
	}
	print("\n");
	power_off();
}

static void set_gate(unsigned int vector, const char *handler)
{
	uint64_t at = (uint64_t)handler;

	attack_idt[2 * vector] =
		(at & 0xffff) | 8 << 16 | 0x8e00ull << 32 | (at >> 16 & 0xffff) << 48;
	attack_idt[2 * vector + 1] = at >> 32;
}

static bool starts(const char *text, const char *with)
{
	while (*with)
		if (*text++ != *with++)
			return false;
	return true;
}

static uint64_t option(const char *text, const char *name, uint64_t otherwise)
{
	for (; *text; text++) {
		if (!starts(text, name))
			continue;
		while (*text != '=')
			text++;
		otherwise = 0;
		while (*++text >= '0' && *text <= '9')
			otherwise = otherwise * 10 + (uint64_t)(*text - '0');
		break;
	}
	return otherwise;
}

static void find_memory(const struct start_info *info)
{
	const struct memmap_entry *map = (const struct memmap_entry *)info->memmap;

	for (uint32_t i = 0; i < info->n_memmap; i++)
		if (map[i].type == 1 && map[i].base < 1ull << 32 &&
		    map[i].base + map[i].size > ram_end)
			ram_end = map[i].base + map[i].size;
	/* Guests boot with 2 GiB at most here; more would not make it better. */
	if (ram_end > 1ull << 31)
		ram_end = 1ull << 31;
}

static bool tables_equal(const void *a, const char *b, unsigned int n)
{
	const char *p = a;

	while (n--)
		if (*p++ != *b++)
			return false;
	return true;
}

/* The ECAM from MCFG. */
static void find_ecam(const struct start_info *info)
{
	const char *rsdp = (const char *)info->rsdp;
	const char *xsdt = *(const char *const *)(rsdp + 24);
	uint32_t len = *(const uint32_t *)(xsdt + 4);

	for (uint32_t i = 36; i + 8 <= len; i += 8) {
		const char *table;

		__builtin_memcpy(&table, xsdt + i, sizeof(table));
		if (tables_equal(table, "MCFG", 4))
			__builtin_memcpy(&ecam_gpa, table + 44, sizeof(ecam_gpa));
	}
}

static uint8_t clock_second(void)
{
	port_write(0x70, 0, 1);
	return (uint8_t)port_read(0x71, 1);
}

/* TSC ticks of a second, by the clock, before that is attacked too. */
static uint64_t ticks_per_second(void)
{
	uint8_t s = clock_second();
	uint64_t start;

	while (clock_second() == s)
		;
	s = clock_second();
	start = tsc();
	while (clock_second() == s)
		;
	return tsc() - start;
}

/* A byte for this port that does not end the machine. */
static uint8_t tame_byte(uint16_t port, uint8_t v)
{
	switch (port) {
	case 0xcf9:
		return v & (uint8_t)~0x04;
	case 0x64:
		return (v & 0xf0) == 0xf0 ? v & 0x7f : v;
	case 0x92:
		return v & (uint8_t)~0x01;
	case 0x505:
		return v & (uint8_t)~0x01;
	case 0x605:
		return v & (uint8_t)~0x20;
	default:
		return v;
	}
}

static void attack_port(void)
{
	static const uint16_t known[] = {0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff,
					 0x70,  0x71,  0x64,  0x92,  0x505, 0x600, 0x601, 0x602,
					 0x603, 0x604, 0x605, 0x606, 0xcf8, 0xcf9, 0xcfa, 0xcfb,
					 0xcfc, 0xcfd, 0xcfe, 0xcff, 0x20,  0x40,  0x43,  0x61};

	for (unsigned int n = 1 + below(8); n; n--) {
		uint16_t port = (uint16_t)(below(3) ? known[below(sizeof(known) / 2)] : rnd());
		unsigned int size = 1u << below(3);
		uint32_t value = 0;

		if (port >= 0xcfc - 3 && port <= 0xcff && size > 1)
			continue; /* config space is attack_config's */
		if (port >= 0xcfc && port <= 0xcff)
			continue;
		for (unsigned int i = 0; i < size; i++)
			value |= (uint32_t)tame_byte((uint16_t)(port + i), (uint8_t)nasty())
				 << 8 * i;
		if (port == 0xcf8 && size == 4)
			value = (uint32_t)rnd();
		if (below(2))
			port_write(port, value, size);
		else
			port_read(port, size);
	}
	if (!below(8)) {
		static const char text[64] = "string output";

		port_string(SERIAL_PORT + (below(2) ? 7 : 0), text, 1 + below(32), 1 + below(2));
	}
}

/* Every port up to the PCI window once each way, before chance takes over. */
static void sweep_ports(void)
{
	for (uint32_t port = 0; port < 0x1000; port++) {
		port_read((uint16_t)port, 1);
		if (port >= 0xcf8 && port <= 0xcff && port != 0xcf9)
			continue;
		port_write((uint16_t)port, tame_byte((uint16_t)port, (uint8_t)rnd()), 1);
	}
}

/* Where nothing is, above RAM, but for the kernel's interrupt controllers. */
static void attack_hole(void)
{
	uint64_t gpa = 0xc0000000u + below(0x3ec00000);
	unsigned int size = 1u << below(4);

	if (gpa < ram_end)
		return;
	/* Only reads where a BAR may be: writes to those are attack_bar's. */
	mem_read(gpa, size);
	if (gpa >= ecam_gpa && gpa + size < ecam_gpa + (256 << 20))
		return;
	mem_read(0xfed00000u + below(0x1000), size);
	mem_write(0xfed00000u + below(0x1000), nasty(), size);
}

static void step(void)
{
	switch (below(8)) {
	case 0:
		attack_port();
		break;
	case 1:
		attack_config();
		break;
	case 2:
	case 3:
		attack_bar();
		break;
	case 4:
		attack_hole();
		break;
	default:
		attack_ring();
		break;
	}
}

/* Vendor and device as lspci -n has them. */
static void print_id(uint32_t id)
{
	char text[10] = "0000:0000";

	for (unsigned int i = 0; i < 8; i++)
		text[i + i / 4] =
			"0123456789abcdef"[(i < 4 ? id : id >> 16) >> (12 - i % 4 * 4) & 15];
	print(text);
}

static void count_targets(void)
{
	unsigned int virtio = 0;

	for (unsigned int i = 0; i < n_functions; i++) {
		virtio += functions[i].virtio;
		print("attack: function ");
		print_id(functions[i].header[0]);
		print("\n");
	}
	print("attack: ");
	print_number(n_functions);
	print(" functions, ");
	print_number(virtio);
	print(" virtio, RAM to ");
	print_number(ram_end >> 20);
	print(" MiB\n");
}

void attack_main(const struct start_info *info)
{
	const char *cmdline = (const char *)info->cmdline;
	uint64_t seconds = option(cmdline, "seconds=", 5), seed = option(cmdline, "seed=", 1);
	uint64_t ticks, end, steps = 0;

	for (unsigned int i = 0; i < 256; i++)
		set_gate(i, i == 2 ? attack_nmi : attack_trap);
	find_memory(info);
	find_ecam(info);
	random_state = seed ? seed : 1;
	print("attack: seed ");
	print_number(random_state);
	print("\n");
	pci_scan();
	count_targets();
	if (!n_functions || ram_end <= GARBAGE_GPA || !ecam_gpa) {
		print("attack: nothing to attack\n");
		power_off();
	}
	ticks = ticks_per_second();
	pci_place();
	sweep_ports();
	pci_sweep();
	end = tsc() + seconds * ticks;
	for (; tsc() < end; steps++)
		step();
	for (unsigned int i = 0; i < n_functions; i++)
		pci_restore(&functions[i]);
	print("\nattack: done, ");
	print_number(steps);
	print(" steps\n");
	power_off();
}
