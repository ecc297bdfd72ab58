/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory: one map of guest-physical address space, made of regions.
 *
 *   gpa 0            low_end      4 GiB                 high_end
 *    |--- region(s) ---|   hole     |---- region(s) ------|
 *
 * A region is {gpa, size, backing}. The map changes by transactions: a change is prepared, offered
 * to every listener (KVM memslots, I/O address spaces, vhost, dirty tracking) in the order in which
 * they registered, and takes effect only when all accepted; a refusal undoes the others in reverse.
 * Each listener is notified of removals before additions, since an addition may take a removed
 * place. A listener that gives hardware access maps before the guest may use the memory and unmaps
 * before it is given back.
 *
 * Threads: transactions and creation belong to one thread at a time (the machine's); a transaction
 * and the coming and going of listeners hold a lock of the map, so listeners may come and go by any
 * thread. That lock is taken before those of listeners: whoever changes listeners under a lock that
 * a listener takes, holds the map first (gmem_hold). gmem_host() and friends may be called by any
 * thread at any time: the table they read is swapped as a whole, and a region that is removed stays
 * mapped in hospes until gmem_quiesce() or destroy. While it is, adding it again (the same place,
 * size and name, in base pages) brings it back, empty.
 *
 * A region may be private one day (confidential guests): then gmem_host() fails for it. So no code
 * may keep "the pointer to all guest memory".
 */
#ifndef CORE_GMEM_H
#define CORE_GMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/err.h"
#include "base/list.h"
#include "base/log.h"

struct gmem;
struct reclaim;

enum gmem_backing {
	GMEM_AUTO,       /* anonymous, unless something shares the memory: then memfd */
	GMEM_ANONYMOUS,  /* private mapping, transparent huge pages by madvise */
	GMEM_MEMFD,      /* shared, sealed against shrinking and growing */
	GMEM_HUGETLB_2M, /* memfd of 2 MiB pages, reserved at creation */
	GMEM_HUGETLB_1G,
	GMEM_FD, /* an fd handed in by the embedder; shared */
};

/* What GMEM_AUTO stands for. */
static inline enum gmem_backing gmem_backing_for(enum gmem_backing backing, bool share)
{
	if (backing != GMEM_AUTO)
		return backing;
	return share ? GMEM_MEMFD : GMEM_ANONYMOUS;
}

enum gmem_flags {
	GMEM_READONLY = 1 << 0, /* ROM: guest writes exit as MMIO; never a DMA target for writing */
	GMEM_NO_DMA = 1 << 1,   /* never mapped into an I/O address space */
};

struct gmem_region_config {
	const char *name;    /* for messages; copied */
	uint64_t gpa;        /* aligned to the backing's page size */
	uint64_t size_bytes; /* likewise, not 0 */
	enum gmem_backing backing;
	unsigned int flags; /* enum gmem_flags */
	int numa_node;      /* host node to bind to, -1 for none */
	bool share;         /* something outside this process will map it */
	bool small_pages;   /* no transparent huge pages: parts of one are to leave (reclaim.h) */
	bool populate;      /* touch all of its pages at once */
	int fd;             /* GMEM_FD: duplicated; otherwise ignored */
	uint64_t fd_offset;
};

/* What a listener and a walker see. Constant and valid while the region exists. */
struct gmem_region {
	uint64_t gpa;
	uint64_t size_bytes;
	void *hva;
	int fd; /* -1 for anonymous memory */
	uint64_t fd_offset;
	uint64_t page_bytes; /* of the backing: 4 KiB, 2 MiB or 1 GiB */
	bool small_pages;    /* of 4 KiB: and none of them transparently huge */
	unsigned int flags;
	int numa_node;
	const char *name;
};

int gmem_create(struct gmem **ret, const struct log *log, struct err *err);
/* Listeners are notified of the removal of every region first. */
void gmem_destroy(struct gmem *gmem);

/* A transaction. Between begin and commit only add and remove; one at a time. commit returns 0, or
 * the first refusal, with nothing changed, and ends the transaction either way; abort drops what
 * was prepared (harmless when there is none). gmem_add maps and binds the memory at once (so its
 * errors come early, naming size, backing and the remedy), but nobody sees it before commit.
 * gmem_remove names a region by its gpa. */
int gmem_begin(struct gmem *gmem, struct err *err);
int gmem_add(struct gmem *gmem, const struct gmem_region_config *config, struct err *err);
int gmem_remove(struct gmem *gmem, uint64_t gpa, struct err *err);
int gmem_commit(struct gmem *gmem, struct err *err);
void gmem_abort(struct gmem *gmem);

/* A listener. map: the region becomes part of the map; may refuse (negative errno and err set).
 * unmap: it is about to leave; cannot refuse. Both also run for undo. batch_end, if not NULL: all
 * differences of a transaction have been given (for listeners that apply them at once).
 *
 * leave: this part of the region is about to be discarded; when it returns 0 no device reaches it.
 * restore: such a part is to be used again, and every device reaches it that reaches the region.
 * Either may fail, with nothing changed. NULL: the listener need not know. areas: it can change a
 * region by the granules of reclaim.h only. */
struct gmem_listener_ops {
	const char *name;
	int (*map)(void *opaque, const struct gmem_region *region, struct err *err);
	void (*unmap)(void *opaque, const struct gmem_region *region);
	int (*batch_end)(void *opaque, struct err *err);
	int (*leave)(void *opaque, const struct gmem_region *region, uint64_t offset, uint64_t len);
	int (*restore)(void *opaque, const struct gmem_region *region, uint64_t offset,
		       uint64_t len);
	bool areas;
};
struct gmem_listener {
	struct list link; /* private */
	const struct gmem_listener_ops *ops;
	void *opaque;
};
/* Registering replays the present map as maps; refusal means not registered. Removal replays
 * unmaps. */
int gmem_listen(struct gmem *gmem, struct gmem_listener *listener, struct err *err);
void gmem_unlisten(struct gmem *gmem, struct gmem_listener *listener);

/* Until gmem_release no transaction takes effect and no listener comes or goes but by this thread.
 * May be nested. */
void gmem_hold(struct gmem *gmem);
void gmem_release(struct gmem *gmem);

/* The one checked accessor: a pointer to [gpa, gpa + len), or NULL unless all of it lies in one
 * region that permits the access. len is not 0. The pointer is valid until the region is removed
 * and gmem_quiesce() returned. */
void *gmem_host(const struct gmem *gmem, uint64_t gpa, size_t len, bool write);

/* The same for a walk over what is contiguous: all of the region from gpa on, and its flags, which
 * the caller must obey. false when nothing is there. Memory that
 * a transaction is taking away has GMEM_NO_DMA. Memory of devices (arch_vm_map_host) is not here:
 * it may stop answering, which is SIGBUS. */
struct gmem_extent {
	void *hva;
	uint64_t bytes;
	uint64_t before; /* bytes of the same region in front of it, contiguous too */
	unsigned int flags;
};
bool gmem_lookup(const struct gmem *gmem, uint64_t gpa, struct gmem_extent *ret);

/* How many bytes from gpa are contiguous in host memory (0: none there), for splitting. */
uint64_t gmem_contiguous(const struct gmem *gmem, uint64_t gpa);

/* The gpa of [hva, hva + len), which is in one region. False: it is no guest memory. */
bool gmem_find_host(const struct gmem *gmem, const void *hva, uint64_t len, uint64_t *gpa);

/* Copy over region boundaries; 0, or -EFAULT with nothing guaranteed about the part before. */
int gmem_read(const struct gmem *gmem, uint64_t gpa, void *buf, size_t len);
int gmem_write(const struct gmem *gmem, uint64_t gpa, const void *buf, size_t len);

/* Let a region that nobody has used yet hold what [offset, offset + its size) of the file does:
 * where it is anonymous the file is mapped copy-on-write, so nothing is read now, and whoever
 * touches a page beyond the file's end then gets SIGBUS; else it is read, without its holes.
 * -EINVAL: no such region, -EIO: the file is shorter, or an error of reading. Before there are
 * listeners. */
int gmem_fill(struct gmem *gmem, uint64_t gpa, int fd, uint64_t offset, struct err *err);

/* Call fn for each region in order of gpa; stops at the first non-zero result and returns it. */
typedef int gmem_walk_fn(void *opaque, const struct gmem_region *region);
int gmem_walk(const struct gmem *gmem, gmem_walk_fn *fn, void *opaque);

/* Memory may come later, up to this address. Before anything asks for it; 0, if nobody says so. */
void gmem_expect(struct gmem *gmem, uint64_t end);
uint64_t gmem_expected(const struct gmem *gmem);

/* Total RAM in bytes (regions without GMEM_READONLY). */
uint64_t gmem_ram_bytes(const struct gmem *gmem);

/* Touch all pages of RAM with up to `threads` threads (0: one per online CPU), by
 * MADV_POPULATE_WRITE where the kernel has it. -ENOMEM and a message when the host cannot give
 * them. */
int gmem_prefault(struct gmem *gmem, unsigned int threads, struct err *err);

/* Give the host pages of [gpa, gpa + len) back (balloon, free page reporting); page-aligned to the
 * backing. First the hardware: every listener takes it from its devices. The guest reads zeroes
 * afterwards. On failure of a listener nothing is discarded. */
int gmem_discard(struct gmem *gmem, uint64_t gpa, uint64_t len);
/* What was discarded is to be used again: listeners with `areas` give it to their devices. A
 * failure is theirs, and no device has it then. */
int gmem_restore(struct gmem *gmem, uint64_t gpa, uint64_t len);
/* Is there a listener with `areas`? Until gmem_release, if the map is held. */
bool gmem_has_areas(const struct gmem *gmem);
/* What the guest has given up (reclaim.h). NULL: parts of memory never leave. Set once; the map
 * destroys it. */
struct reclaim *gmem_reclaim(const struct gmem *gmem);
void gmem_set_reclaim(struct gmem *gmem, struct reclaim *reclaim);

/* The machine calls this when no thread can hold a pointer into a removed region (vCPUs out of
 * KVM_RUN, loops idle): frees what removals retired. */
void gmem_quiesce(struct gmem *gmem);

/* At any time: the host has the pages of removed regions again, and whoever still has a pointer
 * into one finds zeroes. The first failure of the kernel's. By who makes transactions. */
int gmem_empty_removed(struct gmem *gmem);

/* Dirty marking for memory that hospes itself writes: by dma.h for what devices write, by
 * gmem_write, and by gmem_discard. No-op unless a tracker is set. A mark comes after the write, so
 * that whoever takes marks and then reads misses nothing. mark may be called by any thread, at the
 * same time, with any range. The tracker is the caller's; after gmem_set_dirty(gmem, NULL) it may
 * go once no thread can be inside (as for gmem_quiesce).
 *
 * Not marked: what firmware places at a reset (gmem_host), which is for whoever resets the machine
 * to say; and what vCPUs write, which KVM knows (arch_vm_dirty_take). */
struct gmem_dirty {
	void (*mark)(struct gmem_dirty *dirty, uint64_t gpa, uint64_t len);
};
void gmem_set_dirty(struct gmem *gmem, struct gmem_dirty *dirty);
bool gmem_dirty_wanted(const struct gmem *gmem); /* is there a tracker now? */
void gmem_mark_dirty(const struct gmem *gmem, uint64_t gpa, uint64_t len);
/* The same by host address: what of [hva, hva + len) is guest memory. */
void gmem_mark_dirty_host(const struct gmem *gmem, const void *hva, uint64_t len);

#endif
