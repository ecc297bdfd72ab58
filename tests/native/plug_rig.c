// SPDX-License-Identifier: Apache-2.0
// A machine whose parts come and go, and its guest.
#include "plug_rig.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>

#include "machine/vm.h"

struct rig rig;
struct hospes_error error;
struct seen seen;
static uint16_t first_port;
static enum hospes_event_type wanted;

static void on_event(void *opaque, const struct hospes_event *event)
{
	(void)opaque;
	if (event->type != wanted)
		return;
	seen.n++;
	seen.value = event->value;
	snprintf(seen.text, sizeof(seen.text), "%s", event->text);
}

void plug_rig_init(uint16_t port, enum hospes_event_type type)
{
	first_port = port;
	wanted = type;
	rig_init(&rig, true);
}

void plug_rig_done(void)
{
	rig_done(&rig);
}

struct hospes_vm *started(const char *document)
{
	struct hospes_vm *vm = rig_create(&rig, document, 0);

	vm->options.event = on_event;
	seen.n = 0;
	cr_assert_eq(hospes_vm_start(vm, &error), 0, "%s", error.text);
	return vm;
}

void out8(struct hospes_vm *vm, uint16_t offset, uint8_t v)
{
	cr_assert(bus_write(vm->pio, first_port + offset, &v, 1));
}

void out32(struct hospes_vm *vm, uint16_t offset, uint32_t v)
{
	cr_assert(bus_write(vm->pio, first_port + offset, &v, 4));
}

uint32_t in32(struct hospes_vm *vm, uint16_t offset)
{
	uint32_t v = 0;

	cr_assert(bus_read(vm->pio, first_port + offset, &v, 4));
	return v;
}

void iterate(struct hospes_vm *vm)
{
	for (unsigned int i = 0; i < 3; i++)
		cr_assert_eq(hospes_vm_iterate(vm), 1);
}

unsigned int act(struct hospes_vm *vm, uint8_t status)
{
	unsigned int n = 0;
	uint32_t event;

	while ((event = in32(vm, EVENT))) {
		uint32_t number = event & 0xffff, code = event >> 16;

		out32(vm, EVENT, event);
		if (code == PLUG_LEAVES && !status)
			out32(vm, EJECT, number);
		out32(vm, ANSWER, number | (uint32_t)status << 8 | code << 16);
		n++;
	}
	iterate(vm);
	return n;
}

uint64_t number_of(struct hospes_vm *vm, const char *part, const char *key)
{
	json_t *root;
	char *text;
	uint64_t n;

	cr_assert_eq(hospes_vm_status(vm, &text, &error), 0, "%s", error.text);
	root = json_loads(text, 0, NULL);
	n = (uint64_t)json_integer_value(json_object_get(json_object_get(root, part), key));
	json_decref(root);
	hospes_free(text);
	return n;
}
