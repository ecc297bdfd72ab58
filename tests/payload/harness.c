// SPDX-License-Identifier: Apache-2.0
// Payload guests. See harness.h.
#include "harness.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/le.h"
#include "base/num.h"

enum { WAIT_MS = 30000 };

static void log_line(void *opaque, enum log_level level, const char *component, const char *text)
{
	(void)opaque;
	fprintf(stderr, "# %s %s: %s\n", log_level_name(level), component, text);
}

static const struct log payload_log = {.fn = log_line, .level = LOG_WARN};

static void exit_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct payload_vm *p = opaque;

	(void)offset;
	(void)size;
	p->exit_code = (int)value;
	fd_event_signal(p->exit_fd);
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct payload_vm *p = opaque;

	(void)offset;
	(void)size;
	return 0x100 + p->next_read++;
}

static void record(struct payload_vm *p, uint64_t offset, uint64_t value, unsigned int size)
{
	if (p->n_records < PAYLOAD_RECORDS)
		p->records[p->n_records++] = (struct payload_record){offset, value, size};
}

static void data_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct payload_vm *p = opaque;

	record(p, offset, value, size);
	if (p->on_data)
		p->on_data(p, value);
}

static uint64_t ram_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct payload_vm *p = opaque;
	uint64_t value = 0;

	memcpy(&value, p->ram + offset, size);
	return value;
}

static void ram_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct payload_vm *p = opaque;

	record(p, PAYLOAD_MMIO + offset, value, size);
	memcpy(p->ram + offset, &value, size);
}

static const struct bus_ops exit_ops = {.read = data_read, .write = exit_write};
static const struct bus_ops data_ops = {.read = data_read, .write = data_write, .max = 4};
static const struct bus_ops ram_ops = {.read = ram_read, .write = ram_write, .unaligned = true};

static void on_event(void *opaque, unsigned int index, enum vcpu_event event, const char *text)
{
	struct payload_vm *p = opaque;

	snprintf(p->event_text, sizeof(p->event_text), "vcpu%u: %s", index, text);
	p->event = (int)event;
	fd_event_signal(p->event_fd);
}

static void add_region(struct payload_vm *p, struct bus *bus, struct bus_region *r,
		       const struct bus_ops *ops, const char *name, uint64_t base, uint64_t bytes)
{
	struct err err = ERR_INIT;

	*r = (struct bus_region){
		.ops = ops,
		.opaque = p,
		.name = name,
		.size_bytes = bytes,
		.lock = &p->lock,
	};
	cr_assert_eq(bus_add(bus, r, base, &err), 0, "%s", err.text);
}

static void add_regions(struct payload_vm *p)
{
	add_region(p, p->pio, &p->exit_port, &exit_ops, "exit", PAYLOAD_PORT_EXIT, 1);
	add_region(p, p->pio, &p->data_port, &data_ops, "data", PAYLOAD_PORT_DATA, 4);
	add_region(p, p->pio, &p->bell_port, &data_ops, "bell", PAYLOAD_PORT_BELL, 8);
	add_region(p, p->mmio, &p->mmio_ram, &ram_ops, "ram", PAYLOAD_MMIO, sizeof(p->ram));
	add_region(p, p->mmio, &p->mmio_bell, &data_ops, "mmio-bell", PAYLOAD_MMIO_BELL, 16);
}

static void add_memory(struct payload_vm *p)
{
	struct gmem_region_config config = {
		.name = "ram",
		.size_bytes = PAYLOAD_MEMORY,
		.numa_node = -1,
		.fd = -1,
	};
	struct err err = ERR_INIT;

	cr_assert_eq(gmem_begin(p->gmem, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_add(p->gmem, &config, &err), 0, "%s", err.text);
	cr_assert_eq(gmem_commit(p->gmem, &err), 0, "%s", err.text);
}

static void build(struct payload_vm *p, unsigned int cpus)
{
	struct arch_vm_config arch = {
		.log = &payload_log,
		.kvm = {.fd = p->kvm_fd, .calls = &kvm_kernel_calls},
		.topology = {.cpus = cpus, .sockets = 1, .cores = cpus, .threads = 1},
	};
	struct vcpus_config config = {
		.log = &payload_log,
		.count = cpus,
		.event = on_event,
		.opaque = p,
	};
	struct err err = ERR_INIT;

	cr_assert_eq(gmem_create(&p->gmem, &payload_log, &err), 0, "%s", err.text);
	cr_assert_eq(bus_create(&p->mmio, BUS_MMIO, &err), 0, "%s", err.text);
	cr_assert_eq(bus_create(&p->pio, BUS_PIO, &err), 0, "%s", err.text);
	arch.gmem = p->gmem;
	arch.mmio = config.mmio = p->mmio;
	arch.pio = config.pio = p->pio;
	cr_assert_eq(arch_vm_create(&p->arch, &arch, &err), 0, "%s", err.text);
	config.vm = p->arch;
	add_memory(p);
	cr_assert_eq(irq_chip_create(&p->irq, arch_irq_ops(), p->arch, &err), 0, "%s", err.text);
	cr_assert_eq(irq_chip_start(p->irq, &err), 0, "%s", err.text);
	add_regions(p);
	cr_assert_eq(vcpus_create(&p->vcpus, &config, &err), 0, "%s", err.text);
}

struct payload_vm *payload_create(unsigned int cpus)
{
	struct payload_vm *p = calloc(1, sizeof(*p));
	struct pollfd wait;

	cr_assert(p);
	p->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (p->kvm_fd < 0) {
		int why = errno;

		free(p);
		cr_skip("/dev/kvm: %s", strerror(why));
	}
	pthread_mutex_init(&p->lock, NULL);
	p->cpus = cpus;
	p->exit_fd = fd_eventfd();
	p->event_fd = fd_eventfd();
	build(p, cpus);
	/* A /dev/kvm that runs nothing is no failure of ours. */
	payload_start(p, "halt", ARCH_ENTRY_REAL);
	wait = (struct pollfd){.fd = p->exit_fd, .events = POLLIN};
	if (poll(&wait, 1, WAIT_MS) != 1)
		cr_skip("/dev/kvm does not run a payload guest: %s",
			fd_event_drain(p->event_fd) ? p->event_text : "it makes no progress");
	fd_event_drain(p->exit_fd);
	vcpus_pause(p->vcpus);
	p->n_records = 0;
	return p;
}

void payload_destroy(struct payload_vm *p)
{
	vcpus_destroy(p->vcpus);
	bus_del(p->pio, &p->exit_port);
	bus_del(p->pio, &p->data_port);
	bus_del(p->pio, &p->bell_port);
	bus_del(p->mmio, &p->mmio_ram);
	bus_del(p->mmio, &p->mmio_bell);
	irq_chip_destroy(p->irq);
	arch_vm_destroy(p->arch);
	gmem_destroy(p->gmem);
	bus_destroy(p->mmio);
	bus_destroy(p->pio);
	close(p->kvm_fd);
	close(p->exit_fd);
	close(p->event_fd);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static void load_image(struct payload_vm *p, const char *name)
{
	const struct payload_image *image = payload_images;
	void *at = gmem_host(p->gmem, PAYLOAD_GPA, PAYLOAD_BYTES, true);

	while (image->name && strcmp(image->name, name))
		image++;
	cr_assert(image->name, "no payload %s", name);
	cr_assert_leq(image->bytes, PAYLOAD_BYTES);
	cr_assert(at);
	memset(at, 0, PAYLOAD_BYTES);
	memcpy(at, image->data, image->bytes);
}

/* The first 4 GiB in 2 MiB pages. */
static void build_tables(struct payload_vm *p)
{
	enum { PRESENT_WRITE = 3, LARGE = 0x80, PAGE = 4096, DIRECTORIES = 4, ENTRIES = 512 };
	le64 *table = gmem_host(p->gmem, PAYLOAD_TABLES, (2 + DIRECTORIES) * PAGE, true);

	cr_assert(table);
	memset(table, 0, 2 * PAGE);
	table[0] = le64_of((PAYLOAD_TABLES + PAGE) | PRESENT_WRITE);
	for (uint64_t i = 0; i < DIRECTORIES; i++)
		table[ENTRIES + i] = le64_of((PAYLOAD_TABLES + (2 + i) * PAGE) | PRESENT_WRITE);
	for (uint64_t i = 0; i < (uint64_t)DIRECTORIES * ENTRIES; i++)
		table[2 * ENTRIES + i] = le64_of(i << 21 | PRESENT_WRITE | LARGE);
}

void payload_load(struct payload_vm *p, const char *name, enum arch_entry_mode mode)
{
	struct arch_entry entry = {
		.mode = mode,
		.rip = PAYLOAD_GPA,
		.rsp = PAYLOAD_STACK,
		.rsi = 0x5151,
		.rbx = 0xb0b0,
		.cr3 = PAYLOAD_TABLES,
		.gdt_gpa = PAYLOAD_GDT,
	};
	struct err err = ERR_INIT;
	void *result = gmem_host(p->gmem, PAYLOAD_RESULT, 4096, true);

	cr_assert(result);
	memset(result, 0, 4096);
	load_image(p, name);
	build_tables(p);
	for (unsigned int i = 0; i < p->cpus; i++)
		cr_assert_eq(arch_vcpu_reset(vcpus_get(p->vcpus, i), i ? NULL : &entry, &err), 0,
			     "%s", err.text);
}

void payload_start(struct payload_vm *p, const char *name, enum arch_entry_mode mode)
{
	payload_load(p, name, mode);
	vcpus_resume(p->vcpus);
}

static bool wait_either(int a, int b, bool *first)
{
	struct pollfd wait[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
	int n;

	do
		n = poll(wait, 2, WAIT_MS);
	while (n < 0 && errno == EINTR);
	*first = wait[0].revents & POLLIN;
	return n > 0;
}

uint64_t payload_wait_fd(struct payload_vm *p, int fd)
{
	char text[2048];
	bool ours;

	cr_assert(wait_either(fd, p->event_fd, &ours), "nothing happened for %d ms", WAIT_MS);
	if (!ours) {
		vcpus_pause(p->vcpus);
		arch_vcpu_dump(vcpus_get(p->vcpus, 0), text, sizeof(text));
		cr_assert_fail("%s\n%s", p->event_text, text);
	}
	return fd_event_drain(fd);
}

int payload_wait_exit(struct payload_vm *p)
{
	payload_wait_fd(p, p->exit_fd);
	return p->exit_code;
}

enum vcpu_event payload_wait_event(struct payload_vm *p)
{
	bool ours;

	cr_assert(wait_either(p->event_fd, p->event_fd, &ours), "no event for %d ms", WAIT_MS);
	fd_event_drain(p->event_fd);
	return (enum vcpu_event)p->event;
}

uint32_t payload_peek(struct payload_vm *p, uint64_t gpa)
{
	uint32_t *at = gmem_host(p->gmem, gpa, 4, false);

	cr_assert(at);
	return __atomic_load_n(at, __ATOMIC_RELAXED);
}
