/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl plan.
 */
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

static void print_placement(json_object *plan)
{
    static const char *const rows[][2] = {
        {"weights_ram_bytes", "weights in RAM"},    {"weights_vram_bytes", "weights in VRAM"},
        {"kv_ram_bytes", "KV cache in RAM"},        {"kv_vram_bytes", "KV cache in VRAM"},
        {"scratch_ram_bytes", "scratch in RAM"},    {"scratch_vram_bytes", "scratch in VRAM"},
        {"driver_vram_bytes", "the driver's VRAM"},
    };
    json_object *fits = NULL, *reasons = get_array(plan, "reasons");

    (void)json_object_object_get_ex(plan, "fits", &fits);
    printf("%s, %" PRId64 " of %" PRId64 " layers on GPUs\n",
           json_object_get_boolean(fits) ? "fits" : "does not fit", get_int(plan, "gpu_layers"),
           get_int(plan, "layers"));
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int64_t bytes = get_int(plan, rows[i][0]);
        char text[UNITS_TEXT_MAX];

        if (bytes > 0)
            printf("  %-18s %s\n", rows[i][1], units_format_size((uint64_t)bytes, text));
    }
    for (size_t i = 0; i < length_of(reasons); i++) {
        const char *reason = json_object_get_string(json_object_array_get_idx(reasons, i));

        printf("  ");
        print_text(stdout, reason, strlen(reason), /* harmless= */ true);
        printf("\n");
    }
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
        return ctl_usage(verb, "exactly one model is expected");
    if (!put(parameters, "model", json_object_new_string(argv[optind])))
        return ctl_no_memory();
    status = ctl_call(ctl, RESIDENT_MODELS "Plan", TAKE_PTR(parameters), &reply);
    if (status != STATUS_DONE || !reply)
        return status;
    if (json_object_object_get_ex(reply, "plan", &plan))
        print_placement(plan);
    return print_alternatives(get_array(reply, "alternatives")) ? STATUS_DONE : ctl_no_memory();
}
