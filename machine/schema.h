/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON documents and typed structs, by tables: one table per object says which keys exist, what
 * they hold and where they go. Reading, writing the effective document and freeing all follow the
 * table, so they cannot disagree; an unknown key is an error that names the nearest known one.
 *
 * Threads: no state; any thread.
 */
#ifndef MACHINE_SCHEMA_H
#define MACHINE_SCHEMA_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "core/pci.h"

enum schema_kind {
	SCHEMA_STRING, /* char *, NULL when absent; owned by the struct */
	SCHEMA_BOOL,   /* bool; true, false, "on", "off" */
	SCHEMA_UINT,   /* uint32_t within [min, max] */
	SCHEMA_INT,    /* int within [-1, max]: node numbers; -1 when absent */
	SCHEMA_FD,     /* likewise: the number of a file descriptor of the embedder */
	SCHEMA_SIZE,   /* uint64_t bytes: a number, or "256M" */
	SCHEMA_ENUM,   /* int: index into names */
	SCHEMA_PCI,    /* struct schema_pci */
	SCHEMA_MAC,    /* struct schema_mac */
	SCHEMA_UUID,   /* struct schema_uuid */
	SCHEMA_CPUS,   /* struct schema_cpus: "0-3,6" or a list of numbers, in that order */
	/* char *, NULL when absent; owned by the struct: "NAME", "NAME,key=value,…" or {"name":
	 * "NAME", "key": value, …}, kept as text. Once it is there, keys that the table lacks are
	 * taken as its own. */
	SCHEMA_CHOICE,
	SCHEMA_OBJECT, /* a struct, in place; its defaults when the key is absent */
	SCHEMA_LIST,   /* list of objects: struct list of schema_items, which keys may share */
	SCHEMA_ITEM,   /* one object: a schema_item of such a list, also when it is absent */
};

struct schema_pci {
	bool set;
	struct pci_addr addr;
};

struct schema_mac {
	bool set;
	uint8_t byte[6];
};

struct schema_uuid {
	bool set;
	uint8_t byte[16];
};

enum { SCHEMA_MAX_CPUS = 255 };
struct schema_cpus {
	unsigned int n;
	uint16_t cpu[SCHEMA_MAX_CPUS];
};

struct schema;

/* The first member of a struct that is on the heap and in a list. */
struct schema_item {
	struct list link;
	const struct schema *schema;
};

struct schema_field {
	const char *key;
	enum schema_kind kind;
	size_t offset;
	uint64_t min;             /* UINT, SIZE */
	uint64_t max;             /* UINT, INT, FD, SIZE; LIST: most items */
	const char *const *names; /* ENUM, NULL-terminated */
	const struct schema *sub; /* OBJECT, LIST, ITEM */
};

struct schema {
	const char *what;                  /* "disk" */
	const struct schema_field *fields; /* ends with key NULL */
	size_t bytes;                      /* of the struct */
	const void *defaults; /* a struct to start from (it owns nothing), or NULL: zeroes */
};

/* Fill `ret` (bytes of the table) from the JSON object, in the order of the table; `path` is its
 * name in messages ("" for the document). On error nothing is left allocated. */
int schema_read(const struct schema *schema, const json_t *json, const char *path, void *ret,
		struct err *err);
/* The reverse: a new reference, or NULL when there is no memory. Absent strings, addresses and fds
 * are left out; and all fds, if they are not wanted. */
json_t *schema_write(const struct schema *schema, const void *from, bool fds);
void schema_free(const struct schema *schema, void *data);

/* Is each file descriptor that the document names open? -EBADF names one that is not. Asked before
 * anything is opened: the next file of ours would take that number. */
int schema_check_fds(const struct schema *schema, const void *data, const char *path,
		     struct err *err);

/* One item, which is in no list yet. */
int schema_item_read(const struct schema *schema, const json_t *json, const char *path,
		     struct schema_item **ret, struct err *err);
/* Unlinks it too. */
void schema_item_free(struct schema_item *item);

#endif
