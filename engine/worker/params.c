/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/params.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/fault.h"
#include "engine/sample/sampler.h"
#include "engine/sample/stops.h"
#include "engine/worker/config.h"
#include "engine/worker/member.h"

static const char *const known[] = {
    "max_tokens",        "temperature",      "top_k",      "top_p", "min_p", "typical_p", "repeat_penalty",
    "frequency_penalty", "presence_penalty", "logit_bias", "seed",  "stop",  "logprobs",  "penalty_last_n",
    "mirostat",          "mirostat_tau",     "mirostat_eta", "adapter", NULL,
};

/* The daemon's business; it need not pass them on. */
static const char *const foreign[] = {"model", "deadline_ms", "priority", "app", NULL};

static bool is_in(const char *const *list, const char *name)
{
    for (; *list; list++)
        if (strcmp(*list, name) == 0)
            return true;
    return false;
}

static int check_names(json_object *call, const char *const *others, struct fault *reterr)
{
    json_object_object_foreach(call, name, value)
    {
        if (!is_in(known, name) && !is_in(others, name) && !is_in(foreign, name)) {
            fault_set(reterr, FAULT_INVALID_PARAMETER, name, "no such parameter");
            return -EINVAL;
        }
    }
    return 0;
}

/* @call's members over those of @defaults. */
static int overlay(json_object *call, json_object *defaults, json_object **ret)
{
    _cleanup_json_ json_object *all = json_object_new_object();

    if (!all)
        return -ENOMEM;
    for (int i = 0; known[i]; i++) {
        json_object *value = member_get(call, known[i]);

        if (!value && defaults)
            value = member_get(defaults, known[i]);
        if (value && json_object_object_add(all, known[i], json_object_get(value)) < 0) {
            json_object_put(value);
            return -ENOMEM;
        }
    }
    *ret = TAKE_PTR(all);
    return 0;
}

static int get_seed(json_object *all, uint64_t *ret, struct fault *reterr)
{
    int64_t seed;
    int r = member_int(all, "seed", INT64_MIN, INT64_MAX, &seed, reterr);

    if (r == -EINVAL)
        return r;
    if (r == 0)
        *ret = (uint64_t)seed;
    else if (getrandom(ret, sizeof(*ret), GRND_NONBLOCK) != sizeof(*ret))
        *ret = 0; /* early at boot: the answers of those minutes are drawn alike, which harms nobody */
    return 0;
}

static int bias_token(const char *text, int32_t *ret)
{
    int32_t n = 0;

    if (!*text || strlen(text) > 9)
        return -EINVAL;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -EINVAL;
        n = n * 10 + (*text - '0');
    }
    *ret = n;
    return 0;
}

static int get_biases(json_object *all, struct sampler_bias **ret, size_t *ret_n, struct fault *reterr)
{
    _cleanup_free_ struct sampler_bias *biases = NULL;
    json_object *object = NULL;
    size_t n = 0;
    int r = member_object(all, "logit_bias", &object, reterr);

    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if ((size_t)json_object_object_length(object) > SAMPLER_BIASES_MAX) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "logit_bias", "expected at most %d tokens",
                  SAMPLER_BIASES_MAX);
        return -EINVAL;
    }
    biases = calloc((size_t)json_object_object_length(object) + 1, sizeof(*biases));
    if (!biases)
        return -ENOMEM;
    json_object_object_foreach(object, name, value)
    {
        if (bias_token(name, &biases[n].token) < 0 || !value ||
            (!json_object_is_type(value, json_type_double) && !json_object_is_type(value, json_type_int))) {
            fault_set(reterr, FAULT_INVALID_PARAMETER, "logit_bias", "expected numbers under token ids");
            return -EINVAL;
        }
        biases[n++].bias = (float)json_object_get_double(value);
    }
    *ret = TAKE_PTR(biases);
    *ret_n = n;
    return 0;
}

static int get_sampler(json_object *all, uint32_t n_vocab, struct sampler **ret, struct fault *reterr)
{
    struct sampler_params p = sampler_params_default();
    _cleanup_free_ struct sampler_bias *biases = NULL;
    const struct {
        const char *name;
        float *value;
    } floats[] = {
        {"temperature", &p.temperature},
        {"top_p", &p.top_p},
        {"min_p", &p.min_p},
        {"typical_p", &p.typical_p},
        {"repeat_penalty", &p.repeat_penalty},
        {"frequency_penalty", &p.frequency_penalty},
        {"presence_penalty", &p.presence_penalty},
        {"mirostat_tau", &p.mirostat_tau},
        {"mirostat_eta", &p.mirostat_eta},
    };
    uint32_t mirostat = 0;
    int r;

    for (size_t i = 0; i < sizeof(floats) / sizeof(floats[0]); i++)
        if (member_float(all, floats[i].name, floats[i].value, reterr) == -EINVAL)
            return -EINVAL;
    if (member_u32(all, "top_k", 0, INT32_MAX, &p.top_k, reterr) == -EINVAL ||
        member_u32(all, "penalty_last_n", 0, SAMPLER_LAST_N_MAX, &p.penalty_last_n, reterr) == -EINVAL ||
        member_u32(all, "mirostat", 0, 2, &mirostat, reterr) == -EINVAL)
        return -EINVAL;
    p.mirostat = (int)mirostat;
    r = get_seed(all, &p.seed, reterr);
    if (r == 0)
        r = get_biases(all, &biases, &p.n_biases, reterr);
    if (r < 0)
        return r;
    p.biases = biases;
    return sampler_new(&p, n_vocab, ret, reterr);
}

static int get_stops(json_object *all, struct stops **ret, struct fault *reterr)
{
    struct stops_string strings[STOPS_MAX];
    json_object *array = NULL;
    size_t n = 0;
    int r = member_array(all, "stop", &array, reterr);

    if (r == -EINVAL)
        return r;
    if (r == 0)
        n = json_object_array_length(array);
    r = n > STOPS_MAX ? -E2BIG : 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        json_object *item = json_object_array_get_idx(array, i);

        if (!json_object_is_type(item, json_type_string))
            r = -EINVAL;
        else
            strings[i] = (struct stops_string){.data = json_object_get_string(item),
                                               .n_bytes = (size_t)json_object_get_string_len(item)};
    }
    if (r == 0)
        r = stops_new(strings, n, ret);
    if (r == -EINVAL || r == -E2BIG) {
        fault_set(reterr, FAULT_INVALID_PARAMETER, "stop",
                  "expected at most %d texts of at least one byte, %d in all", STOPS_MAX, STOPS_BYTES_MAX);
        return -EINVAL;
    }
    return r;
}

static int get_adapter(json_object *all, const struct config *config, uint32_t *ret, struct fault *reterr)
{
    const char *name;
    size_t n;
    int r = member_string(all, "adapter", &name, &n, reterr);

    if (r < 0)
        return r == -ENOENT ? 0 : r;
    *ret = config_adapter(config, name);
    if (*ret > 0)
        return 0;
    fault_set(reterr, FAULT_INVALID_PARAMETER, "adapter", "no adapter that this model was loaded with");
    return -EINVAL;
}

int params_parse(json_object *call, const struct config *config, const char *const *others, uint32_t n_vocab,
                 struct params *ret, struct fault *reterr)
{
    _cleanup_(params_done) struct params p = {.max_tokens = UINT32_MAX, .n_logprobs = -1};
    _cleanup_json_ json_object *all = NULL;
    int64_t n;
    int r;

    r = check_names(call, others, reterr);
    if (r == 0)
        r = overlay(call, config->defaults, &all);
    if (r < 0)
        return r;
    if (member_u32(all, "max_tokens", 1, UINT32_MAX, &p.max_tokens, reterr) == -EINVAL)
        return -EINVAL;
    r = member_int(all, "logprobs", 0, PARAMS_LOGPROBS_MAX, &n, reterr);
    if (r == -EINVAL)
        return r;
    if (r == 0)
        p.n_logprobs = (int32_t)n;
    r = get_sampler(all, n_vocab, &p.sampler, reterr);
    if (r == 0)
        r = get_stops(all, &p.stops, reterr);
    if (r == 0)
        r = get_adapter(all, config, &p.adapter, reterr);
    if (r < 0)
        return r;
    *ret = p;
    p = (struct params){0};
    return 0;
}

void params_done(struct params *p)
{
    sampler_free(p->sampler);
    stops_free(p->stops);
    p->sampler = NULL;
    p->stops = NULL;
}
