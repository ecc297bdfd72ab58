/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strategies: *when* guest memory is mapped for a device, and when it is unmapped.
 *
 *   guest driver ─► virtual IOMMU ─► hw_domain_map/unmap ─► strategy ─► ioas ─► one call or none
 *   guest memory map changes ──────► (listener)  ───────────────┘
 *
 * One strategy is one file in this folder and one line in table.c. Its name, its
 * parameters and where it is the default are in its ops; nothing else names it.
 *
 * The guest's mappings are in one table, which is its owner's (the virtual IOMMU's domain). A
 * strategy reads that table, and writes two fields of a record: `word`, which is its own, and
 * `state`, as far as the calls below say so. It keeps no table of the guest's mappings.
 *
 * A map that fails is an error to whoever asked, never a fall-back to more access. An unmap that has
 * returned 0 means that no device can reach the range, unless the strategy's summary promises less;
 * it then says how much by ioas_stale.
 *
 * Limits are by cost, not by count: a strategy that retains mappings limits their bytes and their
 * time, and gives them back when it is asked to (flush).
 *
 * Threads: the calls of one strategy come one at a time, under the lock of the table's owner (without
 * a guest's table: in the machine's thread). Work that a strategy begins by itself, from a timer or on
 * the worker, takes that lock first: see hw_domain_config.
 */
#ifndef IOMMU_STRATEGY_STRATEGY_H
#define IOMMU_STRATEGY_STRATEGY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/log.h"
#include "core/gmem.h"
#include "iommu/ioas.h"
#include "iommu/mappings.h"

struct hw_domain_config;
struct strategy;

/* A request of the guest, as the owner of its mappings hands it down. */
struct hw_request {
	uint64_t iova, last; /* inclusive */
	uint64_t bytes;      /* of the records in it; an unmap may have gaps between them */
	/* map: COMING and in the table already, its memory judged (guest_memory_check). Its word is 0, or
	 * what it was when the strategy retained this same mapping. unmap: NULL. */
	struct mapping *record;
	unsigned int retained; /* unmap: how many of its records the strategy has made RETAINED */
	int result;            /* 0 or a negative errno, set per request */
};

/* A parameter of a strategy: strategy=NAME,entries=256. */
struct strategy_param {
	const char *name;    /* NULL ends a list */
	const char *summary; /* one line, with the unit */
	uint64_t min, max, value;
};

enum { STRATEGY_PARAMS_MAX = 8 };

/* One strategy. Functions may be NULL but for create; map and unmap come together. */
struct strategy_ops {
	const char *name;
	const char *summary;                 /* one line: what it maps, when */
	const struct strategy_param *params; /* NULL: none */
	bool needs_viommu;                   /* it maps only what a guest asks for */
	bool is_default, is_default_with_viommu;
	/* Each record that is not at its own address is one mapping (one per extent of its memory), the
	 * words are unused, and destroy leaves those mappings: another such strategy can take over in the
	 * same ioas. */
	bool keeps_mappings;
	/* The other fields are set; map what is to be mapped at start. The guest's records follow by map. */
	int (*create)(struct strategy *strategy, struct err *err);
	/* Unmap what is not the guest's; that goes with the devices. Half-built is allowed. */
	void (*destroy)(struct strategy *strategy);
	/* A batch of requests, in order. Each gets its result; an error means that nothing has changed for
	 * it. After a map the record is WANTED or removed, by the owner. */
	void (*map)(struct strategy *strategy, struct hw_request *requests, unsigned int n);
	/* The records in each range that the guest wants no more are GOING, and stay so when they are gone
	 * from the hardware: the owner removes them from the table. The strategy makes one RETAINED that it
	 * keeps in the hardware (the request is 0), or WANTED again one that could not be unmapped (the
	 * request has an error; strategy_put_back). */
	void (*unmap)(struct strategy *strategy, struct hw_request *requests, unsigned int n);
	/* What is only RETAINED in [first, last] leaves the hardware and becomes GOING: afterwards nothing
	 * stale is reachable there. Called before memory leaves the guest, at a detach, at a switch, and
	 * when a MAP meets a limit or something retained. 0, or a negative errno when the hardware refuses:
	 * what it keeps stays RETAINED. NULL: it retains nothing. */
	int (*flush)(struct strategy *strategy, uint64_t first, uint64_t last);
};

/* A strategy and the values of its parameters, in the order of its table. */
struct strategy_choice {
	const struct strategy_ops *ops;
	uint64_t values[STRATEGY_PARAMS_MAX];
};

struct strategy {
	const struct strategy_ops *ops;
	const struct hw_domain_config *config; /* of its domain: gmem, log, threads, loops */
	uint64_t values[STRATEGY_PARAMS_MAX];  /* of its parameters */
	struct ioas *ioas;
	const struct mappings *guest; /* what the guest has mapped; NULL: no virtual IOMMU */
	void *state;                  /* the strategy's */
};

/* All of them, ending with NULL: for --help, validation, documentation. */
extern const struct strategy_ops *const strategies[];
/* The default of a device behind a virtual IOMMU, or of one that is not: its name. */
const char *strategy_default(bool with_viommu);
/* "NAME" or "NAME,key=value,…". -EINVAL, and a message with the names there are, or the keys, or the
 * values that a key takes. */
int strategy_parse(struct strategy_choice *ret, const char *text, struct err *err);

/* For a strategy whose unmap of a request failed: each GOING record in it that the hardware still has is
 * WANTED again. */
void strategy_put_back(const struct strategy *strategy, const struct hw_request *request);

#endif
