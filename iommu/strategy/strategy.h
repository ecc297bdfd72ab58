/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strategies: when is guest memory mapped for a passed-through device, and when is it unmapped?
 *
 *   guest driver ─► virtual IOMMU ─► hw_domain_map/unmap ─► strategy ─► ioas ─► one call or none
 *   guest memory map changes ──────► (listener)  ───────────────┘
 *
 * A strategy is one file in this folder and one line in table.c. Its ops hold its name, its
 * parameters and where it is the default; no other file names it.
 *
 * The virtual IOMMU's domain owns the table of guest mappings. A strategy reads that table and
 * keeps none of its own. It writes three fields of a record: `word` and `link`, which belong to it,
 * and `state`, as the calls below say.
 *
 * A map that fails is an error to the caller, never a fall-back to more access. After an unmap has
 * returned 0, no device can reach the range, unless the strategy's summary promises less. Such a
 * strategy retains records:
 *
 *   WANTED ─ UNMAP ─► GOING ─ strategy_retain ─► RETAINED ─ strategy_release ─► removed
 *      ▲                                            │
 *      └────────── strategy_reuse ◄── COMING ◄─ MAP of exactly the same
 *
 * Retained records are in one list, oldest first. The hardware reaches them, and the ledger counts
 * them as stale, until the strategy has unmapped and released them; flush asks for it. No stale
 * mapping outlives its strategy.
 *
 * Threads: one call at a time, under the lock of the table's owner (in the machine's thread where
 * there is no virtual IOMMU). A strategy has no thread and no timer of its own. Work that must not
 * delay a request of the guest waits for a tick, which runs in the thread of the virtual IOMMU.
 * Errors: 0 or a negative errno; set-up calls explain it in `err`.
 */
#ifndef IOMMU_STRATEGY_STRATEGY_H
#define IOMMU_STRATEGY_STRATEGY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/log.h"
#include "base/units.h"
#include "core/gmem.h"
#include "iommu/ioas.h"
#include "iommu/mappings.h"

struct hw_domain_config;
struct strategy;

/* A MAP or UNMAP of the guest, as the owner of the table passes it on. The caller owns it. */
struct hw_request {
	uint64_t iova, last; /* inclusive */
	uint64_t bytes;      /* of its records; an unmap may have gaps between them */
	/* map: the record, COMING, in the table already; its memory has passed guest_memory_check.
	 * Its word is 0, or not 0 if this same mapping was RETAINED: strategy_reuse. unmap: NULL.
	 */
	struct mapping *record;
	int result; /* 0 or a negative errno */
};

/* How the value of a parameter is written (base/units.h). */
enum strategy_unit {
	STRATEGY_NUMBER,  /* 256 */
	STRATEGY_BYTES,   /* 64M */
	STRATEGY_NS,      /* 10ms */
	STRATEGY_PERCENT, /* 5% */
};
#define STRATEGY_NEVER UINT64_MAX

/* A parameter of a strategy, with its bounds and default: strategy=NAME,entries=256. */
struct strategy_param {
	const char *name;    /* NULL ends a list */
	const char *summary; /* one line */
	enum strategy_unit unit;
	bool never; /* it may be the word "never", which is STRATEGY_NEVER */
	uint64_t min, max, value;
};

enum { STRATEGY_PARAMS_MAX = 8 };

/* One strategy. Only create is mandatory, but for a policy; map and unmap come together. */
struct strategy_ops {
	const char *name;
	const char *summary;                 /* one line: what it maps, and when */
	const struct strategy_param *params; /* NULL: none */
	bool needs_viommu;                   /* it maps only what the guest asks for */
	bool needs_memfd;                    /* guest memory must be a memfd of base pages */
	bool is_default, is_default_with_viommu;
	bool is_policy; /* it has no calls: it chooses among the others (policy.h) */
	/* Another strategy with this flag can take over in the same ioas: each record is one
	 * mapping per extent of its memory, words of WANTED records are 0, and destroy leaves these
	 * mappings. (Without needs_viommu that is so of records only whose iova is not their gpa.)
	 */
	bool keeps_mappings;
	/* Its mappings are more than that: it can take over, but no other from it, unless is_plain
	 * says that none is more at the moment. */
	bool ends_with_table;
	bool (*is_plain)(const struct strategy *strategy); /* NULL: never */
	/* Can it be chosen with this guest memory? -EOPNOTSUPP, with the remedy. NULL: always. */
	int (*check)(const struct gmem *gmem, struct err *err);
	/* Map what is to be mapped at start; the fields of `strategy` are set, except state. The
	 * guest's records follow in calls of map. */
	int (*create)(struct strategy *strategy, struct err *err);
	/* Unmap what create has mapped. The guest's mappings end when the devices are detached. The
	 * strategy may be half-built. */
	void (*destroy)(struct strategy *strategy);
	/* Serve a batch of requests in order and set each result. A request with an error has
	 * changed nothing. Afterwards the owner makes each record WANTED, or removes it. */
	void (*map)(struct strategy *strategy, struct hw_request *requests, unsigned int n);
	/* The same. Records that the guest has unmapped are GOING. The strategy leaves a record
	 *   GOING     when the hardware no longer has it; the owner removes it from the table
	 *   RETAINED  when it keeps it in the hardware (strategy_retain); the result is 0
	 *   WANTED    when it could not be unmapped; the result is an error (strategy_put_back)
	 * It may release records that were RETAINED before a request, but none of the request. */
	void (*unmap)(struct strategy *strategy, struct hw_request *requests, unsigned int n);
	/* Unmap and release the RETAINED records that overlap [first, last]: afterwards nothing
	 * stale is reachable there. Called before memory leaves the guest, at an attach, detach and
	 * switch, and when a MAP meets a limit or a retained record. 0, or a negative errno when
	 * the hardware refuses; those records stay RETAINED. NULL: the strategy retains nothing. */
	int (*flush)(struct strategy *strategy, uint64_t first, uint64_t last);
	/* This memory has left the guest, and is unmapped and flushed: keep no alias, pin or trace
	 * of it. (More may be forgotten.) NULL: it keeps none. */
	void (*forget)(struct strategy *strategy, uint64_t gpa, uint64_t bytes);
	/* Work at a time that was asked for by strategy_wake. It may come early: look at the clock,
	 * and ask again if needed. It may release records. The owner's lock is held, and the guest
	 * waits for it: do little, and ask for another tick. NULL: the strategy has no timer. */
	void (*tick)(struct strategy *strategy);
};

/* A strategy and the values of its parameters, in the order of ops->params. */
struct strategy_choice {
	const struct strategy_ops *ops;
	uint64_t values[STRATEGY_PARAMS_MAX];
	uint64_t ceiling_bytes; /* of a policy: what may be stale at most; 0: no limit */
};

struct strategy {
	const struct strategy_ops *ops;
	const struct hw_domain_config *config; /* of its hw_domain: gmem, log, threads */
	uint64_t values[STRATEGY_PARAMS_MAX];  /* of its parameters */
	uint64_t ceiling_bytes; /* may be stale at most, now or after any request; UINT64_MAX */
	/* Another is to take over in the same ioas: retain nothing more and join nothing more.
	 * Ticks unmap what is retained. It may end again. */
	bool leaving;
	struct ioas *ioas;
	/* Address space that no device sees, whose pins count with ioas's; NULL: none. The
	 * strategy's own. */
	struct ioas *stage;
	const struct iommu_endpoint
		*device;              /* while create runs: one that is attached, or will be */
	const struct mappings *guest; /* the guest's mappings; NULL: no virtual IOMMU */
	void *state;                  /* the strategy's own */
	/* What it retains: records by `link`, oldest first (strategy_retain). */
	struct list retained;
	uint64_t n_retained, retained_bytes, last_word;
	uint64_t promised_ns; /* for how long at most; set by create, else STRATEGY_NEVER */
};

/* All strategies; NULL ends the list. */
extern const struct strategy_ops *const strategies[];
/* The name of the default for devices behind a virtual IOMMU, or for the others. */
const char *strategy_default(bool with_viommu);
/* Read "NAME" or "NAME,key=value,…". -EINVAL: the message lists the names, or the parameters with
 * their bounds. */
int strategy_parse(struct strategy_choice *ret, const char *text, struct err *err);
/* The same; and -EOPNOTSUPP if it cannot be chosen with this guest memory. */
int strategy_choose(struct strategy_choice *ret, const char *text, const struct gmem *gmem,
		    struct err *err);
/* The reverse, with every parameter; free() it. NULL: no memory. */
char *strategy_text(const struct strategy_choice *choice);

/* A value of this parameter as it is written; in `text`, which is returned. */
const char *strategy_value_text(const struct strategy_param *param, uint64_t value,
				char text[UNITS_TEXT]);
/* What the parameter takes: "4K to 16T or never". Likewise. */
#define STRATEGY_RANGE_TEXT (3 * UNITS_TEXT)
const char *strategy_range_text(const struct strategy_param *param, char text[STRATEGY_RANGE_TEXT]);

/* For a strategy, in any of its calls: call its tick in ns nanoseconds. The earliest counts. */
void strategy_wake(const struct strategy *strategy, uint64_t ns);

/* For a strategy that retains. The GOING record becomes RETAINED, the newest. Its word is the time
 * (ioas_now); no two are the same, and they ascend in the list. */
void strategy_retain(struct strategy *strategy, struct mapping *record);
/* In map: the COMING record was RETAINED, and the hardware has it. Its word is 0 again. */
void strategy_reuse(struct strategy *strategy, struct mapping *record);
/* The hardware no longer has the RETAINED record; its owner removes it from the table at once. */
void strategy_release(struct strategy *strategy, struct mapping *record);
/* The hardware refuses to unmap the RETAINED record. It becomes the newest, and no MAP finds it any
 * more, since only a part of it may be left. */
void strategy_refused(struct strategy *strategy, struct mapping *record);
/* The oldest RETAINED record; NULL: none. (A MAP at hand may have made others COMING.) */
struct mapping *strategy_oldest(const struct strategy *strategy);

/* For an unmap that failed: each GOING record of it that the hardware still has becomes WANTED. */
void strategy_put_back(const struct strategy *strategy, const struct hw_request *request);

#endif
