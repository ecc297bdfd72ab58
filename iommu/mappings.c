// SPDX-License-Identifier: Apache-2.0
// The table of mappings: a treap whose nodes come from chunks.
#include "iommu/mappings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "base/rand.h"

enum { CHUNK_NODES = 64 };

struct mapping_chunk {
	struct mapping_chunk *next;
	struct mapping nodes[CHUNK_NODES];
};

void mappings_init(struct mappings *m)
{
	memset(m, 0, sizeof(*m));
	/* With a constant the tree still works, but a guest could make it deep. */
	if (rand_bytes(&m->random, sizeof(m->random)) || !m->random)
		m->random = 0x9e3779b97f4a7c15;
}

void mappings_done(struct mappings *m)
{
	while (m->chunks) {
		struct mapping_chunk *chunk = m->chunks;

		m->chunks = chunk->next;
		free(chunk);
	}
	m->root = m->recent = m->free = NULL;
}

/* xorshift64*: Marsaglia, "Xorshift RNGs", 2003. */
static uint32_t next_priority(struct mappings *m)
{
	m->random ^= m->random >> 12;
	m->random ^= m->random << 25;
	m->random ^= m->random >> 27;
	return (uint32_t)((m->random * 0x2545f4914f6cdd1d) >> 32);
}

static struct mapping *node_get(struct mappings *m)
{
	struct mapping *node = m->free;
	struct mapping_chunk *chunk;

	if (!node) {
		chunk = malloc(sizeof(*chunk));
		if (!chunk)
			return NULL;
		chunk->next = m->chunks;
		m->chunks = chunk;
		for (unsigned int i = 0; i < CHUNK_NODES; i++) {
			chunk->nodes[i].right = m->free;
			m->free = &chunk->nodes[i];
		}
		node = m->free;
	}
	m->free = node->right;
	memset(node, 0, sizeof(*node));
	return node;
}

static void node_put(struct mappings *m, struct mapping *node)
{
	node->right = m->free;
	m->free = node;
}

/* --- the tree --- */

/* `new` takes the place of `old`. */
static void replace(struct mappings *m, const struct mapping *old, struct mapping *new)
{
	struct mapping *parent = old->parent;

	if (!parent)
		m->root = new;
	else if (parent->left == old)
		parent->left = new;
	else
		parent->right = new;
	if (new)
		new->parent = parent;
}

/* Move the node one level up: its parent becomes its child. */
static void rotate_up(struct mappings *m, struct mapping *node)
{
	struct mapping *parent = node->parent, *moved;

	replace(m, parent, node);
	if (parent->left == node) {
		moved = parent->left = node->right;
		node->right = parent;
	} else {
		moved = parent->right = node->left;
		node->left = parent;
	}
	if (moved)
		moved->parent = parent;
	parent->parent = node;
}

/* Put the node between its neighbours, one of which has no child on that side. */
static void insert(struct mappings *m, struct mapping *node)
{
	if (node->before && !node->before->right) {
		node->before->right = node;
		node->parent = node->before;
	} else if (node->next) {
		node->next->left = node;
		node->parent = node->next;
	} else {
		m->root = node;
	}
	while (node->parent && node->parent->priority < node->priority)
		rotate_up(m, node);
}

static void unlink_node(struct mappings *m, struct mapping *node)
{
	while (node->left && node->right)
		rotate_up(m,
			  node->left->priority > node->right->priority ? node->left : node->right);
	replace(m, node, node->left ? node->left : node->right);
}

/* --- the table --- */

/* The first mapping that ends at `first` or behind, and the one before it; NULL: none. */
static struct mapping *place(const struct mappings *m, uint64_t first, struct mapping **before)
{
	struct mapping *at = m->recent, *next = NULL;

	if (at && at->last < first && (!at->next || at->next->last >= first)) {
		*before = at;
		return at->next;
	}
	if (at && at->last >= first && (!at->before || at->before->last < first)) {
		*before = at->before;
		return at;
	}
	*before = NULL;
	/* Without overlaps, ends have the same order as beginnings. */
	for (at = m->root; at;) {
		if (at->last >= first) {
			next = at;
			at = at->left;
		} else {
			*before = at;
			at = at->right;
		}
	}
	return next;
}

struct mapping *mappings_find(const struct mappings *m, uint64_t first, uint64_t last)
{
	struct mapping *before, *found = place(m, first, &before);

	return found && found->iova <= last ? found : NULL;
}

static bool is_cut(const struct mapping *m, uint64_t first, uint64_t last)
{
	return m && m->state != MAPPING_GOING && m->state != MAPPING_RETAINED &&
	       (m->iova < first || m->last > last);
}

bool mappings_cut(const struct mappings *m, uint64_t first, uint64_t last)
{
	/* Only mappings at its two ends can be cut. */
	return is_cut(mappings_find(m, first, first), first, last) ||
	       is_cut(mappings_find(m, last, last), first, last);
}

/* How many spans of 2^shift bytes [iova, last] touches that its neighbours do not. */
static uint64_t own_spans(const struct mapping *before, const struct mapping *next, uint64_t iova,
			  uint64_t last, unsigned int shift)
{
	uint64_t low = iova >> shift, end = (last >> shift) + 1;

	low += before && before->last >> shift == low;
	end -= next && end > low && next->iova >> shift == end - 1;
	return end > low ? end - low : 0;
}

static uint64_t own_tables(const struct mapping *before, const struct mapping *next, uint64_t iova,
			   uint64_t last)
{
	return own_spans(before, next, iova, last, 21) + own_spans(before, next, iova, last, 30) +
	       own_spans(before, next, iova, last, 39);
}

uint64_t mappings_more_tables(const struct mappings *m, uint64_t iova, uint64_t last)
{
	struct mapping *before, *next = place(m, iova, &before);

	return own_tables(before, next, iova, last);
}

int mappings_insert(struct mappings *m, uint64_t iova, uint64_t last, struct mapping **ret)
{
	struct mapping *before, *next = place(m, iova, &before), *node;

	assert(iova <= last);
	if (next && next->iova <= last)
		return -EEXIST;
	node = node_get(m);
	if (!node)
		return -ENOMEM;
	node->iova = iova;
	node->last = last;
	node->priority = next_priority(m);
	node->before = before;
	node->next = next;
	insert(m, node);
	if (before)
		before->next = node;
	if (next)
		next->before = node;
	m->recent = node;
	m->count++;
	m->bytes += last - iova + 1;
	m->tables += own_tables(before, next, iova, last);
	*ret = node;
	return 0;
}

void mappings_remove(struct mappings *m, struct mapping *mapping)
{
	unlink_node(m, mapping);
	if (mapping->before)
		mapping->before->next = mapping->next;
	if (mapping->next)
		mapping->next->before = mapping->before;
	if (m->recent == mapping)
		m->recent = mapping->before;
	m->count--;
	m->bytes -= mapping->last - mapping->iova + 1;
	m->tables -= own_tables(mapping->before, mapping->next, mapping->iova, mapping->last);
	node_put(m, mapping);
}

void mappings_clear(struct mappings *m)
{
	while (m->root)
		mappings_remove(m, m->root);
}
