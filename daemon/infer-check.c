/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ranges as data. A number outside of its range would not be dangerous further down (the worker checks what it
 * computes with), but it would be silently clamped or mean nothing, and the caller should hear of that.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/infer.h"

enum {
    STOPS_MAX = 32,
    STOP_BYTES_MAX = 1024,
    BIASES_MAX = 4096,
    APP_BYTES_MAX = 64,
};

static const struct {
    const char *name;
    int64_t min, max;
} int_ranges[] = {
    {"max_tokens", 1, INT32_MAX},   {"top_k", 0, INT32_MAX},
    {"seed", INT64_MIN, INT64_MAX}, {"logprobs", 0, 20},
    {"deadline_ms", 1, INT32_MAX},  {"priority", -POLICY_PRIORITY_MAX, POLICY_PRIORITY_MAX},
    {"penalty_last_n", 0, 65536},   {"mirostat", 0, 2},
};

static const struct {
    const char *name;
    double min, max;
} float_ranges[] = {
    {"temperature", 0, 100},
    {"top_p", 0, 1},
    {"min_p", 0, 1},
    {"typical_p", 0, 1},
    {"repeat_penalty", 0.01, 100},
    {"frequency_penalty", -100, 100},
    {"presence_penalty", -100, 100},
    {"mirostat_tau", 0, 100},
    {"mirostat_eta", 0, 1},
};

static int refuse_range(struct fault *reterr, const char *name, double min, double max)
{
    fault_set(reterr, FAULT_INVALID_PARAMETER, name, "a number from %.15g to %.15g is expected", min, max);
    return CALL_REFUSED;
}

static int check_numbers(json_object *parameters, struct fault *reterr)
{
    json_object *value;

    for (size_t i = 0; i < sizeof(int_ranges) / sizeof(int_ranges[0]); i++)
        if (json_object_object_get_ex(parameters, int_ranges[i].name, &value)) {
            int64_t number = json_object_get_int64(value);

            if (number < int_ranges[i].min || number > int_ranges[i].max)
                return refuse_range(reterr, int_ranges[i].name, (double)int_ranges[i].min,
                                    (double)int_ranges[i].max);
        }
    for (size_t i = 0; i < sizeof(float_ranges) / sizeof(float_ranges[0]); i++)
        if (json_object_object_get_ex(parameters, float_ranges[i].name, &value)) {
            double number = json_object_get_double(value);

            if (!(number >= float_ranges[i].min && number <= float_ranges[i].max))
                return refuse_range(reterr, float_ranges[i].name, float_ranges[i].min, float_ranges[i].max);
        }
    return 0;
}

static int check_stops(json_object *stops, struct fault *reterr)
{
    size_t n = json_object_array_length(stops);

    if (n > STOPS_MAX) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "stop", "at most %d texts are expected", STOPS_MAX);
        return CALL_REFUSED;
    }
    for (size_t i = 0; i < n; i++) {
        int n_bytes = json_object_get_string_len(json_object_array_get_idx(stops, i));

        if (n_bytes < 1 || n_bytes > STOP_BYTES_MAX) {
            fault_set(reterr, FAULT_INVALID_PARAMETER, "stop", "texts of 1 to %d bytes are expected",
                      STOP_BYTES_MAX);
            return CALL_REFUSED;
        }
    }
    return 0;
}

/* Keys are token ids in decimal, because JSON has no other keys than texts. */
static bool is_token_id(const char *text)
{
    size_t n = strlen(text);
    uint64_t id = 0;

    if (n == 0 || n > 10 || (n > 1 && text[0] == '0'))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        id = 10 * id + (uint64_t)(text[i] - '0');
    }
    return id <= INT32_MAX;
}

static int check_biases(json_object *biases, struct fault *reterr)
{
    if (json_object_object_length(biases) > BIASES_MAX) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "logit_bias", "at most %d tokens are expected",
                  BIASES_MAX);
        return CALL_REFUSED;
    }
    json_object_object_foreach (biases, key, value) {
        double number = json_object_get_double(value);

        if (!is_token_id(key)) {
            fault_set(reterr, FAULT_INVALID_PARAMETER, "logit_bias",
                      "token ids in decimal are expected as keys");
            return CALL_REFUSED;
        }
        if (!(number >= -10000 && number <= 10000))
            return refuse_range(reterr, "logit_bias", -10000, 10000);
    }
    return 0;
}

/* It stands in tables and log lines. */
static int check_app(json_object *app, struct fault *reterr)
{
    const unsigned char *text = (const unsigned char *)json_object_get_string(app);
    size_t n = (size_t)json_object_get_string_len(app);
    bool ok = n <= APP_BYTES_MAX;

    for (size_t i = 0; ok && i < n; i++)
        ok = text[i] >= 0x20 && text[i] != 0x7F;
    if (!ok) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "app",
                  "at most %d bytes without control characters are expected", APP_BYTES_MAX);
        return CALL_REFUSED;
    }
    return 0;
}

int infer_check_ids(const char *name, json_object *ids, struct fault *reterr_fault)
{
    size_t n = ids ? json_object_array_length(ids) : 0;

    for (size_t i = 0; i < n; i++) {
        int64_t id = json_object_get_int64(json_object_array_get_idx(ids, i));

        if (id < 0 || id > INT32_MAX) {
            fault_set(reterr_fault, FAULT_INVALID_PARAMETER, name, "a token id is expected at index %zu", i);
            return CALL_REFUSED;
        }
    }
    return 0;
}

int infer_check(json_object *parameters, struct fault *reterr_fault)
{
    json_object *value;
    int r;

    r = check_numbers(parameters, reterr_fault);
    if (r == 0 && json_object_object_get_ex(parameters, "stop", &value))
        r = check_stops(value, reterr_fault);
    if (r == 0 && json_object_object_get_ex(parameters, "logit_bias", &value))
        r = check_biases(value, reterr_fault);
    if (r == 0 && json_object_object_get_ex(parameters, "app", &value))
        r = check_app(value, reterr_fault);
    if (r == 0 && json_object_object_get_ex(parameters, "json_schema", NULL) &&
        json_object_object_get_ex(parameters, "grammar", NULL)) {
        fault_set(reterr_fault, FAULT_INVALID_PARAMETER, "grammar",
                  "json_schema and grammar exclude each other");
        r = CALL_REFUSED;
    }
    return r;
}
