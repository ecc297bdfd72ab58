// SPDX-License-Identifier: Apache-2.0
// The loads of the benchmarks, in the guest and at the other end of its network: no more
// instructions than the job needs, an exact number of operations, and a line on the console before
// and after.
//
//   load blk DEV HOW BLOCK DEPTH COUNT   reads, O_DIRECT, by the kernel's AIO; HOW: seq, rand: the
//                                        offsets, into pages as they come; scattered, huge: random
//                                        offsets, into pages that lie apart, into huge pages
//   load pread FILE BLOCK COUNT               the same reads without a guest; prints their ns
//   load serve PORT                           the other end: one connection after the other
//   load rr HOST PORT SIZE COUNT              requests of SIZE bytes, answers of as many
//   load latency HOST PORT SIZE COUNT         the same, one by one by the clock; prints median,
//                                             99th percentile and largest, in ns
//   load send HOST PORT SIZE COUNT            COUNT writes of SIZE bytes, acknowledged at the end
//   load receive HOST PORT SIZE COUNT         the same the other way
//
// At its end a load says how many operations it made, and (but for pread) how many ns this machine
// was busy. A client tells the server what it wants in 24 bytes: kind, size, count (little-endian,
// 64 bits).
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/fs.h>

enum kind { RR, SEND, RECEIVE };
enum { BUFFER_BYTES = 256 << 10, DEPTH_MAX = 256 };

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void mark(const char *what, unsigned long long n)
{
	printf("BENCH %s %llu\n", what, n);
	fflush(stdout);
}

/* As many characters whatever the numbers: each may be a return to user space. */
static void mark_busy(unsigned long long n, unsigned long long ns)
{
	printf("BENCH end %08llu %012llu\n", n, ns);
	fflush(stdout);
}

/* Nanoseconds in which this machine, of one CPU, was not idle, by the kernel's list of timers. */
static unsigned long long busy_ns(void)
{
	FILE *f = fopen("/proc/timer_list", "r");
	unsigned long long idle = 0, ns;
	struct timespec now;
	char line[256];

	if (!f)
		die("/proc/timer_list");
	clock_gettime(CLOCK_MONOTONIC, &now);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, " .idle_sleeptime : %llu", &ns) == 1 ||
		    sscanf(line, " .iowait_sleeptime : %llu", &ns) == 1)
			idle += ns;
	fclose(f);
	return (unsigned long long)now.tv_sec * 1000000000u + (unsigned long long)now.tv_nsec -
	       idle;
}

/* xorshift: the same offsets in every run. */
static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

struct blk {
	int fd;
	bool random;
	uint32_t block;
	uint64_t blocks;
	uint64_t next;
	uint64_t seed;
	uint8_t *buffers;
	struct iocb iocbs[DEPTH_MAX];
};

static uint64_t frame_of(const void *page)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (fd < 0 ||
	    pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)page >> 12 << 3)) != sizeof(entry))
		die("/proc/self/pagemap");
	close(fd);
	return entry & ((1ull << 55) - 1);
}

static uint8_t *anonymous(size_t bytes, int advice)
{
	uint8_t *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		die("mmap");
	if (advice && madvise(at, bytes, advice))
		die("madvise");
	return at;
}

/* Each page has another one between it and its neighbour, mostly; where it has not, others are
 * tried. */
static uint8_t *scattered(size_t bytes)
{
	uint8_t *at = anonymous(bytes, MADV_NOHUGEPAGE);
	uint8_t *between = anonymous(8 * bytes, MADV_NOHUGEPAGE);
	uint64_t last = 0;

	for (size_t i = 0, spare = 0; i < bytes; i += 4096) {
		for (int tries = 0; tries < 4; tries++) {
			uint64_t frame;

			between[spare] = 1;
			spare += 4096;
			at[i] = 1;
			frame = frame_of(at + i);
			if (frame != last + 1) {
				last = frame;
				break;
			}
			if (tries == 3)
				die("no page apart");
			madvise(at + i, 4096, MADV_DONTNEED);
		}
	}
	return at;
}

static bool is_contiguous(const uint8_t *at, size_t bytes)
{
	for (size_t i = 4096; i < bytes; i += 4096) {
		if (frame_of(at + i) != frame_of(at) + i / 4096)
			return false;
	}
	return true;
}

/* Linux has them off on a machine of less than 512 MiB (hugepage_init), as these guests are. */
static void allow_huge_pages(void)
{
	static const char word[] = "madvise";
	int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, word, sizeof(word) - 1) < 0)
		die("cannot allow huge pages");
	close(fd);
}

/* Memory that is short of huge pages gives base pages, silently: that would be another load. */
static uint8_t *huge(size_t bytes)
{
	enum { HUGE_BYTES = 2 << 20, TRIES = 8 };

	allow_huge_pages();
	for (int i = 0; i < TRIES; i++) {
		uint8_t *at = anonymous(bytes + 2 * HUGE_BYTES, MADV_HUGEPAGE);

		at += HUGE_BYTES - (uintptr_t)at % HUGE_BYTES;
		memset(at, 1, bytes);
		if (is_contiguous(at, bytes))
			return at;
	}
	die("no huge page");
}

static uint8_t *blk_buffers(const char *how, size_t bytes)
{
	uint8_t *at;

	if (!strcmp(how, "scattered"))
		return scattered(bytes);
	if (!strcmp(how, "huge"))
		return huge(bytes);
	at = anonymous(bytes, 0);
	memset(at, 1, bytes);
	return at;
}

static void blk_prepare(struct blk *b, struct iocb *io)
{
	uint64_t at = b->random ? next_random(&b->seed) % b->blocks : b->next++ % b->blocks;

	io->aio_offset = (int64_t)(at * b->block);
}

static int blk_main(char **argv)
{
	static struct blk b = {.seed = 88172645463325252ull};
	unsigned long depth = strtoul(argv[3], NULL, 10), count = strtoul(argv[4], NULL, 10);
	struct io_event events[DEPTH_MAX];
	struct iocb *again[DEPTH_MAX];
	aio_context_t ctx = 0;
	uint64_t bytes = 0;

	b.fd = open(argv[0], O_RDONLY | O_DIRECT);
	if (b.fd < 0 || ioctl(b.fd, BLKGETSIZE64, &bytes) < 0)
		die(argv[0]);
	b.random = strcmp(argv[1], "seq");
	b.block = (uint32_t)strtoul(argv[2], NULL, 10);
	b.blocks = bytes / b.block;
	if (!depth || depth > DEPTH_MAX || !b.blocks)
		die("depth or block");
	b.buffers = blk_buffers(argv[1], b.block * depth);
	if (syscall(SYS_io_setup, DEPTH_MAX, &ctx) < 0)
		die("io_setup");
	unsigned long n = 0, given = 0, done = 0;

	for (; n < depth && n < count; n++) {
		struct iocb *io = &b.iocbs[n];

		io->aio_lio_opcode = IOCB_CMD_PREAD;
		io->aio_fildes = (uint32_t)b.fd;
		io->aio_buf = (uintptr_t)(b.buffers + n * b.block);
		io->aio_nbytes = b.block;
		blk_prepare(&b, io);
		again[n] = io;
	}
	uint64_t from;

	mark("begin", 0);
	from = busy_ns();
	while (done < count) {
		if (n && syscall(SYS_io_submit, ctx, n, again) != (long)n)
			die("io_submit");
		given += n;
		long got = syscall(SYS_io_getevents, ctx, 1, depth, events, NULL);

		if (got < 1)
			die("io_getevents");
		n = 0;
		for (long i = 0; i < got; i++) {
			struct iocb *io = (struct iocb *)(uintptr_t)events[i].obj;

			if (events[i].res != b.block)
				die("short read");
			if (given + n < count) {
				blk_prepare(&b, io);
				again[n++] = io;
			}
		}
		done += (unsigned long)got;
	}
	mark_busy(done, busy_ns() - from);
	return 0;
}

static uint8_t buffer[BUFFER_BYTES];

/* To memory that is there already, from what was read once: the copy, and no more. */
static int pread_main(char **argv)
{
	unsigned long block = strtoul(argv[1], NULL, 10), count = strtoul(argv[2], NULL, 10);
	int fd = open(argv[0], O_RDONLY);
	off_t bytes = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
	struct timespec from, to;

	if (!block || block > BUFFER_BYTES || bytes < (off_t)block)
		die(argv[0]);
	memset(buffer, 1, sizeof(buffer));
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (unsigned long i = 0; i < count; i++) {
		off_t at = (off_t)(i % ((unsigned long)bytes / block) * block);

		if (pread(fd, buffer, block, at) != (ssize_t)block)
			die("pread");
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	printf("BENCH pread %lld\n",
	       (to.tv_sec - from.tv_sec) * 1000000000ll + to.tv_nsec - from.tv_nsec);
	close(fd);
	return 0;
}

static void send_all(int fd, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = send(fd, buffer + done, len - done, MSG_NOSIGNAL);

		if (n <= 0)
			die("send");
		done += (size_t)n;
	}
}

static void receive_all(int fd, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n =
			recv(fd, buffer, len - done < BUFFER_BYTES ? len - done : BUFFER_BYTES, 0);

		if (n <= 0)
			die("recv");
		done += (size_t)n;
	}
}

static void no_delay(int fd)
{
	int on = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void serve_one(int fd)
{
	uint64_t want[3];

	no_delay(fd);
	if (recv(fd, want, sizeof(want), MSG_WAITALL) != (ssize_t)sizeof(want) ||
	    want[1] > BUFFER_BYTES)
		return;
	switch ((enum kind)want[0]) {
	case RR:
		for (uint64_t i = 0; i < want[2]; i++) {
			receive_all(fd, want[1]);
			send_all(fd, want[1]);
		}
		break;
	case SEND:
		receive_all(fd, want[1] * want[2]);
		send_all(fd, 1);
		break;
	case RECEIVE:
		for (uint64_t i = 0; i < want[2]; i++)
			send_all(fd, want[1]);
		break;
	}
}

static int serve_main(char **argv)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	int s = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	addr.sin_port = htons((uint16_t)strtoul(argv[0], NULL, 10));
	(void)setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(s, (struct sockaddr *)&addr, sizeof(addr)) || listen(s, 16))
		die("listen");
	for (;;) {
		int fd = accept(s, NULL, NULL);

		if (fd < 0)
			die("accept");
		serve_one(fd);
		close(fd);
	}
}

static uint64_t clock_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void ask_by_the_clock(int fd, size_t size, uint64_t count)
{
	uint64_t *took = calloc(count, sizeof(*took));

	if (!took || !count)
		die("how often");
	for (uint64_t i = 0; i < count; i++) {
		uint64_t start = clock_now();

		send_all(fd, size);
		receive_all(fd, size);
		took[i] = clock_now() - start;
	}
	qsort(took, count, sizeof(*took), compare);
	printf("BENCH latency %llu %llu %llu\n", (unsigned long long)took[count / 2],
	       (unsigned long long)took[count * 99 / 100], (unsigned long long)took[count - 1]);
	free(took);
}

static int client_main(enum kind kind, bool by_the_clock, char **argv)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	uint64_t want[3] = {kind, strtoul(argv[2], NULL, 10), strtoul(argv[3], NULL, 10)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	addr.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
	if (inet_pton(AF_INET, argv[0], &addr.sin_addr) != 1 || want[1] > BUFFER_BYTES ||
	    connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		die(argv[0]);
	no_delay(fd);
	if (send(fd, want, sizeof(want), 0) != (ssize_t)sizeof(want))
		die("send");
	mark("begin", 0);
	uint64_t from = busy_ns();

	switch (kind) {
	case RR:
		if (by_the_clock)
			ask_by_the_clock(fd, want[1], want[2]);
		for (uint64_t i = 0; !by_the_clock && i < want[2]; i++) {
			send_all(fd, want[1]);
			receive_all(fd, want[1]);
		}
		break;
	case SEND:
		for (uint64_t i = 0; i < want[2]; i++)
			send_all(fd, want[1]);
		receive_all(fd, 1);
		break;
	case RECEIVE:
		receive_all(fd, want[1] * want[2]);
		break;
	}
	mark_busy(want[2], busy_ns() - from);
	close(fd);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "blk") && argc == 7)
		return blk_main(argv + 2);
	if (!strcmp(what, "pread") && argc == 5)
		return pread_main(argv + 2);
	if (!strcmp(what, "serve") && argc == 3)
		return serve_main(argv + 2);
	if (!strcmp(what, "rr") && argc == 6)
		return client_main(RR, false, argv + 2);
	if (!strcmp(what, "latency") && argc == 6)
		return client_main(RR, true, argv + 2);
	if (!strcmp(what, "send") && argc == 6)
		return client_main(SEND, false, argv + 2);
	if (!strcmp(what, "receive") && argc == 6)
		return client_main(RECEIVE, false, argv + 2);
	fprintf(stderr, "load: see the head of its source\n");
	return 2;
}
