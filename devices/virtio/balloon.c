// SPDX-License-Identifier: Apache-2.0
// virtio-balloon: the queues give pages to core/reclaim.h and take them from there.
//
// A chain may name any number of pages. What one iteration of the loop does for it is bounded by
// time; then the chain goes back to its ring, and the next iteration goes on where this one ended.
// So nothing is in flight between iterations, and a page that is given or taken twice is harmless.
#include "virtio/balloon.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "base/clock.h"
#include "base/le.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/reclaim.h"
#include "core/state.h"

enum {
	QUEUE_SIZE = 128,
	INFLATE = 0,
	DEFLATE = 1,
	STATS = 2,
	QUEUES = 5,
	BATCH = 256, /* page numbers that are read at once */
	CONFIG_BYTES = 8,
};

/* Of a report: so much between two looks at the clock. */
#define REPORT_BYTES ((uint64_t)8 << 20)
#define RETRY_NS     NS_PER_S
#define PAGE_BYTES   ((uint64_t)1 << VIRTIO_BALLOON_PFN_SHIFT)

static_assert(offsetof(struct virtio_balloon_config, free_page_hint_cmd_id) == CONFIG_BYTES,
	      "virtio 1.3, 5.5.4");
static_assert(sizeof(struct virtio_balloon_stat) == 10, "virtio 1.3, 5.5.6.3");

const char *const virtio_balloon_stat_names[VIRTIO_BALLOON_STATS] = {
	[VIRTIO_BALLOON_S_SWAP_IN] = "swap_in_bytes",
	[VIRTIO_BALLOON_S_SWAP_OUT] = "swap_out_bytes",
	[VIRTIO_BALLOON_S_MAJFLT] = "major_faults",
	[VIRTIO_BALLOON_S_MINFLT] = "minor_faults",
	[VIRTIO_BALLOON_S_MEMFREE] = "free_bytes",
	[VIRTIO_BALLOON_S_MEMTOT] = "total_bytes",
	[VIRTIO_BALLOON_S_AVAIL] = "available_bytes",
	[VIRTIO_BALLOON_S_CACHES] = "cache_bytes",
	[VIRTIO_BALLOON_S_HTLB_PGALLOC] = "huge_page_allocations",
	[VIRTIO_BALLOON_S_HTLB_PGFAIL] = "huge_page_failures",
};

/* What became of a chain. */
enum step {
	STEP_DONE,
	STEP_MORE,  /* the time is over */
	STEP_WAITS, /* a page cannot be taken back */
	STEP_BROKEN,
};

struct balloon_queue {
	struct virtq_chain chain;
	struct iovec segments[VIRTQ_MAX_SEGMENTS];
	uint64_t done; /* bytes of the chain at the head of the ring, or of its buffers */
};

struct balloon {
	struct virtio_device vdev;
	struct gmem *gmem;
	struct reclaim *reclaim;
	void (*event)(void *opaque, enum virtio_balloon_event event, const char *text);
	void *opaque;
	unsigned int stats_s;

	/* Written under the device's lock; read by any thread. */
	uint32_t target, actual; /* pages */
	bool armed;              /* the target was set and not reached since; under that lock */
	_Atomic bool dropped;    /* a reset left pages that have to be taken back */

	/* The loop's. */
	struct balloon_queue queues[QUEUES];
	struct loop_op stats_op;       /* until statistics are asked for */
	struct loop_op retry_op;       /* until a map is tried again */
	struct loop_op back_op;        /* posted: take back more */
	struct virtio_queue *back_for; /* whose reset waits for that */
	uint64_t back_at;              /* gpa */
	bool back_failed;              /* pages of an earlier driver have yet to be taken back */
	bool waits;                    /* the guest does, and that was reported */
	uint64_t reported_bytes, kept_bytes;
	uint64_t stats_ns;
	uint32_t has_stats;
	uint64_t stats[VIRTIO_BALLOON_STATS];
};

static struct balloon *of_vdev(const struct virtio_device *vdev)
{
	return container_of((struct virtio_device *)(uintptr_t)vdev, struct balloon, vdev);
}

static bool is_over(uint64_t end_ns)
{
	return clock_ns() >= end_ns;
}

static uint64_t given_bytes(const struct balloon *b)
{
	struct reclaim_totals totals;

	reclaim_totals(b->reclaim, &totals);
	return totals.given_bytes;
}

/* --- everything back --- */

static void not_mapped(struct balloon *b, int code)
{
	char text[160];

	if (b->waits)
		return;
	b->waits = true;
	snprintf(
		text, sizeof(text),
		"memory that the guest wants back cannot be mapped for passed-through devices: %s; "
		"the guest waits for it",
		err_name(code));
	log_error(b->vdev.log, b->vdev.name, "%s", text);
	b->event(b->opaque, VIRTIO_BALLOON_NOT_MAPPED, text);
}

static void is_mapped(struct balloon *b)
{
	if (b->waits)
		log_info(b->vdev.log, b->vdev.name, "the guest has its memory back");
	b->waits = false;
}

/* For a share of time; true when more is left. */
static bool take_back(struct balloon *b)
{
	uint64_t end_ns = clock_ns() + VIRTIO_SHARE_NS;
	int ret;

	do
		ret = reclaim_take_next(b->reclaim, &b->back_at);
	while (ret > 0 && !is_over(end_ns));
	if (ret > 0)
		return true;
	b->back_at = 0;
	b->back_failed = ret < 0;
	atomic_store(&b->dropped, false);
	if (ret)
		not_mapped(b, ret);
	else
		is_mapped(b);
	return false;
}

static void retry_later(struct balloon *b)
{
	struct virtio_queue *q = &b->vdev.queues[DEFLATE];

	if (b->retry_op.in_flight)
		return;
	virtio_queue_hold(q);
	loop_timer(q->loop, &b->retry_op, RETRY_NS);
}

/* The queue's stop waits for it. */
static void take_back_for(struct balloon *b, struct virtio_queue *q)
{
	if (b->back_for || !given_bytes(b))
		return;
	b->back_for = q;
	virtio_queue_hold(q);
	loop_post(q->loop, &b->back_op);
}

/* It is over: with success, or as far as it goes now. */
static void serve_again(struct balloon *b)
{
	if (b->back_failed && virtio_queue_running(&b->vdev.queues[DEFLATE]))
		retry_later(b);
	for (unsigned int i = 0; i < b->vdev.n_queues; i++) {
		if (virtio_queue_running(&b->vdev.queues[i]))
			virtio_queue_again(&b->vdev.queues[i]);
	}
}

static void back_done(struct loop_op *op, int result)
{
	struct balloon *b = container_of(op, struct balloon, back_op);
	struct virtio_queue *q = b->back_for;

	(void)result;
	if (take_back(b)) {
		loop_post(q->loop, op);
		return;
	}
	b->back_for = NULL;
	serve_again(b);
	virtio_queue_release(q);
}

/* After a reset while the queues were off. */
static void work(struct virtio_queue *q)
{
	struct balloon *b = of_vdev(q->vdev);

	if (!atomic_load(&b->dropped) || b->back_for)
		return;
	if (take_back(b)) {
		pthread_mutex_lock(q->owner->lock);
		virtio_queue_post(q);
		pthread_mutex_unlock(q->owner->lock);
		return;
	}
	serve_again(b);
}

static void retry_done(struct loop_op *op, int result)
{
	struct balloon *b = container_of(op, struct balloon, retry_op);
	struct virtio_queue *q = &b->vdev.queues[DEFLATE];

	if (!result && virtio_queue_running(q)) {
		if (b->back_failed)
			take_back_for(b, q);
		virtio_queue_again(q);
	}
	virtio_queue_release(q);
}

static bool is_blocked(const struct balloon *b)
{
	return b->back_for || b->back_failed || atomic_load(&b->dropped);
}

static int start(struct virtio_queue *q)
{
	struct balloon *b = of_vdev(q->vdev);

	b->queues[q->index].done = 0;
	if (q->index == DEFLATE && b->back_failed)
		retry_later(b);
	return 0;
}

static void cancel(struct virtio_queue *q)
{
	struct balloon *b = of_vdev(q->vdev);

	if (q->index == DEFLATE)
		loop_cancel(q->loop, &b->retry_op);
	if (q->index == STATS)
		loop_cancel(q->loop, &b->stats_op);
	if (virtq_state(q->vq) == VIRTQ_ABANDONING)
		take_back_for(b, q);
}

/* --- inflate, deflate --- */

/* A run of pages, which may descend: how many of the numbers it takes. */
static unsigned int find_run(const le32 *pfns, unsigned int n, uint64_t *gpa, uint64_t *bytes)
{
	uint64_t first = le32_get(pfns[0]), last = first;
	unsigned int i;

	for (i = 1; i < n; i++) {
		uint64_t pfn = le32_get(pfns[i]);

		if (pfn == last + 1)
			last = pfn;
		else if (pfn + 1 == first)
			first = pfn;
		else
			break;
	}
	*gpa = first << VIRTIO_BALLOON_PFN_SHIFT;
	*bytes = (last - first + 1) << VIRTIO_BALLOON_PFN_SHIFT;
	return i;
}

/* What the guest gives wrongly stays as it is. */
static void give(struct balloon *b, uint64_t gpa, uint64_t bytes)
{
	int ret = virtio_has(&b->vdev, VIRTIO_BALLOON_F_MUST_TELL_HOST)
			  ? reclaim_give(b->reclaim, gpa, bytes)
			  : reclaim_report(b->reclaim, gpa, bytes);

	if (ret && ret != -EBUSY)
		log_guest(b->vdev.log, &b->vdev.limit, b->vdev.name,
			  "%llu KiB at 0x%llx stay with the guest: %s",
			  (unsigned long long)(bytes / KiB), (unsigned long long)gpa,
			  err_name(ret));
}

static bool take(struct balloon *b, uint64_t gpa, uint64_t bytes)
{
	int ret = reclaim_take(b->reclaim, gpa, bytes);

	if (ret)
		not_mapped(b, ret);
	else
		is_mapped(b);
	return !ret;
}

/* Pages of the chain, from bq->done on. */
static enum step serve_pages(struct balloon *b, struct balloon_queue *bq, bool inflate,
			     uint64_t end_ns)
{
	const struct virtq_chain *chain = &bq->chain;

	while (bq->done + sizeof(le32) <= chain->out_bytes) {
		le32 pfns[BATCH];
		unsigned int n = (unsigned int)(iov_to_buf(chain->out, chain->n_out, bq->done, pfns,
							   sizeof(pfns)) /
						sizeof(le32));

		for (unsigned int i = 0, run; i < n; i += run) {
			uint64_t gpa, bytes;

			run = find_run(pfns + i, n - i, &gpa, &bytes);
			if (inflate)
				give(b, gpa, bytes);
			else if (!take(b, gpa, bytes))
				return STEP_WAITS;
			bq->done += run * sizeof(le32);
			if (is_over(end_ns))
				return STEP_MORE;
		}
	}
	return STEP_DONE;
}

/* --- reports --- */

static void report(struct balloon *b, const struct iovec *segment, uint64_t at, uint64_t bytes)
{
	uint64_t gpa, first, last;

	if (!gmem_find_host(b->gmem, (char *)segment->iov_base + at, bytes, &gpa))
		return;
	first = align_up(gpa, PAGE_BYTES);
	last = align_down(gpa + bytes, PAGE_BYTES);
	if (first >= last)
		return;
	if (reclaim_report(b->reclaim, first, last - first))
		b->kept_bytes += last - first;
	else
		b->reported_bytes += last - first;
}

static enum step serve_reports(struct balloon *b, struct balloon_queue *bq, uint64_t end_ns)
{
	const struct virtq_chain *chain = &bq->chain;
	uint64_t before = 0;

	for (unsigned int i = 0; i < chain->n_in; i++) {
		const struct iovec *segment = &chain->in[i];

		while (bq->done < before + segment->iov_len) {
			uint64_t at = bq->done - before;
			uint64_t n = MIN(segment->iov_len - at, REPORT_BYTES);

			report(b, segment, at, n);
			bq->done += n;
			if (is_over(end_ns))
				return STEP_MORE;
		}
		before += segment->iov_len;
	}
	return STEP_DONE;
}

/* --- statistics --- */

static void read_stats(struct balloon *b, const struct virtq_chain *chain)
{
	/* More than there are tags says nothing new. */
	struct virtio_balloon_stat stats[4 * VIRTIO_BALLOON_STATS];
	size_t n = iov_to_buf(chain->out, chain->n_out, 0, stats, sizeof(stats)) / sizeof(stats[0]);

	b->has_stats = 0;
	for (size_t i = 0; i < n; i++) {
		unsigned int tag = le16toh(stats[i].tag);

		if (tag >= VIRTIO_BALLOON_STATS)
			continue;
		b->stats[tag] = le64toh(stats[i].val);
		b->has_stats |= 1u << tag;
	}
	b->stats_ns = clock_ns();
}

/* The driver's buffer stays in the ring until it is to be filled anew. */
static bool serve_stats(struct virtio_queue *q)
{
	struct balloon *b = of_vdev(q->vdev);
	struct virtq_chain *chain = &b->queues[STATS].chain;

	virtq_kick_disable(q->vq);
	if (b->stats_op.in_flight)
		return false;
	if (virtq_pop(q->vq, chain) <= 0)
		return virtq_kick_enable(q->vq);
	read_stats(b, chain);
	virtq_unpop(q->vq, chain);
	virtio_queue_hold(q);
	loop_timer(q->loop, &b->stats_op, b->stats_s * NS_PER_S);
	return false;
}

static void stats_due(struct loop_op *op, int result)
{
	struct balloon *b = container_of(op, struct balloon, stats_op);
	struct virtio_queue *q = &b->vdev.queues[STATS];
	struct virtq_chain *chain = &b->queues[STATS].chain;

	if (!result && virtio_queue_running(q)) {
		if (virtq_pop(q->vq, chain) > 0)
			virtq_push(q->vq, chain, 0);
		if (virtq_kick_enable(q->vq))
			virtio_queue_again(q);
	}
	virtio_queue_release(q);
}

/* --- service --- */

static enum step serve_chain(struct balloon *b, struct virtio_queue *q, uint64_t end_ns)
{
	struct balloon_queue *bq = &b->queues[q->index];

	if (bq->chain.truncated) {
		virtq_break(q->vq, "a request of more than %d segments", VIRTQ_MAX_SEGMENTS);
		return STEP_BROKEN;
	}
	if (q->index > DEFLATE)
		return serve_reports(b, bq, end_ns);
	return serve_pages(b, bq, q->index == INFLATE, end_ns);
}

static bool serve_chains(struct balloon *b, struct virtio_queue *q)
{
	struct balloon_queue *bq = &b->queues[q->index];
	uint64_t end_ns = clock_ns() + VIRTIO_SHARE_NS;

	do {
		virtq_kick_disable(q->vq);
		while (virtq_pop(q->vq, &bq->chain) > 0) {
			enum step step = serve_chain(b, q, end_ns);

			if (step != STEP_DONE) {
				virtq_unpop(q->vq, &bq->chain);
				if (step == STEP_WAITS)
					retry_later(b);
				return step == STEP_MORE;
			}
			bq->done = 0;
			virtq_push(q->vq, &bq->chain, 0);
			if (is_over(end_ns))
				return true;
		}
	} while (virtq_kick_enable(q->vq));
	return false;
}

static bool serve(struct virtio_queue *q)
{
	struct balloon *b = of_vdev(q->vdev);

	if (is_blocked(b) || (q->index == DEFLATE && b->retry_op.in_flight))
		return false;
	if (q->index == STATS && virtio_has(q->vdev, VIRTIO_BALLOON_F_STATS_VQ))
		return serve_stats(q);
	return serve_chains(b, q);
}

static const struct virtio_queue_ops queue_ops = {
	.start = start,
	.serve = serve,
	.cancel = cancel,
	.work = work,
};

/* --- the device --- */

static void balloon_config_read(struct virtio_device *vdev, uint32_t offset, void *buf,
				unsigned int len)
{
	const struct balloon *b = of_vdev(vdev);
	const le32 space[] = {le32_of(b->target), le32_of(b->actual)};

	static_assert(sizeof(space) == CONFIG_BYTES, "virtio 1.3, 5.5.4");
	memcpy(buf, (const uint8_t *)space + offset, len);
}

/* Under the device's lock. */
static void look_at_target(struct balloon *b)
{
	char text[40];

	if (!b->armed || b->actual != b->target)
		return;
	b->armed = false;
	snprintf(text, sizeof(text), "%llu",
		 (unsigned long long)b->actual << VIRTIO_BALLOON_PFN_SHIFT);
	b->event(b->opaque, VIRTIO_BALLOON_REACHED, text);
}

static void balloon_config_write(struct virtio_device *vdev, uint32_t offset, const void *buf,
				 unsigned int len)
{
	struct balloon *b = of_vdev(vdev);
	le32 space[] = {le32_of(b->target), le32_of(b->actual)};

	memcpy((uint8_t *)space + offset, buf, len);
	__atomic_store_n(&b->actual, le32_get(space[1]), __ATOMIC_RELAXED);
	look_at_target(b);
}

void virtio_balloon_set(struct virtio_device *vdev, uint64_t target_bytes)
{
	struct balloon *b = of_vdev(vdev);

	virtio_config_begin(vdev);
	__atomic_store_n(&b->target, (uint32_t)(target_bytes >> VIRTIO_BALLOON_PFN_SHIFT),
			 __ATOMIC_RELAXED);
	b->armed = true;
	look_at_target(b);
	virtio_config_end(vdev, true);
}

static void balloon_reset(struct virtio_device *vdev)
{
	struct balloon *b = of_vdev(vdev);

	__atomic_store_n(&b->actual, 0, __ATOMIC_RELAXED);
	b->armed = b->target; /* the next driver goes there too */
	if (given_bytes(b) && !atomic_exchange(&b->dropped, true))
		virtio_queue_post(&vdev->queues[DEFLATE]);
}

void virtio_balloon_status(struct virtio_device *vdev, struct virtio_balloon_status *ret)
{
	const struct balloon *b = of_vdev(vdev);
	struct reclaim_totals totals;

	reclaim_totals(b->reclaim, &totals);
	*ret = (struct virtio_balloon_status){
		.target_bytes = (uint64_t)__atomic_load_n(&b->target, __ATOMIC_RELAXED)
				<< VIRTIO_BALLOON_PFN_SHIFT,
		.actual_bytes = (uint64_t)__atomic_load_n(&b->actual, __ATOMIC_RELAXED)
				<< VIRTIO_BALLOON_PFN_SHIFT,
		.given_bytes = totals.given_bytes,
		.out_bytes = totals.out_bytes,
		.reported_bytes = b->reported_bytes,
		.kept_bytes = b->kept_bytes,
		.waits = b->waits,
		.stats_ns = b->stats_ns,
		.has_stats = b->has_stats,
	};
	memcpy(ret->stats, b->stats, sizeof(ret->stats));
}

int virtio_balloon_deflate(struct gmem *gmem)
{
	struct reclaim *r = gmem_reclaim(gmem);
	uint64_t gpa = 0;
	int ret;

	do
		ret = r ? reclaim_take_next(r, &gpa) : 0;
	while (ret > 0);
	return ret;
}

static void balloon_destroy(struct virtio_device *vdev)
{
	if (!vdev)
		return;
	virtio_device_done(vdev);
	free(of_vdev(vdev));
}

static const struct state_field balloon_fields[] = {
	STATE_ONE(struct balloon, target),
	STATE_ONE(struct balloon, actual),
	STATE_ONE(struct balloon, armed),
};

STATE_DERIVED(struct balloon, "has sections of its own", vdev);
STATE_DERIVED(struct balloon, "of this machine", event, opaque, stats_s);
STATE_DERIVED(struct balloon,
	      "given pages are memory without content: a machine that is loaded has none of them "
	      "given, and taking them back needs nothing",
	      gmem, reclaim, dropped, back_op, back_for, back_at, back_failed, waits);
STATE_DERIVED(struct balloon,
	      "nothing is in flight while the queues are off, and a chain that was "
	      "served in part is served again",
	      queues, stats_op, retry_op);
STATE_DERIVED(struct balloon, "for the status", reported_bytes, kept_bytes, stats_ns, has_stats,
	      stats);

static const struct state_section balloon_section =
	STATE_SECTION("balloon", 1, struct balloon, balloon_fields);

static const struct virtio_device_ops balloon_ops = {
	.id = VIRTIO_ID_BALLOON,
	.type = "virtio-balloon",
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.reset = balloon_reset,
	.state = &balloon_section,
	.destroy = balloon_destroy,
};

static void set_up(struct balloon *b, const struct virtio_balloon_setup *setup)
{
	b->gmem = setup->gmem;
	b->reclaim = gmem_reclaim(setup->gmem);
	b->event = setup->event;
	b->opaque = setup->opaque;
	b->stats_s = setup->stats_s;
	b->stats_op.done = stats_due;
	b->retry_op.done = retry_done;
	b->back_op.done = back_done;
	b->vdev.config_bytes = CONFIG_BYTES;
	b->vdev.features_offered =
		1ull << VIRTIO_BALLOON_F_MUST_TELL_HOST |
		(setup->stats_s ? 1ull << VIRTIO_BALLOON_F_STATS_VQ : 0) |
		(setup->deflate_on_oom ? 1ull << VIRTIO_BALLOON_F_DEFLATE_ON_OOM : 0) |
		(setup->reporting ? 1ull << VIRTIO_BALLOON_F_REPORTING : 0);
	/* A reset of one queue would say nothing about what was given. */
	b->vdev.features_withheld = 1ull << VIRTIO_F_RING_RESET;
	for (unsigned int i = 0; i < b->vdev.n_queues; i++) {
		b->queues[i].chain.iov = b->queues[i].segments;
		b->queues[i].chain.max_iov = VIRTQ_MAX_SEGMENTS;
		b->vdev.queues[i].ops = &queue_ops;
		b->vdev.queues[i].loop = setup->loop;
		b->vdev.queues[i].max_size = QUEUE_SIZE;
	}
}

int virtio_balloon_create(struct virtio_device **ret, const struct virtio_balloon_setup *setup,
			  const struct log *log, struct err *err)
{
	unsigned int n_queues = setup->reporting ? QUEUES : setup->stats_s ? STATS + 1 : STATS;
	struct balloon *b;
	int r;

	if (!mem_new(b))
		return err_set(err, -ENOMEM, "%s: no memory", setup->name);
	r = virtio_device_init(&b->vdev, &balloon_ops, setup->name, log, n_queues, err);
	if (r) {
		free(b);
		return r;
	}
	set_up(b, setup);
	*ret = &b->vdev;
	return 0;
}
