/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread reads one policy and ends; it writes the result into the object, which nobody looks at before its eventfd
 * says that it is there. Rounds count readings: who asks is answered by the first that began afterwards.
 */
#include "daemon/reload.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "daemon/internal.h"

struct reload_wait {
    struct list entry;
    uint64_t round;
    manager_reloaded_t done;
    void *userdata;
};

struct reload {
    struct manager *manager;
    struct policy_options options;
    struct list waits;
    sd_event_source *source;
    int event_fd;
    uint64_t round; /* of the reading under way, or the last one */
    bool running, again;

    pthread_t thread; /* the rest is its own while it runs */
    struct policy *policy;
    struct fault fault;
    int result;
};

static void *run(void *userdata)
{
    struct reload *reload = userdata;
    const uint64_t one = 1;

    reload->result = policy_load(&reload->options, &reload->policy, &reload->fault);
    /* A counter that nobody else writes has room. */
    if (write(reload->event_fd, &one, sizeof(one)) != sizeof(one))
        abort();
    return NULL;
}

static int start_thread(struct reload *reload)
{
    sigset_t all, before;
    int r;

    fault_init(&reload->fault, FAULT_NONE, NULL);
    reload->policy = NULL;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&reload->thread, NULL, run, reload);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r != 0)
        return -r;
    sd_notify(0, "RELOADING=1");
    reload->running = true;
    reload->again = false;
    reload->round++;
    return 0;
}

/* Those whom this reading answers. A callback may add others, which wait for a later one. */
static void answer(struct reload *reload, uint64_t round, int result, json_object *changed)
{
    for (;;) {
        struct list *at, *after;
        struct reload_wait *wait = NULL;

        list_foreach (at, after, &reload->waits) {
            wait = list_entry(at, struct reload_wait, entry);
            if (wait->round <= round)
                break;
            wait = NULL;
        }
        if (!wait)
            return;
        list_remove(&wait->entry);
        wait->done(result, changed, &reload->fault, wait->userdata);
        free(wait);
    }
}

static int on_read(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
    struct reload *reload = userdata;
    _cleanup_json_ json_object *changed = NULL;
    uint64_t n, round = reload->round;
    int r;

    if (read(fd, &n, sizeof(n)) != sizeof(n))
        return 0;
    pthread_join(reload->thread, NULL);
    reload->running = false;
    sd_notify(0, "READY=1");
    r = manager_take_policy(reload->manager, reload->result, TAKE_PTR(reload->policy), &reload->fault, &changed);
    answer(reload, round, r, changed);
    if (reload->again && !reload->running) {
        r = start_thread(reload);
        if (r < 0)
            answer(reload, round + 1, r, NULL);
    }
    return 0;
}

int reload_new(struct manager *m, const struct policy_options *options, struct reload **ret)
{
    struct reload *reload = calloc(1, sizeof(*reload));
    int r;

    if (!reload)
        return -ENOMEM;
    *reload = (struct reload){.manager = m, .options = *options};
    list_init(&reload->waits);
    reload->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    r = reload->event_fd < 0
            ? -errno
            : sd_event_add_io(m->event, &reload->source, reload->event_fd, EPOLLIN, on_read, reload);
    if (r < 0) {
        reload_free(reload);
        return r;
    }
    *ret = reload;
    return 0;
}

struct reload *reload_free(struct reload *reload)
{
    if (!reload)
        return NULL;
    assert(list_is_empty(&reload->waits));
    if (reload->running) {
        pthread_join(reload->thread, NULL);
        policy_unref(reload->policy);
    }
    sd_event_source_disable_unref(reload->source);
    closep(&reload->event_fd);
    free(reload);
    return NULL;
}

int reload_start(struct reload *reload)
{
    if (!reload->running)
        return start_thread(reload);
    reload->again = true;
    return 0;
}

int reload_wait(struct reload *reload, manager_reloaded_t done, void *userdata, struct reload_wait **ret)
{
    struct reload_wait *wait = calloc(1, sizeof(*wait));
    bool later = reload->running;
    int r;

    if (!wait)
        return -ENOMEM;
    r = reload_start(reload);
    if (r < 0) {
        free(wait);
        return r;
    }
    *wait = (struct reload_wait){.round = reload->round + later, .done = done, .userdata = userdata};
    list_append(&reload->waits, &wait->entry);
    *ret = wait;
    return 0;
}

struct reload_wait *reload_wait_cancel(struct reload_wait *wait)
{
    if (wait) {
        list_remove(&wait->entry);
        free(wait);
    }
    return NULL;
}
