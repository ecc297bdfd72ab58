/* SPDX-License-Identifier: Apache-2.0 */
/* Accesses, randomness, the console. */
#include "attack.h"

void *memset(void *dst, int byte, size_t n);
void *memcpy(void *dst, const void *src, size_t n);

extern uint64_t page_map[512];

/* Compilers call these on their own. */
void *memset(void *dst, int byte, size_t n)
{
	void *at = dst;

	__asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(byte) : "memory");
	return dst;
}

void *memcpy(void *dst, const void *src, size_t n)
{
	void *at = dst;

	__asm__ volatile("rep movsb" : "+D"(at), "+S"(src), "+c"(n) : : "memory");
	return dst;
}

uint32_t port_read(uint16_t port, unsigned int size)
{
	uint32_t v = 0;

	if (size == 1)
		__asm__ volatile("inb %1, %b0" : "+a"(v) : "Nd"(port));
	else if (size == 2)
		__asm__ volatile("inw %1, %w0" : "+a"(v) : "Nd"(port));
	else
		__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

void port_write(uint16_t port, uint32_t value, unsigned int size)
{
	if (size == 1)
		__asm__ volatile("outb %b0, %1" : : "a"(value), "Nd"(port));
	else if (size == 2)
		__asm__ volatile("outw %w0, %1" : : "a"(value), "Nd"(port));
	else
		__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

void port_string(uint16_t port, const void *bytes, unsigned int count, unsigned int size)
{
	unsigned long n = count;

	if (size == 1)
		__asm__ volatile("rep outsb" : "+S"(bytes), "+c"(n) : "d"(port) : "memory");
	else
		__asm__ volatile("rep outsw" : "+S"(bytes), "+c"(n) : "d"(port) : "memory");
}

uint64_t mem_read(uint64_t gpa, unsigned int size)
{
	uint64_t v = 0;

	switch (size) {
	case 1:
		__asm__ volatile("movb (%1), %b0" : "+r"(v) : "r"(gpa) : "memory");
		break;
	case 2:
		__asm__ volatile("movw (%1), %w0" : "+r"(v) : "r"(gpa) : "memory");
		break;
	case 4:
		__asm__ volatile("movl (%1), %k0" : "=r"(v) : "r"(gpa) : "memory");
		break;
	default:
		__asm__ volatile("movq (%1), %0" : "=r"(v) : "r"(gpa) : "memory");
		break;
	}
	return v;
}

void mem_write(uint64_t gpa, uint64_t value, unsigned int size)
{
	switch (size) {
	case 1:
		__asm__ volatile("movb %b0, (%1)" : : "r"(value), "r"(gpa) : "memory");
		break;
	case 2:
		__asm__ volatile("movw %w0, (%1)" : : "r"(value), "r"(gpa) : "memory");
		break;
	case 4:
		__asm__ volatile("movl %k0, (%1)" : : "r"(value), "r"(gpa) : "memory");
		break;
	default:
		__asm__ volatile("movq %0, (%1)" : : "r"(value), "r"(gpa) : "memory");
		break;
	}
}

uint64_t tsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}

/* The table below an entry, made when there is none; NULL when the pool is empty. */
static uint64_t *table_below(uint64_t *entry)
{
	enum { POOL = 24 };
	static uint64_t pool[POOL][512] __attribute__((aligned(4096)));
	static unsigned int used;

	if (!*entry) {
		if (used == POOL)
			return NULL;
		*entry = (uint64_t)pool[used++] | 3;
	}
	return (uint64_t *)(*entry & ~0xfffull);
}

/* The whole GiB around it, in pages of 2 MiB. */
bool map_high(uint64_t gpa)
{
	uint64_t gib = gpa >> 30, *pointers, *directory;

	if (gib >= 512 * 256)
		return false;
	pointers = table_below(&page_map[gib / 512]);
	directory = pointers ? table_below(&pointers[gib % 512]) : NULL;
	if (!directory)
		return false;
	for (unsigned int i = 0; !directory[511] && i < 512; i++)
		directory[i] = gib << 30 | (uint64_t)i << 21 | 0x83;
	return true;
}

uint64_t random_state = 1;

/* xorshift64* */
uint64_t rnd(void)
{
	uint64_t x = random_state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	random_state = x;
	return x * 2685821657736338717u;
}

uint32_t below(uint32_t n)
{
	return (uint32_t)((rnd() >> 32) * n >> 32);
}

uint64_t nasty(void)
{
	switch (below(8)) {
	case 0:
		return 0;
	case 1:
		return ~0ull;
	case 2:
		return 1ull << below(64);
	case 3:
		return (1ull << below(64)) - 1;
	case 4:
		return below(256);
	case 5:
		return ~0ull << below(64);
	default:
		return rnd();
	}
}

void print(const char *text)
{
	/* The attack leaves the port in any state: loopback off, no interrupts, data register. */
	port_write(SERIAL_PORT + 3, 3, 1);
	port_write(SERIAL_PORT + 1, 0, 1);
	port_write(SERIAL_PORT + 4, 3, 1);
	for (; *text; text++) {
		while (!(port_read(SERIAL_PORT + 5, 1) & 0x20))
			;
		port_write(SERIAL_PORT, (uint8_t)*text, 1);
	}
}

void print_number(uint64_t v)
{
	char text[21] = "", *p = text + 20;

	do
		*--p = (char)('0' + v % 10);
	while (v /= 10);
	print(p);
}

void power_off(void)
{
	port_write(0x604, 5 << 10 | 1 << 13, 2);
	for (;;)
		__asm__ volatile("hlt");
}
