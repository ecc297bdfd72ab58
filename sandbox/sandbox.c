// SPDX-License-Identifier: Apache-2.0
// Layers: which there are, and a thread's way into them. See sandbox.h.
#include "sandbox/sandbox.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/num.h"
#include "sandbox/filter.h"
#include "sandbox/landlock.h"

#ifdef SANDBOX_INSTRUMENTED
enum { INSTRUMENTED = true };
#else
enum { INSTRUMENTED = false };
#endif

/* Read only once it is created, but for the counts. */
struct sandbox {
	struct thread_limits limits;
	enum sandbox_mode mode;
	const char *lack[SANDBOX_LAYERS]; /* NULL: it has the layer */
	_Atomic unsigned int threads[THREAD_ROLES];
};

static const char instrumented[] =
	"this build is instrumented (a sanitizer), and its reports need files: use another";

/* --- the layers --- */

static const char *lack_nothing(void)
{
	return NULL;
}

static const char *lack_landlock(void)
{
	switch (landlock_version()) {
	case -ENOSYS:
		return "this kernel has no Landlock: it needs Linux 5.13 and "
		       "CONFIG_SECURITY_LANDLOCK";
	case -EOPNOTSUPP:
		return "Landlock is off: add it to lsm= on this host's kernel command line "
		       "(lsm=landlock,...)";
	default:
		return landlock_version() > 0 ? NULL
					      : "Landlock is not permitted here: a "
						"container's seccomp profile may allow it";
	}
}

static const char *lack_seccomp(void)
{
	return filter_probe()
		       ? "this kernel has no filters of system calls: it needs Linux 4.14 and "
			 "CONFIG_SECCOMP_FILTER"
		       : NULL;
}

static int enter_no_new_privs(const struct sandbox *s, enum thread_role role, const char *removes)
{
	(void)s;
	(void)role;
	(void)removes;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -errno : 0;
}

static int enter_landlock(const struct sandbox *s, enum thread_role role, const char *removes)
{
	(void)s;
	return landlock_enter(role, removes);
}

static int enter_seccomp(const struct sandbox *s, enum thread_role role, const char *removes)
{
	const struct filter_policy policy = {
		.role = role,
		.others = s->mode == SANDBOX_STRICT ? FILTER_STOP : FILTER_DENY,
		.paths = !s->lack[SANDBOX_LANDLOCK],
		.pid = (uint32_t)getpid(),
	};

	(void)removes;
	return filter_enter(&policy);
}

/* In the order in which they are entered. */
static const struct layer {
	const char *name;
	const char *(*lack)(void);
	int (*enter)(const struct sandbox *s, enum thread_role role, const char *removes);
} layers[] = {
	[SANDBOX_NO_NEW_PRIVS] = {"no_new_privs", lack_nothing, enter_no_new_privs},
	[SANDBOX_LANDLOCK] = {"landlock", lack_landlock, enter_landlock},
	[SANDBOX_SECCOMP] = {"seccomp", lack_seccomp, enter_seccomp},
};
static_assert(ARRAY_SIZE(layers) == SANDBOX_LAYERS, "a row per layer");

const char *sandbox_layer_name(enum sandbox_layer layer)
{
	return layers[layer].name;
}

const char *sandbox_lack(const struct sandbox *s, enum sandbox_layer layer)
{
	return s ? s->lack[layer] : "sandbox is off";
}

bool sandbox_has(const struct sandbox *s, enum sandbox_layer layer)
{
	return !sandbox_lack(s, layer);
}

unsigned int sandbox_threads(const struct sandbox *s, enum thread_role role)
{
	return s ? atomic_load(&((struct sandbox *)s)->threads[role]) : 0;
}

/* --- a thread --- */

static int enter(struct sandbox *s, enum thread_role role, const char *removes)
{
	for (unsigned int i = 0; i < SANDBOX_LAYERS; i++) {
		int rc = s->lack[i] ? 0 : layers[i].enter(s, role, removes);

		if (rc)
			return rc;
	}
	atomic_fetch_add(&s->threads[role], 1);
	return 0;
}

static int enter_started(struct thread_limits *limits, enum thread_role role)
{
	return enter(container_of(limits, struct sandbox, limits), role, NULL);
}

int sandbox_enter(struct sandbox *s, const char *removes, struct err *err)
{
	int rc = s ? enter(s, THREAD_FOREIGN, removes) : 0;

	return rc ? err_set(err, rc, "sandbox: this thread cannot be confined: %s", err_name(rc))
		  : 0;
}

struct thread_limits *sandbox_limits(struct sandbox *s)
{
	return s ? &s->limits : NULL;
}

/* --- a machine's --- */

int sandbox_create(struct sandbox **ret, enum sandbox_mode mode, const struct log *log,
		   struct err *err)
{
	struct sandbox *s;

	*ret = NULL;
	if (mode == SANDBOX_OFF)
		return 0;
	if (!mem_new(s))
		return err_set(err, -ENOMEM, "sandbox: no memory");
	s->limits.enter = enter_started;
	s->mode = mode;
	for (unsigned int i = 0; i < SANDBOX_LAYERS; i++) {
		s->lack[i] = INSTRUMENTED ? instrumented : layers[i].lack();
		if (!s->lack[i])
			continue;
		if (mode == SANDBOX_STRICT) {
			err_set(err, -EOPNOTSUPP, "sandbox strict: no %s: %s; or use sandbox auto",
				layers[i].name, s->lack[i]);
			sandbox_destroy(s);
			return -EOPNOTSUPP;
		}
		log_info(log, "sandbox", "no %s: %s", layers[i].name, s->lack[i]);
	}
	*ret = s;
	return 0;
}

void sandbox_destroy(struct sandbox *s)
{
	free(s);
}
