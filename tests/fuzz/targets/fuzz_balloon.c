// SPDX-License-Identifier: Apache-2.0
// virtio-balloon against a driver that gives, takes and reports any pages, in lists with anything
// in them, while hardware that has all of memory comes and goes, with pauses and resets. Oracle: a
// bit per page, from which follow what is given, which granules the hardware has lost, and the
// content of every page.
#include <stdint.h>
#include <string.h>

#include <linux/virtio_balloon.h>

#include "driver.h"
#include "fuzz.h"
#include "base/le.h"
#include "base/num.h"
#include "core/reclaim.h"
#include "virtio/balloon.h"

enum {
	INFLATE = 0,
	DEFLATE = 1,
	REPORT = 2, /* statistics are not negotiated */
	QUEUE_SIZE = 16,
	PAGE = 4096,
	GRANULE_PAGES = RECLAIM_MAX_GRANULE / PAGE,
	/* Pages that the rig does not use; the first and the last granule are not whole. */
	FIRST = 16 * GRANULE_PAGES - 64,
	PAGES = 4 * GRANULE_PAGES + 128,
	GRANULES = 6, /* of which the first begins before FIRST */
	LIST_MAX = 255,
	MAX_STEPS = 40,
	MAX_TURNS = 100000,
	NO_RAM = 64 << 8, /* and what is behind, up to 4 GiB */
};

#define FEATURES (1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST | 1ull << VIRTIO_BALLOON_F_REPORTING)

static struct guest *g;
static struct drv *d;
static struct gmem *gmem;
static uint64_t lists, rings;

static struct {
	bool given[PAGES], zero[PAGES];
	bool has_hw;
} model;

static uint64_t granule_of(unsigned int page)
{
	return (FIRST + page) / GRANULE_PAGES;
}

/* --- the hardware --- */

static bool lost[64];

static int hw_map(void *opaque, const struct gmem_region *region, struct err *err)
{
	(void)opaque;
	(void)err;
	for (uint64_t gpa = region->gpa; gpa < 64 * MiB; gpa += RECLAIM_MAX_GRANULE)
		lost[gpa / RECLAIM_MAX_GRANULE] = reclaim_is_out(gmem_reclaim(gmem), gpa);
	return 0;
}

static void hw_unmap(void *opaque, const struct gmem_region *region)
{
	(void)opaque;
	(void)region;
	memset(lost, 0, sizeof(lost));
}

static int hw_leave(void *opaque, const struct gmem_region *region, uint64_t offset, uint64_t len)
{
	(void)opaque;
	check(!region->gpa && !(offset % RECLAIM_MAX_GRANULE) && len == RECLAIM_MAX_GRANULE);
	check(!lost[offset / RECLAIM_MAX_GRANULE]);
	lost[offset / RECLAIM_MAX_GRANULE] = true;
	return 0;
}

static int hw_restore(void *opaque, const struct gmem_region *region, uint64_t offset, uint64_t len)
{
	(void)opaque;
	check(!region->gpa && !(offset % RECLAIM_MAX_GRANULE) && len == RECLAIM_MAX_GRANULE);
	check(lost[offset / RECLAIM_MAX_GRANULE]);
	lost[offset / RECLAIM_MAX_GRANULE] = false;
	return 0;
}

static const struct gmem_listener_ops hw_ops = {
	.name = "hw",
	.map = hw_map,
	.unmap = hw_unmap,
	.leave = hw_leave,
	.restore = hw_restore,
	.areas = true,
};
static struct gmem_listener hw = {.ops = &hw_ops};

/* --- the model --- */

static bool is_full(uint64_t granule)
{
	uint64_t first = granule * GRANULE_PAGES;

	for (uint64_t pfn = first; pfn < first + GRANULE_PAGES; pfn++) {
		if (pfn < FIRST || pfn >= FIRST + PAGES || !model.given[pfn - FIRST])
			return false;
	}
	return true;
}

static uint64_t *word(unsigned int page)
{
	return guest_ptr(g, (FIRST + page) * (uint64_t)PAGE, 8);
}

static void give(unsigned int page)
{
	uint64_t first = granule_of(page) * GRANULE_PAGES;

	if (model.given[page])
		return;
	model.given[page] = true;
	if (!model.has_hw)
		model.zero[page] = true;
	for (uint64_t pfn = first; is_full(granule_of(page)) && pfn < first + GRANULE_PAGES; pfn++)
		model.zero[pfn - FIRST] = true;
}

/* The guest uses it again. */
static void take(unsigned int page)
{
	if (model.given[page]) {
		*word(page) = page + 1;
		model.zero[page] = false;
	}
	model.given[page] = false;
}

static void compare(void)
{
	struct virtio_balloon_status s;
	uint64_t n = 0, full = 0;

	for (unsigned int i = 0; i < PAGES; i++)
		n += model.given[i];
	for (uint64_t granule = granule_of(0); granule < granule_of(0) + GRANULES; granule++) {
		full += is_full(granule);
		check(lost[granule] == (model.has_hw && is_full(granule)));
	}
	virtio_balloon_status(d->vdev, &s);
	check(s.given_bytes == n * PAGE && !s.waits);
	check(s.out_bytes == (model.has_hw ? full * RECLAIM_MAX_GRANULE : n * PAGE));
}

/* What is given may have been discarded earlier than it has to be, with its neighbours. */
static void compare_content(void)
{
	for (unsigned int i = 0; i < PAGES; i++)
		check(*word(i) == (model.zero[i] ? 0 : i + 1) || (model.given[i] && !*word(i)));
}

/* --- steps --- */

struct run {
	const uint8_t *data;
	size_t left;
};

static uint8_t byte(struct run *r)
{
	if (!r->left)
		return 0;
	r->left--;
	return *r->data++;
}

static void finish(unsigned int queue)
{
	drv_kick(d, queue);
	for (unsigned int i = 0; !drv_used(d, queue, NULL, NULL); i++) {
		check(i < MAX_TURNS);
		guest_turn(g);
	}
}

static unsigned int place(struct run *r)
{
	unsigned int high = byte(r);

	return (high << 8 | byte(r)) % PAGES;
}

/* A list of runs: where it begins, how long it is, up or down; or pages that are no RAM. */
static void list(struct run *r, unsigned int queue)
{
	le32 *pfns = guest_ptr(g, lists, LIST_MAX * sizeof(le32));
	struct drv_sg out[2] = {{lists, 0}, {lists, 0}};
	unsigned int n = 0, cut;

	for (unsigned int runs = byte(r) % 8u; runs && n < LIST_MAX; runs--) {
		unsigned int at = place(r), length = byte(r);
		bool down = length & 1, ram = byte(r) < 250;

		for (; length && n < LIST_MAX && at < PAGES;
		     length--, at += down ? UINT32_MAX : 1u) {
			pfns[n++] = le32_of(ram ? FIRST + at : NO_RAM + (at << 8));
			if (ram && queue == INFLATE)
				give(at);
		}
	}
	cut = byte(r) % (4 * n + 1);
	out[0].len = cut;
	out[1] = (struct drv_sg){lists + cut, 4 * n - cut + byte(r) % 4u};
	drv_add(d, queue, out, 2, NULL, 0);
	finish(queue);
	for (unsigned int i = 0; queue == DEFLATE && i < n; i++) {
		uint32_t pfn = le32_get(pfns[i]);

		if (pfn < NO_RAM)
			take(pfn - FIRST);
	}
}

static void report(struct run *r)
{
	unsigned int at = place(r), n = 1 + byte(r) * 8u % (PAGES - at);
	unsigned int odd = byte(r);
	struct drv_sg in = {(FIRST + at) * (uint64_t)PAGE + odd, n * PAGE - odd};

	drv_add(d, REPORT, NULL, 0, &in, 1);
	finish(REPORT);
	for (unsigned int i = at + (odd != 0); !model.has_hw && i < at + n; i++)
		model.zero[i] = true;
	for (unsigned int i = at; i < at + n; i++) {
		if (!model.given[i]) {
			*word(i) = i + 1;
			model.zero[i] = false;
		}
	}
}

static void set_hw(bool on)
{
	if (on == model.has_hw)
		return;
	if (on)
		check(!gmem_listen(gmem, &hw, NULL));
	else
		gmem_unlisten(gmem, &hw);
	model.has_hw = on;
}

static void reset(bool by_machine)
{
	struct virtio_balloon_status s;
	unsigned int turns = 0;

	if (by_machine)
		d->dev->ops->reset(d->dev);
	else
		drv_reset(d);
	/* Queues that have not begun again after a pause do not hold the reset up. */
	do {
		check(turns++ < MAX_TURNS);
		guest_turn(g);
		virtio_balloon_status(d->vdev, &s);
	} while (s.given_bytes);
	for (unsigned int i = 0; i < PAGES; i++)
		take(i);
	compare();
	guest_free_from(g, rings);
	drv_cfg_write(d, 4, 7, 2);
	drv_start(d, FEATURES, QUEUE_SIZE);
}

static void step(struct run *r)
{
	switch (byte(r) % 16u) {
	case 0 ... 5:
		list(r, INFLATE);
		break;
	case 6 ... 9:
		list(r, DEFLATE);
		break;
	case 10:
	case 11:
		report(r);
		break;
	case 12:
		set_hw(!model.has_hw);
		break;
	case 13:
		d->dev->ops->quiesce(d->dev, 0);
		d->dev->ops->quiesce(d->dev, 1);
		d->dev->ops->resume(d->dev);
		break;
	case 14:
		reset(byte(r) & 1);
		break;
	case 15:
		virtio_balloon_set(d->vdev, byte(r) * (uint64_t)PAGE);
		drv_bar_write(d, d->config + 4, byte(r), 4);
		break;
	}
	compare();
}

static void on_event(void *opaque, enum virtio_balloon_event event, const char *text)
{
	(void)opaque;
	(void)text;
	check(event == VIRTIO_BALLOON_REACHED);
}

static void set_up(void)
{
	struct guest_config config = {.backend = LOOP_EPOLL};
	struct virtio_balloon_setup setup = {
		.name = "balloon", .reporting = true, .event = on_event};
	struct virtio_device *vdev;

	if (g)
		return;
	g = guest_create(&config);
	gmem = guest_memory(g);
	check(!reclaim_enable(gmem, RECLAIM_MAX_GRANULE, NULL));
	setup.loop = guest_loop(g, 0);
	setup.gmem = gmem;
	check(!virtio_balloon_create(&vdev, &setup, guest_log(g), NULL));
	d = drv_create(g, vdev);
	lists = guest_alloc(g, LIST_MAX * sizeof(le32) + 8, PAGE);
	rings = guest_alloc(g, PAGE, PAGE);
	drv_start(d, FEATURES, QUEUE_SIZE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct run r = {data, size};

	set_up();
	for (unsigned int i = 0; i < PAGES; i++) {
		*word(i) = i + 1;
		model.given[i] = model.zero[i] = false;
	}
	for (unsigned int i = 0; i < MAX_STEPS && r.left; i++)
		step(&r);
	compare_content();
	set_hw(false);
	reset(false);
	return 0;
}
