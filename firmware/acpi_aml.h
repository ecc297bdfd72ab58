/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AML builder: bytes are only ever appended; a container's length is put in front of it when it is
 * closed. For the data of the run-time SSDT; code is written in ASL (asl/), but for the few methods
 * that are each part's own.
 *
 *     mark = aml_device(a, "COM1");
 *     aml_name(a, "_HID");  aml_eisaid(a, "PNP0501");
 *     aml_end(a, mark);
 *
 * A failed allocation is recorded: check `failed` once, at the end. Names and nesting come from our
 * own code, so mistakes there are asserts.
 *
 * ACPI 6.5, chapter 20 (AML), 6.4 (resource descriptors).
 */
#ifndef FIRMWARE_ACPI_AML_H
#define FIRMWARE_ACPI_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
	uint8_t *bytes; /* owned; aml_done frees */
	size_t len;
	size_t capacity;
	bool failed;
};

void aml_done(struct aml *a);
void aml_bytes(struct aml *a, const void *bytes, size_t n);

/* Objects. A path is as in ASL: "\\_SB.PCI0", segments of 1 to 4 characters. */
void aml_path(struct aml *a, const char *path);
void aml_integer(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text);
void aml_eisaid(struct aml *a, const char *id); /* "PNP0A03" */
void aml_name(struct aml *a, const char *path); /* the object follows */

/* Containers: everything appended up to aml_end is inside. */
size_t aml_scope(struct aml *a, const char *path);
size_t aml_device(struct aml *a, const char *name);
size_t aml_package(struct aml *a, uint8_t elements);
void aml_end(struct aml *a, size_t mark);

/* Statements of a method, whose operands follow. A call is a path, and its arguments. */
size_t aml_method(struct aml *a, const char *name, uint8_t args);
void aml_arg(struct aml *a, uint8_t n);
void aml_return(struct aml *a);
void aml_store(struct aml *a);  /* what, where */
void aml_notify(struct aml *a); /* whom, what */
size_t aml_if(struct aml *a);   /* a container: the condition, then what is done */
void aml_equal(struct aml *a);

/* A buffer of these bytes. */
void aml_buffer(struct aml *a, const void *bytes, size_t n);

/* A resource template: descriptors up to aml_resources_end. */
size_t aml_resources(struct aml *a);
void aml_resources_end(struct aml *a, size_t mark);
void aml_res_io(struct aml *a, uint16_t port, uint8_t len);
/* Edge-triggered, active high, not shared. */
void aml_res_irq(struct aml *a, uint32_t gsi);
void aml_res_memory32(struct aml *a, uint32_t base, uint32_t len);
/* Windows that a bridge decodes and forwards. Lengths are not 0. */
void aml_res_bus(struct aml *a, uint8_t first, uint8_t last);
void aml_res_io_window(struct aml *a, uint16_t base, uint32_t len);
void aml_res_memory_window(struct aml *a, uint64_t base, uint64_t len);
/* A device's own memory, above 4 GiB or below. */
void aml_res_memory64(struct aml *a, uint64_t base, uint64_t len);
/* Memory. */
void aml_res_ram(struct aml *a, uint64_t base, uint64_t len);

#endif
