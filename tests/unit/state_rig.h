/* SPDX-License-Identifier: Apache-2.0 */
/* A device's state taken from one and put into another, which is then to go on as the first would
 * have. */
#ifndef TESTS_STATE_RIG_H
#define TESTS_STATE_RIG_H

#include <criterion/criterion.h>

#include "core/device.h"
#include "core/state.h"

static inline void state_quiesce(struct device *dev)
{
	dev->ops->quiesce(dev, 0);
	dev->ops->quiesce(dev, 1);
}

/* Of a quiesced device; the caller frees bytes. */
static inline struct state_buffer state_of(struct device *dev)
{
	struct state_buffer buffer = {0};
	struct state_writer w;
	struct err err = ERR_INIT;

	state_writer_begin(&w, state_buffer_sink, &buffer);
	cr_assert_eq(state_save_device(&w, dev, &err), 0, "%s", err.text);
	cr_assert_eq(state_writer_end(&w, &err), 0, "%s", err.text);
	return buffer;
}

static inline int state_put(struct device *dev, const struct state_buffer *buffer, struct err *err)
{
	struct state_reader *r;
	int ret = state_reader_open(&r, buffer->bytes, buffer->len, err);

	if (ret)
		return ret;
	ret = state_load_device(r, dev, err);
	if (!ret)
		ret = state_reader_end(r, err);
	state_reader_close(r);
	return ret;
}

static inline void state_assert_same(const struct state_buffer *a, const struct state_buffer *b)
{
	cr_assert_eq(a->len, b->len, "%zu and %zu bytes", a->len, b->len);
	for (size_t i = 0; i < a->len; i++)
		cr_assert_eq(a->bytes[i], b->bytes[i], "byte %zu of the state: 0x%x and 0x%x", i,
			     a->bytes[i], b->bytes[i]);
}

/* From one that is quiesced with this, and stays so, to a fresh one, which goes on. What is saved
 * of that one before it does so is the same. */
static inline void state_move(struct device *from, struct device *to)
{
	struct err err = ERR_INIT;

	state_quiesce(from);
	state_quiesce(to);
	struct state_buffer first = state_of(from);
	cr_assert_eq(state_put(to, &first, &err), 0, "%s", err.text);
	struct state_buffer second = state_of(to);
	state_assert_same(&first, &second);
	free(first.bytes);
	free(second.bytes);
	to->ops->resume(to);
}

#endif
