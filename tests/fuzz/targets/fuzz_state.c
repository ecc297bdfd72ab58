// SPDX-License-Identifier: Apache-2.0
// A hostile state: either the input is the stream, or it says what a machine has done before it was
// saved and what is then changed in its stream: bytes, sections, their number and order. Oracle:
//
// - a device that refuses its part is as it was before; those that took theirs hold exactly it;
// - what is accepted as a whole gives the same bytes when it is saved again;
// - whatever was accepted, the devices can be used: registers read and written, the loop turned.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz.h"
#include "pci_host.h"
#include "base/le.h"
#include "base/num.h"
#include "core/dma.h"
#include "core/gmem.h"
#include "core/loop.h"
#include "core/state.h"
#include "platform/plug.h"
#include "platform/platform.h"
#include "platform/serial.h"
#include "virtio/console.h"
#include "virtio/pci.h"
#include "virtio/rng.h"

#define BAR_GPA    0xc0100000ull
#define VIRTIO_GPA 0xc8000000ull /* BAR of the virtio device in slot 2; the next 1 MiB behind */

enum {
	DEVICES = 9,
	VIRTIO = 7, /* the first of them that is one */
	SECTIONS_MAX = 48,
	HEAD = 16,
	END = 12,
	RAM_BYTES = 1 << 20,
	RINGS_GPA = 0x1000,
};

struct machine {
	struct pci_host pci;
	struct device *dev[DEVICES];
};

static struct log silent;
static struct loop *loop;
static struct gmem *gmem;
static struct dma_space *dma;
static int null_fd = -1;

static int set_routes(void *opaque, const struct irq_route *routes, unsigned int n)
{
	(void)opaque;
	for (unsigned int i = 0; i < n; i++) {
		if (routes[i].msi && routes[i].address >> 32)
			return -22;
	}
	return 0;
}

static const struct irq_chip_ops chip_ops = {.set_routes = set_routes,
					     .set_irqfd = accept_irqfd,
					     .set_line = accept_line,
					     .pins = PINS,
					     .max_gsi = 32};

static void changed(void *opaque)
{
	(void)opaque;
}

static void event(void *opaque, enum platform_event event)
{
	(void)opaque;
	(void)event;
}

static void add_virtio(struct machine *m, const struct device_env *env)
{
	const struct virtio_rng_setup rng = {.name = "rng0", .loop = loop};
	const struct virtio_console_setup console = {
		.name = "console0", .loop = loop, .in_fd = -1, .out_fd = null_fd};
	const struct virtio_pci_config pci = {.bus = pci_root_bus(m->pci.root)};
	struct virtio_device *vdev;

	check(!virtio_rng_create(&vdev, &rng, &silent, NULL));
	check(!virtio_pci_create(&m->dev[VIRTIO], env, &pci, vdev, NULL));
	check(!virtio_console_create(&vdev, &console, &silent, NULL));
	check(!virtio_pci_create(&m->dev[VIRTIO + 1], env, &pci, vdev, NULL));
}

static void machine_make(struct machine *m)
{
	static const struct platform_sink sink = {.event = event};
	const struct serial_config serial = {.name = "serial0",
					     .port = PLATFORM_SERIAL_PORT,
					     .gsi = PLATFORM_SERIAL_GSI,
					     .in_fd = -1,
					     .out_fd = null_fd};
	const struct root_port_config port = {.name = "port0", .slot_number = 1};
	const struct plug_config cpus = {.name = "cpus",
					 .port = PLATFORM_CPUS_PORT,
					 .first_stays = true,
					 .max = 6,
					 .in = 2,
					 .changed = changed};

	pci_host_init(&m->pci, &chip_ops, &silent);
	const struct device_env env = {.log = &silent,
				       .mmio = m->pci.mmio,
				       .pio = m->pci.pio,
				       .irq = m->pci.chip,
				       .loop = loop,
				       .dma = dma};

	check(!serial_create(&m->dev[0], &env, &serial, NULL));
	check(!rtc_create(&m->dev[1], &env, NULL));
	check(!pm_create(&m->dev[2], &env, &sink, false, NULL));
	check(!pvpanic_create(&m->dev[3], &env, &sink, NULL));
	check(!reset_create(&m->dev[4], &env, m->pci.root, &sink, NULL));
	check(!root_port_create(&m->dev[5], &env, m->pci.root, &port, NULL));
	check(!plug_create(&m->dev[6], &env, &cpus, NULL));
	add_virtio(m, &env);
}

static void quiesce(struct machine *m)
{
	for (unsigned int i = 0; i < 2 * DEVICES; i++)
		m->dev[i % DEVICES]->ops->quiesce(m->dev[i % DEVICES], i / DEVICES);
}

static void machine_end(struct machine *m)
{
	quiesce(m);
	for (unsigned int i = 0; i < DEVICES; i++)
		m->dev[i]->ops->destroy(m->dev[i]);
	pci_host_done(&m->pci);
	check(!loop_in_flight(loop));
}

static void write_mem(struct machine *m, uint64_t gpa, uint64_t value, unsigned int size)
{
	(void)bus_write(m->pci.mmio, gpa, &value, size);
}

/* A driver that takes a virtio device over, up to a status, with this queue; offsets are those of
 * virtio 1.3, 4.1.4.3 in a BAR that begins with them. */
static void drive(struct machine *m, unsigned int slot, uint8_t value)
{
	static const uint8_t statuses[] = {1, 3, 11, 15};
	uint64_t config = ECAM + ((uint64_t)slot << 15), bar = VIRTIO_GPA + ((slot - 2ull) << 20);
	uint64_t rings = RINGS_GPA + slot * 0x10000ull;

	write_mem(m, config + 4, 6, 2);
	write_mem(m, config + 0x20, bar, 4);
	write_mem(m, config + 0x24, 0, 4);
	write_mem(m, bar + 0x14, 0, 1);
	loop_iterate(loop, false);
	for (unsigned int i = 0; i <= (value & 3u); i++) {
		write_mem(m, bar + 0x08, 1, 4);
		write_mem(m, bar + 0x0c, 1, 4);
		write_mem(m, bar + 0x14, statuses[i], 1);
	}
	write_mem(m, bar + 0x16, value >> 2 & 1, 2);
	write_mem(m, bar + 0x18, 16, 2);
	write_mem(m, bar + 0x20, rings, 8);
	write_mem(m, bar + 0x28, rings + 0x1000, 8);
	write_mem(m, bar + 0x30, rings + 0x2000, 8);
	write_mem(m, bar + 0x1c, 1, 2);
	loop_iterate(loop, false);
}

/* What the guest's methods write, to registers by number; 5: the machine asks and adds. */
static void plug(struct machine *m, unsigned int number, uint8_t value)
{
	uint32_t v = (value & 3u) << 16 | value >> 2, in;

	if (number == 5 && value & 1)
		plug_ask(m->dev[6], 1u + (value >> 1) % 5);
	else if (number == 5)
		plug_add(m->dev[6], 1u + (value >> 1) % 5);
	if (!number)
		v = (uint32_t)value << 8;
	(void)bus_write(m->pci.pio, (uint16_t)(PLATFORM_CPUS_PORT + 4 * number), &v, 4);
	check(bus_read(m->pci.pio, PLATFORM_CPUS_PORT + 0x20, &in, 4));
	check((in & 1) && in < 1 << 6);
}

/* One access, as two bytes say: every port and register of interest, read or written. */
static void poke(struct machine *m, uint8_t where, uint8_t value)
{
	static const uint16_t ports[] = {
		0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x70,  0x71,  0x600,
		0x601, 0x602, 0x603, 0x604, 0x605, 0x505, 0xcf9, 0x92,  0xcf8, 0xcfc,
	};
	static const uint16_t registers[] = {0x04, 0x05, 0x06, 0x10, 0x12, 0x18, 0x19, 0x1a, 0x20,
					     0x3e, 0x58, 0x59, 0x5a, 0x5b, 0x7e, 0x7f, 0x102};
	unsigned int i = where & 0x3f;
	bool read = where & 0x40;
	uint32_t v = value;
	uint64_t at;

	if (i < ARRAY_SIZE(ports)) {
		unsigned int size = ports[i] == 0xcf8 ? 4 : 1;

		if (ports[i] == 0xcf8)
			v = 0x80000800u | value;
		(void)(read ? bus_read(m->pci.pio, ports[i], &v, size)
			    : bus_write(m->pci.pio, ports[i], &v, size));
		return;
	}
	i -= (unsigned int)ARRAY_SIZE(ports);
	at = i < ARRAY_SIZE(registers) ? ECAM + (1 << 15) + registers[i] : BAR_GPA + 4ull * (i & 3);
	if (i < ARRAY_SIZE(registers))
		(void)(read ? bus_read(m->pci.mmio, at, &v, 1) : bus_write(m->pci.mmio, at, &v, 1));
	else
		(void)(read ? bus_read(m->pci.mmio, at, &v, 4) : bus_write(m->pci.mmio, at, &v, 4));
	if (where >= 0xf7 && where < 0xfd)
		plug(m, where - 0xf7u, value);
	if (where >= 0xfd && where < 0xff)
		drive(m, where - 0xfbu, value);
	if (where == 0xff) {
		pm_power_button(m->dev[2]);
		root_port_set_present(m->dev[5], value & 1);
	}
}

struct input {
	const uint8_t *data;
	size_t size;
};

static uint8_t u8(struct input *in)
{
	if (!in->size)
		return 0;
	in->size--;
	return *in->data++;
}

static uint16_t u16(struct input *in)
{
	uint8_t low = u8(in);

	return (uint16_t)(low | u8(in) << 8);
}

static struct state_buffer save(struct machine *m, unsigned int first, unsigned int n)
{
	struct state_buffer b = {0};
	struct state_writer w;

	state_writer_begin(&w, state_buffer_sink, &b);
	if (!first)
		pci_root_save(m->pci.root, &w);
	for (unsigned int i = first; i < first + n; i++)
		check(!state_save_device(&w, m->dev[i], NULL));
	check(!state_writer_end(&w, NULL));
	return b;
}

/* The stream without head and end, section by section, so that they can be changed one by one. */
struct parts {
	unsigned int n;
	struct part {
		uint8_t *bytes;
		size_t len;
	} part[SECTIONS_MAX];
};

static void cut(struct parts *p, const struct state_buffer *b)
{
	size_t at = HEAD;

	p->n = 0;
	while (b->bytes[at]) {
		size_t end = at + 12 + b->bytes[at + 1] + b->bytes[at + 2];
		uint32_t chunk;

		do {
			chunk = load_le32(b->bytes + end);
			end += 4 + chunk;
		} while (chunk == STATE_CHUNK_BYTES);
		struct part *part = &p->part[p->n++];

		part->len = end - at;
		part->bytes = malloc(part->len);
		check(part->bytes && p->n < SECTIONS_MAX);
		memcpy(part->bytes, b->bytes + at, part->len);
		at = end;
	}
}

enum edit { PUT, FLIP, SHORTEN, TWICE, LESS, SWAP, HEADER, EDITS };

static void change(struct parts *p, struct input *in)
{
	enum edit edit = u8(in) % EDITS;
	uint8_t which = u8(in);
	unsigned int i = (which & 0x7f) % p->n;
	size_t at = u16(in), len = p->part[i].len;
	uint8_t value = u8(in);

	if (!len)
		return;
	at %= which & 0x80 ? MIN(len, (size_t)96) : len;
	switch (edit) {
	case PUT:
		p->part[i].bytes[at] = value;
		break;
	case FLIP:
		p->part[i].bytes[at] ^= value;
		break;
	case SHORTEN:
		p->part[i].len = at;
		break;
	case TWICE:
		if (p->n == SECTIONS_MAX)
			break;
		p->part[p->n] = p->part[i];
		p->part[p->n].bytes = malloc(len + 1);
		check(p->part[p->n].bytes);
		memcpy(p->part[p->n++].bytes, p->part[i].bytes, len);
		break;
	case LESS:
		p->part[i].len = 0;
		break;
	case SWAP: {
		struct part part = p->part[i];

		p->part[i] = p->part[value % p->n];
		p->part[value % p->n] = part;
		break;
	}
	default:
		if (len >= END)
			p->part[i].bytes[4 + at % 8] = value;
		break;
	}
}

static struct state_buffer join(struct parts *p)
{
	static const uint8_t head[HEAD] = {'H', 'O', 'S', 'P', 'E', 'S', 'S', 'T', 1}, end[END];
	struct state_buffer b = {0};

	check(!state_buffer_sink(&b, head, sizeof(head)));
	for (unsigned int i = 0; i < p->n; i++) {
		check(!state_buffer_sink(&b, p->part[i].bytes, p->part[i].len));
		free(p->part[i].bytes);
	}
	check(!state_buffer_sink(&b, end, sizeof(end)));
	return b;
}

static void check_same(const struct state_buffer *a, const struct state_buffer *b)
{
	check(a->len == b->len && !memcmp(a->bytes, b->bytes, a->len));
}

/* Load until something is refused. Whether all was taken. */
static bool load(struct machine *m, const struct state_buffer *stream)
{
	struct err err = ERR_INIT;
	struct state_reader *r;
	unsigned int i = 0;
	int ret;

	if (state_reader_open(&r, stream->bytes, stream->len, &err)) {
		check(err.code < 0 && err.text[0]);
		return false;
	}
	ret = pci_root_load(m->pci.root, r, &err);
	for (; !ret && i < DEVICES; i++) {
		struct state_buffer before = save(m, i, 1), after;

		ret = state_load_device(r, m->dev[i], &err);
		if (ret) {
			after = save(m, i, 1);
			check_same(&before, &after);
			free(after.bytes);
		}
		free(before.bytes);
	}
	if (!ret)
		ret = state_reader_end(r, &err);
	check(!ret || (err.code == ret && err.text[0]));
	state_reader_close(r);
	return !ret;
}

static struct state_buffer made_stream(struct input *in)
{
	struct machine from = {0};
	struct state_buffer stream;
	struct parts parts;
	unsigned int n;

	machine_make(&from);
	for (n = u8(in) % 64; n; n--) {
		uint8_t where = u8(in);

		poke(&from, where, u8(in));
	}
	quiesce(&from);
	stream = save(&from, 0, DEVICES);
	cut(&parts, &stream);
	free(stream.bytes);
	machine_end(&from);
	for (n = u8(in) % 8; n; n--)
		change(&parts, in);
	return join(&parts);
}

static void use(struct machine *m, struct input *in)
{
	for (unsigned int i = 0; i < DEVICES; i++)
		m->dev[i]->ops->resume(m->dev[i]);
	for (unsigned int i = 0; i < 300; i++) {
		poke(m, (uint8_t)(0x40 | i % 0x40), 0);
		if (i % 32 == 0)
			loop_iterate(loop, false);
	}
	drive(m, 2, 3);
	drive(m, 3, 3);
	for (unsigned int n = 0; n < 64 && in->size; n++) {
		uint8_t where = u8(in);

		poke(m, where, u8(in));
	}
	loop_iterate(loop, false);
}

static void make_memory(void)
{
	const struct gmem_region_config ram = {
		.name = "ram", .size_bytes = RAM_BYTES, .numa_node = -1, .fd = -1};

	check(!gmem_create(&gmem, &silent, NULL) && !gmem_begin(gmem, NULL));
	check(!gmem_add(gmem, &ram, NULL) && !gmem_commit(gmem, NULL));
	check(!dma_space_create(&dma, gmem, NULL, NULL, NULL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct loop_config config = {.log = &silent, .name = "fuzz", .backend = LOOP_EPOLL};
	struct input in = {data, size};
	struct state_buffer stream = {0}, again;
	struct machine to = {0};

	if (!loop) {
		check(!loop_create(&loop, &config, NULL));
		make_memory();
		null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
		check(null_fd >= 0);
	}
	if (u8(&in) & 1)
		stream = made_stream(&in);
	else
		check(!state_buffer_sink(&stream, in.data, in.size));
	memset(gmem_host(gmem, 0, RAM_BYTES, true), 0, RAM_BYTES);
	machine_make(&to);
	quiesce(&to);
	if (load(&to, &stream)) {
		again = save(&to, 0, DEVICES);
		check_same(&stream, &again);
		free(again.bytes);
	}
	use(&to, &in);
	machine_end(&to);
	free(stream.bytes);
	return 0;
}
