/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/gpus.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json-build.h"
#include "engine/engine-devices.h"
#include "engine/engine.h"
#include "engine/worker/link.h"

#define WATCH_INTERVAL_S 5

struct watch {
    const struct engine_devices *devices;
    struct link *link;
};

static bool add_gpu(json_object *array, const struct engine_device_info *d)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    return o && add_count(o, "device", d->i_device) && add_text(o, "name", d->name) &&
           add_text(o, "bus_id", d->bus_id) && add_count(o, "total", d->total_bytes) &&
           add_count(o, "free", d->free_bytes) && add_count(o, "driver", d->driver_bytes) &&
           append_take(array, TAKE_PTR(o));
}

int gpus_add_facts(const struct engine_devices *devices, json_object *to)
{
    struct engine_device_info list[ENGINE_DEVICES_MAX];
    json_object *array;
    size_t n;

    if (!devices)
        return 0;
    array = json_object_new_array();
    if (!add_take(to, "gpus", array) || !add_text(to, "gpu_reason", engine_devices_reason(devices)))
        return -ENOMEM;
    n = engine_devices_list(devices, list);
    for (size_t i = 0; i < n; i++)
        if (!add_gpu(array, &list[i]))
            return -ENOMEM;
    return 0;
}

int gpus_add_looked(struct engine_devices *devices, json_object *to)
{
    int r = gpus_add_facts(devices, to);

    if (r < 0 || !devices)
        return r;
    engine_devices_rest(devices);
    return add_bool(to, "gpus_watched", engine_devices_can_sample(devices)) ? 0 : -ENOMEM;
}

static bool add_sample(json_object *array, const struct engine_device_sample *s)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    return o && add_count(o, "device", s->i_device) && add_text(o, "bus_id", s->bus_id) &&
           add_count(o, "total", s->total_bytes) &&
           add_count(o, "free", s->free_bytes) &&
           add_count_if(o, s->has_temperature, "temperature", s->temperature_celsius) &&
           add_text_if(o, "throttled", s->throttled) && append_take(array, TAKE_PTR(o));
}

/* Out of memory, or the daemon does not read: the next one does as well. */
static void tell(const struct watch *w)
{
    struct engine_device_sample samples[ENGINE_DEVICES_MAX];
    size_t n = engine_devices_sample(w->devices, samples);
    _cleanup_json_ json_object *o = json_object_new_object();
    const struct packet_facts fixed = {.reserved = 0};
    json_object *array = json_object_new_array();
    bool ok = add_take(o, "gpus", array) && n > 0;
    const char *text;

    for (size_t i = 0; ok && i < n; i++)
        ok = add_sample(array, &samples[i]);
    text = ok && link_backlog(w->link) == 0 ? json_text(o) : NULL;
    if (text)
        link_send(w->link, LINK_EPOCH_ANY, PACKET_GPUS, &fixed, sizeof(fixed), text, strlen(text));
}

static void *watch(void *userdata)
{
    for (;;) {
        tell(userdata);
        sleep(WATCH_INTERVAL_S);
    }
    return NULL;
}

int gpus_watch(const struct engine_devices *devices, struct link *link)
{
    struct watch *w = malloc(sizeof(*w)); /* as long as the process */
    pthread_attr_t attr;
    pthread_t thread;
    int r;

    if (!w)
        return -ENOMEM;
    *w = (struct watch){.devices = devices, .link = link};
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    r = pthread_create(&thread, &attr, watch, w);
    pthread_attr_destroy(&attr);
    if (r != 0)
        free(w);
    return -r;
}
