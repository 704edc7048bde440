/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/facts.h"

#include <errno.h>

#include "base/json-build.h"

static bool add_bytes(json_object *to, const struct engine_facts *f)
{
    json_object *bytes = json_object_new_object();

    return add_take(to, "bytes", bytes) && add_count(bytes, "weights", f->bytes_weights) &&
           add_count(bytes, "locked", f->bytes_locked) && add_count(bytes, "kv", f->bytes_kv) &&
           add_count(bytes, "kv_page", f->bytes_kv_page) && add_count(bytes, "scratch", f->bytes_scratch) &&
           add_count(bytes, "per_token", f->bytes_per_token);
}

static bool add_gpus(json_object *to, const struct engine_facts *f)
{
    json_object *array = json_object_new_array();
    bool ok = add_take(to, "gpus", array) && add_count(to, "gpu_layers", f->gpu_layers) &&
              add_text(to, "gpu_reason", f->gpu_reason);

    for (uint32_t i = 0; ok && i < f->n_gpus; i++) {
        const struct engine_gpu_facts *g = &f->gpus[i];
        json_object *o = json_object_new_object();

        ok = append_take(array, o) && add_count(o, "device", g->i_device) && add_text(o, "name", g->name) &&
             add_text(o, "bus_id", g->bus_id) && add_count(o, "weights", g->bytes_weights) &&
             add_count(o, "kv", g->bytes_kv) && add_count(o, "scratch", g->bytes_scratch) &&
             add_count(o, "driver", g->bytes_driver);
    }
    return ok;
}

static bool add_released(json_object *to, const struct engine_facts *f)
{
    json_object *array = json_object_new_array();
    bool ok = add_take(to, "released", array);

    for (size_t i = 0; ok && i < f->n_released; i++) {
        const struct engine_range *range = &f->released[i];
        json_object *o = json_object_new_array();

        ok = append_take(array, o) && append_take(o, json_object_new_uint64(range->file)) &&
             append_take(o, json_object_new_uint64(range->from)) &&
             append_take(o, json_object_new_uint64(range->n_bytes));
    }
    return ok;
}

static bool add_capabilities(json_object *to, unsigned abilities, bool has_tokenizer)
{
    static const struct {
        unsigned ability;
        const char *name;
    } names[] = {
        {FACTS_COMPLETE, "complete"}, {FACTS_CHAT, "chat"},           {FACTS_EMBED, "embed"},
        {FACTS_TOOLS, "tools"},       {FACTS_REASONING, "reasoning"},
    };
    json_object *array = json_object_new_array();
    bool ok = add_take(to, "capabilities", array);

    for (size_t i = 0; ok && i < sizeof(names) / sizeof(names[0]); i++)
        ok = !(abilities & names[i].ability) || append_take(array, json_object_new_string(names[i].name));
    return ok && (!has_tokenizer || append_take(array, json_object_new_string("tokenize")));
}

int facts_to_json(const struct engine_facts *f, uint32_t sequences, const char *tokenizer,
                  unsigned abilities, json_object **ret)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (!o || !add_text(o, "architecture", f->architecture) || !add_text(o, "name", f->name) ||
        !add_text(o, "quantization", f->quantization) || !add_text(o, "isa", f->isa) ||
        !add_count(o, "parameters", f->n_parameters) || !add_count(o, "layers", f->n_layers) ||
        !add_count(o, "vocabulary", f->n_vocab) || !add_count(o, "embedding", f->n_embedding) ||
        !add_count(o, "context_trained", f->context_trained_tokens) ||
        !add_count(o, "context_tokens", f->context_tokens) || !add_count(o, "sequences", sequences) ||
        !add_count(o, "batch_tokens", f->batch_tokens_max) || !add_count(o, "threads", f->n_threads) ||
        !add_count(o, "page_tokens", f->page_tokens) || !add_count(o, "pages", f->pages_total) ||
        !add_bytes(o, f) || !add_gpus(o, f) || !add_released(o, f) ||
        !add_capabilities(o, abilities, tokenizer != NULL))
        return -ENOMEM;
    if (tokenizer ? !add_text(o, "tokenizer", tokenizer) : json_object_object_add(o, "tokenizer", NULL) < 0)
        return -ENOMEM;
    *ret = TAKE_PTR(o);
    return 0;
}
