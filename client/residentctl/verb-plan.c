/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl plan: what goes where, what is left, and what else there is to wish for.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "base/json.h"
#include "base/units.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/print.h"

static bool put_size(json_object *object, const char *name, const char *text)
{
    uint64_t bytes;

    return units_parse_size(text, &bytes) == 0 && put(object, name, json_object_new_int64((int64_t)bytes));
}

/* "8G,8G": one size a device. */
static bool put_sizes(json_object *object, const char *name, const char *text)
{
    _cleanup_json_ json_object *array = json_object_new_array();

    while (array) {
        size_t n = strcspn(text, ",");
        _cleanup_free_ char *part = strndup(text, n);
        json_object *number;
        uint64_t bytes;

        if (!part || units_parse_size(part, &bytes) < 0)
            return false;
        number = json_object_new_int64((int64_t)bytes);
        if (!number || json_object_array_add(array, number) < 0) {
            json_object_put(number);
            return false;
        }
        if (text[n] == 0)
            return put(object, name, TAKE_PTR(array));
        text += n + 1;
    }
    return false;
}

/* One row of the table: what it is, in RAM, in VRAM. */
static void add_row(struct table *t, const char *what, int64_t ram, int64_t vram)
{
    table_add(t, what);
    table_add_size(t, ram);
    table_add_size(t, vram > 0 ? vram : -1);
}

static int64_t sum_of(json_object *parameters, const char *name)
{
    json_object *array = get_array(parameters, name);
    int64_t sum = length_of(array) > 0 ? 0 : -1;

    for (size_t i = 0; i < length_of(array); i++)
        sum += json_object_get_int64(json_object_array_get_idx(array, i));
    return sum;
}

static bool print_bytes(json_object *plan, json_object *parameters)
{
    static const char *const headers[] = {"", ">RAM", ">VRAM"};
    _cleanup_(table_freep) struct table *t = table_new(headers, sizeof(headers) / sizeof(headers[0]));
    int64_t ram = get_int(plan, "weights_ram_bytes") + get_int(plan, "kv_ram_bytes") +
                  get_int(plan, "scratch_ram_bytes");
    int64_t vram = get_int(plan, "weights_vram_bytes") + get_int(plan, "kv_vram_bytes") +
                   get_int(plan, "scratch_vram_bytes") + get_int(plan, "driver_vram_bytes");
    int64_t ram_limit = get_int(parameters, "ram_bytes"), vram_limit = sum_of(parameters, "vram_bytes");

    if (!t)
        return false;
    add_row(t, "weights", get_int(plan, "weights_ram_bytes"), get_int(plan, "weights_vram_bytes"));
    add_row(t, "KV cache", get_int(plan, "kv_ram_bytes"), get_int(plan, "kv_vram_bytes"));
    add_row(t, "scratch", get_int(plan, "scratch_ram_bytes"), get_int(plan, "scratch_vram_bytes"));
    if (get_int(plan, "driver_vram_bytes") > 0)
        add_row(t, "driver", -1, get_int(plan, "driver_vram_bytes"));
    add_row(t, "together", ram, vram);
    if (ram_limit >= ram || vram_limit >= vram)
        add_row(t, "left", ram_limit >= ram ? ram_limit - ram : -1,
                vram_limit >= vram ? vram_limit - vram : -1);
    return table_print(t, stdout);
}

static bool print_placement(json_object *plan, json_object *parameters)
{
    json_object *fits = NULL, *tps = NULL, *reasons = get_array(plan, "reasons");

    (void)json_object_object_get_ex(plan, "fits", &fits);
    (void)json_object_object_get_ex(plan, "predicted_decode_tps", &tps);
    printf("%s: %" PRId64 " of %" PRId64 " layers on GPUs, about %.1f tokens/s\n\n",
           json_object_get_boolean(fits) ? "fits" : "does not fit", get_int(plan, "gpu_layers"),
           get_int(plan, "layers"), json_object_get_double(tps));
    if (!print_bytes(plan, parameters))
        return false;
    if (length_of(reasons) > 0)
        printf("\n");
    for (size_t i = 0; i < length_of(reasons); i++) {
        const char *reason = json_object_get_string(json_object_array_get_idx(reasons, i));

        printf("- ");
        print_text(stdout, reason, strlen(reason), /* harmless= */ true);
        printf("\n");
    }
    return true;
}

/* Who would have to go first. */
static void print_leave(json_object *names)
{
    for (size_t i = 0; i < length_of(names); i++) {
        const char *name = json_object_get_string(json_object_array_get_idx(names, i));

        fputs(i == 0 ? "\nleaves memory for it: " : ", ", stdout);
        print_text(stdout, name, strlen(name), /* harmless= */ true);
    }
    if (length_of(names) > 0)
        fputc('\n', stdout);
}

static bool print_alternatives(json_object *alternatives)
{
    static const char *const headers[] = {"ALTERNATIVE", "FITS", ">GPU LAYERS", ">TOKENS/S"};
    _cleanup_(table_freep) struct table *t = table_new(headers, sizeof(headers) / sizeof(headers[0]));

    if (length_of(alternatives) == 0)
        return true;
    if (!t)
        return false;
    for (size_t i = 0; i < length_of(alternatives); i++) {
        json_object *a = json_object_array_get_idx(alternatives, i), *fits = NULL, *tps = NULL;

        (void)json_object_object_get_ex(a, "fits", &fits);
        (void)json_object_object_get_ex(a, "predicted_decode_tps", &tps);
        table_add(t, get_text(a, "change"));
        table_add(t, json_object_get_boolean(fits) ? "yes" : "no");
        table_add_int(t, get_int(a, "gpu_layers"));
        table_add_format(t, "%.1f", json_object_get_double(tps));
    }
    printf("\n");
    return table_print(t, stdout);
}

/* What is written with a '/' or as "….gguf" is a file, which is sent along; anything else is one of the service's. */
static bool is_file(const char *what)
{
    size_t n = strlen(what);

    return strchr(what, '/') || (n > 5 && strcmp(what + n - 5, ".gguf") == 0);
}

static int put_subject(struct ctl *ctl, json_object *parameters, const char *what)
{
    _cleanup_close_ int fd = -EBADF;
    int status, index;

    if (!is_file(what))
        return put(parameters, "model", json_object_new_string(what)) ? STATUS_DONE : ctl_no_memory();
    fd = open(what, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        fprintf(stderr, "residentctl: %s: %s\n", what, strerror(errno));
        return STATUS_FAILED;
    }
    status = ctl_connect(ctl);
    if (status != STATUS_DONE)
        return status;
    index = resident_attach_fd(ctl->connection, fd);
    if (index < 0)
        return ctl_report(ctl, index, NULL);
    return put(parameters, "fd", json_object_new_int(index)) ? STATUS_DONE : ctl_no_memory();
}

int verb_plan(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    enum { RAM = 256, VRAM, CONTEXT, SEQUENCES, KV_TYPE };
    static const struct option options[] = {
        {"ram", required_argument, NULL, RAM},         {"vram", required_argument, NULL, VRAM},
        {"context", required_argument, NULL, CONTEXT}, {"sequences", required_argument, NULL, SEQUENCES},
        {"kv-type", required_argument, NULL, KV_TYPE}, {NULL, 0, NULL, 0},
    };
    _cleanup_json_ json_object *parameters = json_object_new_object(), *reply = NULL;
    json_object *plan = NULL;
    int64_t number;
    int c, status;

    if (!parameters)
        return ctl_no_memory();
    while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        bool ok;

        if (c == RAM)
            ok = put_size(parameters, "ram_bytes", optarg);
        else if (c == VRAM)
            ok = put_sizes(parameters, "vram_bytes", optarg);
        else if (c == CONTEXT || c == SEQUENCES)
            ok =
                parse_int(optarg, 1, INT32_MAX, &number) &&
                put(parameters, c == CONTEXT ? "context_tokens" : "sequences", json_object_new_int64(number));
        else if (c == KV_TYPE)
            ok = put(parameters, "kv_type", json_object_new_string(optarg));
        else
            return ctl_usage(verb, NULL);
        if (!ok)
            return ctl_usage(verb, "\"%s\" is no value for this option", optarg);
    }
    if (argc - optind != 1)
        return ctl_usage(verb, "exactly one model or file is expected");
    status = put_subject(ctl, parameters, argv[optind]);
    if (status == STATUS_DONE)
        status = ctl_call(ctl, RESIDENT_MODELS "Plan", json_object_get(parameters), &reply);
    if (status != STATUS_DONE || !reply)
        return status;
    if (json_object_object_get_ex(reply, "plan", &plan) && !print_placement(plan, parameters))
        return ctl_no_memory();
    print_leave(get_array(reply, "leave"));
    return print_alternatives(get_array(reply, "alternatives")) ? STATUS_DONE : ctl_no_memory();
}
