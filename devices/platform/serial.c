/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registers of a 16550A (National Semiconductor PC16550D data sheet, section 8).
 *
 * Two liberties, both within what a guest may see of a real one on a fast line:
 *
 * The transmitter is empty (THRE and TEMT) as long as the host's end has room for a FIFO's worth,
 * whatever the baud rate. It fills only when the host does not keep up, and then THRE stays clear
 * until half of the ring has drained, so that a guest that waits loses nothing.
 *
 * The line has hardware flow control: the host sends only while the guest holds RTS up, and never
 * more than the receive FIFO takes, so there are no overruns but in loopback. When the FIFO holds
 * less than the trigger level, the whole input has arrived, so the character timeout is reported at
 * once.
 */
#include <linux/serial_reg.h>
#include <errno.h>

#include "base/mem.h"
#include "base/num.h"
#include "core/state.h"
#include "platform/serial_impl.h"

enum {
	REG_COUNT = 8,
	FCR_KEEP = 0xc9, /* enable, DMA mode, trigger */
	MCR_ALL = 0x1f,
};

static unsigned int fifo_depth(const struct serial *s)
{
	return s->fcr & UART_FCR_ENABLE_FIFO ? SERIAL_FIFO_BYTES : 1;
}

static unsigned int trigger_level(const struct serial *s)
{
	static const uint8_t level[4] = {1, 4, 8, 14};

	return s->fcr & UART_FCR_ENABLE_FIFO ? level[s->fcr >> 6] : 1;
}

/* The pending interrupt of highest priority, of those that are enabled. */
static uint8_t interrupt(const struct serial *s)
{
	if ((s->ier & UART_IER_RLSI) && s->lsr_errors)
		return UART_IIR_RLSI;
	if ((s->ier & UART_IER_RDI) && s->fifo_count)
		return s->fifo_count >= trigger_level(s) ? UART_IIR_RDI : UART_IIR_RX_TIMEOUT;
	if ((s->ier & UART_IER_THRI) && s->thre_pending)
		return UART_IIR_THRI;
	if ((s->ier & UART_IER_MSI) && s->msr_delta)
		return UART_IIR_MSI;
	return UART_IIR_NO_INT;
}

/* On a PC, OUT2 connects the interrupt; in loopback the pin is inactive, but drivers test
 * interrupts there with OUT2 set, as they find it on real boards, so the bit alone decides. */
static void update_irq(struct serial *s)
{
	irq_line_set(&s->irq, (s->mcr & UART_MCR_OUT2) && interrupt(s) != UART_IIR_NO_INT);
}

/* Room for a FIFO's worth sets THRE; it stays clear from there until half the ring is free. */
static void update_thre(struct serial *s)
{
	size_t room = serial_ring_room(&s->tx);
	bool was = s->thre;

	if (s->dropping || room >= s->tx.size / 2)
		s->thre = true;
	else if (room < SERIAL_FIFO_BYTES)
		s->thre = false;
	if (s->thre && !was)
		s->thre_pending = true;
	if (was && !s->thre)
		serial_host_kick(s); /* it has an eye on whether that ends */
}

static void line_out(struct serial *s)
{
	update_thre(s);
	update_irq(s);
}

static void fifo_put(struct serial *s, uint8_t byte)
{
	s->fifo[(s->fifo_head + s->fifo_count) % SERIAL_FIFO_BYTES] = byte;
	s->fifo_count++;
}

/* Let the line send what the FIFO has room for. */
static void receive(struct serial *s)
{
	bool was_full = s->rx.count > s->rx.size / 2;

	if (s->quiesced || !(s->mcr & UART_MCR_RTS) || (s->mcr & UART_MCR_LOOP))
		return;
	while (s->rx.count && s->fifo_count < fifo_depth(s))
		fifo_put(s, serial_ring_take(&s->rx));
	/* The loop stopped reading if the ring was full. */
	if (was_full && s->rx.count <= s->rx.size / 2)
		serial_host_kick(s);
}

static void line_in(struct serial *s)
{
	receive(s);
	update_irq(s);
}

static const struct serial_line line = {.in = line_in, .out = line_out};

static uint8_t read_data(struct serial *s)
{
	uint8_t byte = 0;

	if (s->fifo_count) {
		byte = s->fifo[s->fifo_head];
		s->fifo_head = (s->fifo_head + 1) % SERIAL_FIFO_BYTES;
		s->fifo_count--;
		if (s->rx.count)
			receive(s);
	}
	return byte;
}

static void write_data(struct serial *s, uint8_t byte)
{
	s->thre_pending = false;
	if (!(s->mcr & UART_MCR_LOOP))
		viewer_put(&s->viewer, &byte, 1);
	if (s->mcr & UART_MCR_LOOP) {
		if (s->fifo_count < fifo_depth(s))
			fifo_put(s, byte);
		else
			s->lsr_errors |= UART_LSR_OE;
	} else if (s->dropping) {
		s->output_bytes++;
		s->dropped++;
	} else if (s->config.out_fd >= 0 && !s->out_dead && serial_ring_room(&s->tx)) {
		/* Without room the guest has not waited for THRE: lost, as on the real thing. */
		s->output_bytes++;
		serial_ring_put(&s->tx, byte);
		serial_host_wrote(s);
	}
	update_thre(s);
	s->thre_pending = s->thre;
}

static uint8_t modem_lines(const struct serial *s)
{
	uint8_t msr = 0;

	if (!(s->mcr & UART_MCR_LOOP))
		return UART_MSR_CTS | UART_MSR_DSR | UART_MSR_DCD;
	msr |= s->mcr & UART_MCR_RTS ? UART_MSR_CTS : 0;
	msr |= s->mcr & UART_MCR_DTR ? UART_MSR_DSR : 0;
	msr |= s->mcr & UART_MCR_OUT1 ? UART_MSR_RI : 0;
	msr |= s->mcr & UART_MCR_OUT2 ? UART_MSR_DCD : 0;
	return msr;
}

static void write_mcr(struct serial *s, uint8_t v)
{
	uint8_t before = modem_lines(s), changed;

	s->mcr = v & MCR_ALL;
	changed = before ^ modem_lines(s);
	/* The ring indicator's delta is its trailing edge only. */
	if ((changed & UART_MSR_RI) && !(before & UART_MSR_RI))
		changed &= (uint8_t)~UART_MSR_RI;
	s->msr_delta |= changed >> 4;
	receive(s);
}

static void write_fcr(struct serial *s, uint8_t v)
{
	/* Transmitted bytes are already with the host: there is no FIFO to clear on that side. */
	if ((v & UART_FCR_CLEAR_RCVR) || ((v ^ s->fcr) & UART_FCR_ENABLE_FIFO)) {
		s->fifo_head = 0;
		s->fifo_count = 0;
	}
	s->fcr = v & UART_FCR_ENABLE_FIFO ? v & FCR_KEEP : 0;
	receive(s);
}

static void write_ier(struct serial *s, uint8_t v)
{
	v &= UART_IER_RDI | UART_IER_THRI | UART_IER_RLSI | UART_IER_MSI;
	/* Enabling it with the register empty interrupts at once. */
	if ((v & ~s->ier & UART_IER_THRI) && s->thre)
		s->thre_pending = true;
	s->ier = v;
}

static uint8_t read_iir(struct serial *s)
{
	uint8_t iir = interrupt(s);

	if (iir == UART_IIR_THRI)
		s->thre_pending = false;
	return iir | (s->fcr & UART_FCR_ENABLE_FIFO ? UART_IIR_FIFO_ENABLED : 0);
}

static uint8_t read_lsr(struct serial *s)
{
	uint8_t lsr = s->lsr_errors;

	lsr |= s->fifo_count ? UART_LSR_DR : 0;
	lsr |= s->thre ? UART_LSR_THRE | UART_LSR_TEMT : 0;
	s->lsr_errors = 0;
	return lsr;
}

static uint8_t read_msr(struct serial *s)
{
	uint8_t msr = modem_lines(s) | s->msr_delta;

	s->msr_delta = 0;
	return msr;
}

static uint64_t serial_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct serial *s = opaque;
	bool dlab = s->lcr & UART_LCR_DLAB;
	uint8_t v;

	(void)size;
	switch (offset) {
	case UART_RX:
		v = dlab ? s->dll : read_data(s);
		break;
	case UART_IER:
		v = dlab ? s->dlm : s->ier;
		break;
	case UART_IIR:
		v = read_iir(s);
		break;
	case UART_LCR:
		v = s->lcr;
		break;
	case UART_MCR:
		v = s->mcr;
		break;
	case UART_LSR:
		v = read_lsr(s);
		break;
	case UART_MSR:
		v = read_msr(s);
		break;
	default:
		v = s->scr;
		break;
	}
	update_irq(s);
	return v;
}

static void serial_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct serial *s = opaque;
	bool dlab = s->lcr & UART_LCR_DLAB;
	uint8_t v = (uint8_t)value;

	(void)size;
	switch (offset) {
	case UART_RX:
		if (dlab)
			s->dll = v;
		else
			write_data(s, v);
		break;
	case UART_IER:
		if (dlab)
			s->dlm = v;
		else
			write_ier(s, v);
		break;
	case UART_IIR:
		write_fcr(s, v);
		break;
	case UART_LCR:
		s->lcr = v;
		break;
	case UART_MCR:
		write_mcr(s, v);
		break;
	case UART_SCR:
		s->scr = v;
		break;
	default: /* LSR and MSR are for reading */
		break;
	}
	update_irq(s);
}

static const struct bus_ops serial_bus_ops = {
	.read = serial_read,
	.write = serial_write,
	.min = 1,
	.max = 1,
};

/* Master reset (data sheet, table 1). Both rings of the line keep their bytes. */
static void power_on(struct serial *s)
{
	s->ier = s->fcr = s->lcr = s->mcr = s->scr = 0;
	s->dll = 12; /* 9600 baud */
	s->dlm = 0;
	s->lsr_errors = s->msr_delta = 0;
	s->fifo_head = s->fifo_count = 0;
	s->thre_pending = false;
	update_thre(s);
	update_irq(s);
}

static void serial_reset(struct device *dev)
{
	struct serial *s = container_of(dev, struct serial, dev);

	pthread_mutex_lock(&dev->lock);
	power_on(s);
	pthread_mutex_unlock(&dev->lock);
}

static void serial_quiesce(struct device *dev, unsigned int phase)
{
	struct serial *s = container_of(dev, struct serial, dev);

	(void)phase;
	pthread_mutex_lock(&dev->lock);
	s->quiesced = true;
	pthread_mutex_unlock(&dev->lock);
}

static void serial_resume(struct device *dev)
{
	struct serial *s = container_of(dev, struct serial, dev);

	pthread_mutex_lock(&dev->lock);
	s->quiesced = false;
	line_in(s);
	if (s->frozen)
		serial_host_thaw(s);
	pthread_mutex_unlock(&dev->lock);
}

static void serial_destroy(struct device *dev)
{
	struct serial *s = container_of(dev, struct serial, dev);

	if (!dev)
		return;
	bus_del(s->pio, &s->region);
	bus_synchronize(s->pio);
	serial_host_stop(s);
	irq_line_put(&s->irq);
	device_done(dev);
	free(s);
}

static const struct state_field serial_fields[] = {
	STATE_ONE(struct serial, ier,
		  .mask = UART_IER_RDI | UART_IER_THRI | UART_IER_RLSI | UART_IER_MSI),
	STATE_ONE(struct serial, fcr, .mask = FCR_KEEP),
	STATE_ONE(struct serial, lcr),
	STATE_ONE(struct serial, mcr, .mask = MCR_ALL),
	STATE_ONE(struct serial, scr),
	STATE_ONE(struct serial, dll),
	STATE_ONE(struct serial, dlm),
	STATE_ONE(struct serial, lsr_errors, .mask = UART_LSR_OE),
	STATE_ONE(struct serial, msr_delta, .mask = UART_MSR_ANY_DELTA),
	STATE_ONE(struct serial, thre),
	STATE_ONE(struct serial, thre_pending),
	STATE_ARRAY(struct serial, fifo),
	STATE_ONE(struct serial, fifo_head, .max = SERIAL_FIFO_BYTES - 1),
	STATE_ONE(struct serial, fifo_count, .max = SERIAL_FIFO_BYTES),
	STATE_ONE(struct serial, tx.head, .max = SERIAL_TX_BYTES - 1),
	STATE_ONE(struct serial, tx.count, .max = SERIAL_TX_BYTES),
	STATE_ARRAY(struct serial, tx_bytes),
	STATE_ONE(struct serial, rx.head, .max = SERIAL_RX_BYTES - 1),
	STATE_ONE(struct serial, rx.count, .max = SERIAL_RX_BYTES),
	STATE_ARRAY(struct serial, rx_bytes),
};

STATE_DERIVED(struct serial, "made by serial_create", dev, pio, region, loop, config, line);
STATE_DERIVED(struct serial, "follows from the registers", irq);
STATE_DERIVED(struct serial, "where the machine stands", quiesced, frozen, stopping, turning);
STATE_DERIVED(struct serial, "of this host's end of the line", out_dead, in_end, dropping, full,
	      dropped, output_bytes, written, at_stall, viewer);
STATE_DERIVED(struct serial, "nothing is in flight while it is frozen", kicked, kick, read_op,
	      write_op, delay_op, stall_op, reading, writing, delaying, stalling, read_waits,
	      write_waits);
STATE_DERIVED(struct serial_ring, "made by serial_host_init", bytes, size);

static int serial_check(const void *record, const void *live, uint32_t i, struct err *err)
{
	const struct serial *s = record;
	size_t room = SERIAL_TX_BYTES - s->tx.count;

	(void)live;
	(void)i;
	if (s->fifo_count > fifo_depth(s))
		return err_set(err, -EPROTO, "fifo_count is %u; with fcr 0x%x at most %u",
			       s->fifo_count, s->fcr, fifo_depth(s));
	/* Nothing else would ever set it. */
	if (s->thre ? room < SERIAL_FIFO_BYTES : room >= SERIAL_TX_BYTES / 2)
		return err_set(err, -EPROTO, "thre is %d with tx.count %zu", s->thre, s->tx.count);
	return 0;
}

static const struct state_section serial_section =
	STATE_SECTION("serial", 1, struct serial, serial_fields, .check = serial_check);

static int serial_save(struct device *dev, struct state_writer *w, struct err *err)
{
	struct serial *s = container_of(dev, struct serial, dev);

	(void)err;
	serial_host_freeze(s);
	state_save(w, &serial_section, s, 1);
	return 0;
}

static int serial_load(struct device *dev, struct state_reader *r, struct err *err)
{
	struct serial *s = container_of(dev, struct serial, dev);
	int ret;

	serial_host_freeze(s);
	if (s->rx.count || s->tx.count)
		return err_set(err, -EBUSY, "%s: in use: bytes are on the line", dev->name);
	ret = state_load(r, &serial_section, s, 1, err);
	if (!ret)
		ret = state_commit(r, err);
	if (!ret)
		update_irq(s);
	return ret;
}

static const struct device_ops serial_ops = {
	.type = "serial",
	.reset = serial_reset,
	.quiesce = serial_quiesce,
	.resume = serial_resume,
	.destroy = serial_destroy,
	.save = serial_save,
	.load = serial_load,
};

uint64_t serial_output_bytes(struct device *dev)
{
	struct serial *s = container_of(dev, struct serial, dev);
	uint64_t bytes;

	pthread_mutex_lock(&dev->lock);
	bytes = s->output_bytes;
	pthread_mutex_unlock(&dev->lock);
	return bytes;
}

int serial_create(struct device **ret, const struct device_env *env,
		  const struct serial_config *config, struct err *err)
{
	struct serial *s;
	int r;

	if (!mem_new(s))
		return err_set(err, -ENOMEM, "%s: out of memory", config->name);
	device_init(&s->dev, &serial_ops, config->name, env->log);
	s->pio = env->pio;
	s->loop = env->loop;
	s->config = *config;
	s->region = (struct bus_region){
		.ops = &serial_bus_ops,
		.opaque = s,
		.name = s->dev.name,
		.size_bytes = REG_COUNT,
		.lock = &s->dev.lock,
	};
	serial_host_init(s, &line);
	r = irq_line_get(&s->irq, env->irq, config->gsi, err);
	if (!r) {
		power_on(s);
		s->thre_pending = false;
		r = bus_add(env->pio, &s->region, config->port, err);
	}
	if (r) {
		serial_destroy(&s->dev);
		return r;
	}
	serial_host_kick(s); /* begin to read */
	*ret = &s->dev;
	return 0;
}
