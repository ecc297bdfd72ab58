// SPDX-License-Identifier: Apache-2.0
// What the host has to say about the device: an uncorrectable error (ERR), and that it wants the
// device back (REQ, again and again until it gets it). Both are eventfds that the device's loop
// watches.
//
// The watches begin in the loop's thread (posted) and end there; destroy waits for the end.
#include <errno.h>
#include <stdio.h>

#include "base/fd.h"
#include "core/pci.h"
#include "passthrough/vfio_pci_impl.h"

static void event(struct vfio_pci *v, enum vfio_event what, const char *text)
{
	/* A guest can break its device, again and again. */
	log_guest(v->dev.log, &v->dev.limit, v->dev.name, "%s: %s", v->bdf, text);
	if (v->config.event)
		v->config.event(v->config.opaque, &v->dev, what, text);
}

/* In the order of locks: PCI root, then the device. */
static bool answers(struct vfio_pci *v)
{
	bool yes;

	pci_root_lock(v->pci.root);
	pthread_mutex_lock(&v->dev.lock);
	yes = vfio_answers(v);
	pthread_mutex_unlock(&v->dev.lock);
	pci_root_unlock(v->pci.root);
	return yes;
}

static void reset_after_error(struct vfio_pci *v)
{
	struct err err = ERR_INIT;
	int ret;

	pci_root_lock(v->pci.root);
	pthread_mutex_lock(&v->dev.lock);
	ret = vfio_reset_in_place(v, &err);
	pthread_mutex_unlock(&v->dev.lock);
	pci_root_unlock(v->pci.root);
	event(v, VFIO_EVENT_RESET, ret ? err.text : "reset after an error");
}

static void all_still(struct vfio_events *e)
{
	if (!e->error.on && !e->request.on && !e->posted)
		pthread_cond_broadcast(&e->still);
}

/* A watch that has ended. */
static void ended(struct vfio_watch *w)
{
	pthread_mutex_lock(&w->vfio->dev.lock);
	w->on = false;
	all_still(&w->vfio->events);
	pthread_mutex_unlock(&w->vfio->dev.lock);
}

static void on_error(struct loop_op *op, int result)
{
	struct vfio_watch *w = container_of(op, struct vfio_watch, op);
	struct vfio_pci *v = w->vfio;

	if (result < 0) {
		ended(w);
		return;
	}
	if (!answers(v)) {
		event(v, VFIO_EVENT_GONE, "the device no longer answers");
		return;
	}
	event(v, VFIO_EVENT_ERROR, "the device reported an uncorrectable error");
	if (v->config.on_error == VFIO_ON_ERROR_RESET)
		reset_after_error(v);
}

static void on_request(struct loop_op *op, int result)
{
	struct vfio_watch *w = container_of(op, struct vfio_watch, op);
	struct vfio_pci *v = w->vfio;

	if (result < 0) {
		ended(w);
		return;
	}
	if (!answers(v))
		event(v, VFIO_EVENT_GONE, "the device no longer answers");
	event(v, VFIO_EVENT_REQUESTED, "the host asks for the device: it has to be released");
}

static void watch(struct vfio_events *e, struct vfio_watch *w)
{
	if (w->fd < 0)
		return;
	w->on = true;
	loop_watch(e->loop, &w->op, w->fd);
}

/* In the loop's thread. */
static void start(struct loop_op *op, int result)
{
	struct vfio_events *e = container_of(op, struct vfio_events, start);
	struct vfio_pci *v = container_of(e, struct vfio_pci, events);

	(void)result;
	pthread_mutex_lock(&v->dev.lock);
	e->posted = false;
	if (!e->stopping) {
		watch(e, &e->error);
		watch(e, &e->request);
	}
	all_still(e);
	pthread_mutex_unlock(&v->dev.lock);
}

static void stop(struct loop_op *op, int result)
{
	struct vfio_events *e = container_of(op, struct vfio_events, stop);
	struct vfio_pci *v = container_of(e, struct vfio_pci, events);

	(void)result;
	loop_cancel(e->loop, &e->error.op);
	loop_cancel(e->loop, &e->request.op);
	pthread_mutex_lock(&v->dev.lock);
	e->posted = false;
	all_still(e);
	pthread_mutex_unlock(&v->dev.lock);
}

static int connect_one(struct vfio_pci *v, struct vfio_watch *w, unsigned int index,
		       loop_done_fn *done, struct err *err)
{
	struct vfio_irq_info info;
	int ret;

	w->vfio = v;
	w->fd = -1;
	w->op.done = done;
	if (vfio_get_irq(&v->file, index, &info) || !info.count)
		return 0;
	w->fd = fd_eventfd();
	if (w->fd < 0) {
		ret = w->fd;
		w->fd = -1;
		return err_set(err, ret, "cannot create an eventfd: %s", err_name(ret));
	}
	ret = vfio_set_irqs(&v->file, index,
			    VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, 0, 1, &w->fd);
	if (ret)
		return err_set(err, ret, "VFIO_DEVICE_SET_IRQS for %s: %s",
			       index == VFIO_PCI_ERR_IRQ_INDEX ? "errors" : "requests",
			       err_name(ret));
	return 0;
}

int vfio_events_init(struct vfio_pci *v, struct loop *loop, struct err *err)
{
	struct vfio_events *e = &v->events;
	int ret;

	e->error.fd = e->request.fd = -1;
	e->loop = loop;
	e->start.done = start;
	e->stop.done = stop;
	pthread_cond_init(&e->still, NULL);
	e->created = true;
	ret = connect_one(v, &e->error, VFIO_PCI_ERR_IRQ_INDEX, on_error, err);
	if (!ret)
		ret = connect_one(v, &e->request, VFIO_PCI_REQ_IRQ_INDEX, on_request, err);
	if (ret || !loop)
		return ret;
	e->posted = true;
	loop_post(loop, &e->start);
	return 0;
}

static bool still(const struct vfio_events *e)
{
	return !e->error.on && !e->request.on && !e->posted;
}

void vfio_events_done(struct vfio_pci *v)
{
	struct vfio_events *e = &v->events;

	if (!e->created)
		return;
	pthread_mutex_lock(&v->dev.lock);
	e->stopping = true;
	if (e->error.on || e->request.on) {
		e->posted = true;
		loop_post(e->loop, &e->stop);
	}
	while (!still(e)) {
		if (!loop_is_mine(e->loop)) {
			pthread_cond_wait(&e->still, &v->dev.lock);
			continue;
		}
		pthread_mutex_unlock(&v->dev.lock);
		loop_iterate(e->loop, true);
		pthread_mutex_lock(&v->dev.lock);
	}
	pthread_mutex_unlock(&v->dev.lock);
	if (e->error.fd >= 0)
		vfio_disable_irqs(&v->file, VFIO_PCI_ERR_IRQ_INDEX);
	if (e->request.fd >= 0)
		vfio_disable_irqs(&v->file, VFIO_PCI_REQ_IRQ_INDEX);
	fd_close(&e->error.fd);
	fd_close(&e->request.fd);
	pthread_cond_destroy(&e->still);
	e->created = false;
}
