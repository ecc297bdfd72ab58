// SPDX-License-Identifier: Apache-2.0
// The watch for DMA faults: reads /dev/kmsg on the loop. fault_parse.c parses a record.
#include "iommu/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/num.h"
#include "core/loop.h"

enum {
	RECORD_BYTES = 8192, /* more than the kernel's limit, PRINTKRB_RECORD_MAX */
	RECORDS_PER_ITERATION = 64,
};

/* The loop's thread's. */
struct fault_watch {
	struct loop *loop;
	const struct log *log;
	fault_fn *fn;
	void *opaque;
	int fd; /* -1: no source */
	bool ending;
	struct loop_op op; /* poll */
	char source[120];
	char record[RECORD_BYTES];
};

/* The log's clock only approximates ours: correct a time in the future, or too far in the past. */
static uint64_t settle_time(uint64_t when_ns)
{
	uint64_t now_ns = clock_ns();

	return when_ns > now_ns || now_ns - when_ns > 10000000000 ? now_ns : when_ns;
}

static void read_records(struct fault_watch *watch)
{
	struct iommu_fault fault;

	for (unsigned int i = 0; i < RECORDS_PER_ITERATION && !watch->ending; i++) {
		ssize_t n = read(watch->fd, watch->record, sizeof(watch->record));

		if (n < 0 && errno == EPIPE) /* unread records were overwritten */
			continue;
		if (n < 0 && (errno == EINTR || errno == EINVAL)) /* EINVAL: longer than we read */
			continue;
		if (n <= 0)
			return;
		if (!fault_parse_kmsg(watch->record, (unsigned int)n, &fault))
			continue;
		fault.when_ns = settle_time(fault.when_ns);
		watch->fn(watch->opaque, &fault);
	}
}

static void on_readable(struct loop_op *op, int result)
{
	struct fault_watch *watch = container_of(op, struct fault_watch, op);

	if (watch->ending)
		return;
	if (result < 0) {
		snprintf(watch->source, sizeof(watch->source), "none: /dev/kmsg: %s",
			 err_name(result));
		log_warn(watch->log, "iommu", "DMA faults are not seen any more: /dev/kmsg: %s",
			 err_name(result));
		return;
	}
	read_records(watch);
	loop_poll(watch->loop, &watch->op, watch->fd, POLLIN);
}

static void open_source(struct fault_watch *watch)
{
	int code;

	watch->fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	/* Skip what was logged before. */
	if (watch->fd >= 0 && lseek(watch->fd, 0, SEEK_END) >= 0) {
		snprintf(watch->source, sizeof(watch->source), "kernel log");
		return;
	}
	code = -errno;
	fd_close(&watch->fd);
	snprintf(watch->source, sizeof(watch->source), "none: /dev/kmsg: %s%s", err_name(code),
		 code == -EPERM || code == -EACCES ? " (kernel.dmesg_restrict=0 permits it)" : "");
}

int fault_watch_create(struct fault_watch **ret, struct loop *loop, const struct log *log,
		       fault_fn *fn, void *opaque, struct err *err)
{
	struct fault_watch *watch;

	if (!mem_new(watch))
		return err_set(err, -ENOMEM, "DMA faults: out of memory");
	watch->loop = loop;
	watch->log = log;
	watch->fn = fn;
	watch->opaque = opaque;
	watch->op.done = on_readable;
	open_source(watch);
	if (watch->fd >= 0)
		loop_poll(loop, &watch->op, watch->fd, POLLIN);
	*ret = watch;
	return 0;
}

void fault_watch_destroy(struct fault_watch *watch)
{
	if (!watch)
		return;
	watch->ending = true;
	loop_cancel(watch->loop, &watch->op);
	while (watch->op.in_flight) {
		if (loop_iterate(watch->loop, true))
			break;
	}
	fd_close(&watch->fd);
	free(watch);
}

const char *fault_source(const struct fault_watch *watch)
{
	return watch->source;
}
