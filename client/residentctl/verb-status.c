/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl status.
 */
#include <inttypes.h>
#include <string.h>

#include "base/json.h"
#include "base/units.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/print.h"
#include "client/residentctl/status.h"

static const char *size(json_object *object, const char *name, char *buffer)
{
    int64_t bytes = get_int(object, name);

    return bytes < 0 ? "?" : units_format_size((uint64_t)bytes, buffer);
}

/* Where somebody could ask NVIDIA's management library. */
static void print_sample(json_object *v)
{
    const char *throttled = get_text(v, "throttled");
    char others[UNITS_TEXT_MAX];

    if (get_int(v, "others_bytes") > 0)
        printf(", %s held by others", size(v, "others_bytes", others));
    if (get_int(v, "temperature_celsius") >= 0)
        printf(", %" PRId64 " °C", get_int(v, "temperature_celsius"));
    if (throttled) {
        printf(", throttled: ");
        print_text(stdout, throttled, strlen(throttled), /* harmless= */ true);
    }
}

static void print_memory(json_object *reply)
{
    char budget[UNITS_TEXT_MAX], locked[UNITS_TEXT_MAX], kv[UNITS_TEXT_MAX], used[UNITS_TEXT_MAX];
    json_object *ram = NULL, *vram = get_array(reply, "vram");
    const char *reason = get_text(reply, "gpu_reason");

    if (json_object_object_get_ex(reply, "ram", &ram))
        printf("RAM: %s used of %s (%s locked, %s KV cache)\n", size(ram, "used_bytes", used),
               size(ram, "budget_bytes", budget), size(ram, "locked_bytes", locked),
               size(ram, "kv_bytes", kv));
    for (size_t i = 0; i < length_of(vram); i++) {
        json_object *v = json_object_array_get_idx(vram, i);
        const char *name = get_text(v, "name");

        printf("VRAM %" PRId64 ": %s used of %s (", get_int(v, "device"), size(v, "used_bytes", used),
               size(v, "budget_bytes", budget));
        print_text(stdout, name ? name : "?", name ? strlen(name) : 1, /* harmless= */ true);
        print_sample(v);
        printf(")\n");
    }
    if (reason) {
        printf("GPU: ");
        print_text(stdout, reason, strlen(reason), /* harmless= */ true);
        putchar('\n');
    }
}

/* Nothing while it is as it should be. */
static void print_ledger(json_object *ledger, bool is_terminal)
{
    const char *state = get_text(ledger, "state"), *reason = get_text(ledger, "reason");
    const char *aside = get_text(ledger, "set_aside");

    if (!state || strcmp(state, "ok") == 0)
        return;
    printf("Ledger: %s", state);
    if (reason) {
        printf(": ");
        print_text(stdout, reason, strlen(reason), is_terminal);
    }
    if (get_int(ledger, "unwritten") > 0)
        printf(" (%" PRId64 " requests wait to be written)", get_int(ledger, "unwritten"));
    if (aside) {
        printf("; the old file is ");
        print_text(stdout, aside, strlen(aside), is_terminal);
    }
    putchar('\n');
}

static bool print_users(json_object *users)
{
    static const char *const headers[] = {"USER", ">UID", ">CONNECTIONS", ">REQUESTS", ">KV"};
    _cleanup_(table_freep) struct table *t = table_new(headers, sizeof(headers) / sizeof(headers[0]));

    if (!t)
        return false;
    for (size_t i = 0; i < length_of(users); i++) {
        json_object *u = json_object_array_get_idx(users, i);

        table_add(t, get_text(u, "name"));
        table_add_int(t, get_int(u, "uid"));
        table_add_int(t, get_int(u, "connections"));
        table_add_int(t, get_int(u, "requests"));
        table_add_size(t, get_int(u, "kv_bytes"));
    }
    return table_print(t, stdout);
}

int verb_status(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    _cleanup_json_ json_object *reply = NULL;
    const char *version;
    int status;

    if (argc != 1)
        return ctl_usage(verb, "no argument is expected");
    status = ctl_call(ctl, RESIDENT_MODELS "Status", NULL, &reply);
    if (status != STATUS_DONE || !reply)
        return status;
    version = get_text(reply, "version");
    printf("residentd ");
    print_text(stdout, version ? version : "?", version ? strlen(version) : 1, /* harmless= */ true);
    printf("\n");
    print_memory(reply);
    print_ledger(json_object_object_get(reply, "ledger"), ctl->is_terminal);
    printf("\n");
    if (!status_print_models(get_array(reply, "models")))
        return ctl_no_memory();
    if (!get_array(reply, "users"))
        return STATUS_DONE;
    printf("\n");
    return print_users(get_array(reply, "users")) ? STATUS_DONE : ctl_no_memory();
}
