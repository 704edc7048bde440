/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/facts.h"

#include <errno.h>

/* json-c's constructors return NULL without memory; adding NULL would quietly become null in the text. */
static int add(json_object *to, const char *name, json_object *value)
{
    if (!value)
        return -ENOMEM;
    if (json_object_object_add(to, name, value) < 0) {
        json_object_put(value);
        return -ENOMEM;
    }
    return 0;
}

static int add_text(json_object *to, const char *name, const char *text)
{
    return add(to, name, json_object_new_string(text));
}

static int add_number(json_object *to, const char *name, uint64_t n)
{
    return add(to, name, json_object_new_uint64(n));
}

static int add_item(json_object *array, const char *text)
{
    json_object *item = json_object_new_string(text);

    if (!item)
        return -ENOMEM;
    if (json_object_array_add(array, item) < 0) {
        json_object_put(item);
        return -ENOMEM;
    }
    return 0;
}

static int add_bytes(json_object *to, const struct engine_facts *f)
{
    json_object *bytes = json_object_new_object();

    if (add(to, "bytes", bytes) < 0)
        return -ENOMEM;
    if (add_number(bytes, "weights", f->bytes_weights) < 0 ||
        add_number(bytes, "locked", f->bytes_locked) < 0 || add_number(bytes, "kv", f->bytes_kv) < 0 ||
        add_number(bytes, "kv_page", f->bytes_kv_page) < 0 ||
        add_number(bytes, "scratch", f->bytes_scratch) < 0 ||
        add_number(bytes, "per_token", f->bytes_per_token) < 0)
        return -ENOMEM;
    return 0;
}

int facts_to_json(const struct engine_facts *f, uint32_t sequences, const char *tokenizer,
                  unsigned abilities, json_object **ret)
{
    _cleanup_json_ json_object *o = json_object_new_object();
    json_object *capabilities;

    if (!o || add_text(o, "architecture", f->architecture) < 0 || add_text(o, "name", f->name) < 0 ||
        add_text(o, "quantization", f->quantization) < 0 || add_text(o, "isa", f->isa) < 0 ||
        add_number(o, "parameters", f->n_parameters) < 0 || add_number(o, "layers", f->n_layers) < 0 ||
        add_number(o, "vocabulary", f->n_vocab) < 0 || add_number(o, "embedding", f->n_embedding) < 0 ||
        add_number(o, "context_trained", f->context_trained_tokens) < 0 ||
        add_number(o, "context_tokens", f->context_tokens) < 0 || add_number(o, "sequences", sequences) < 0 ||
        add_number(o, "batch_tokens", f->batch_tokens_max) < 0 ||
        add_number(o, "threads", f->n_threads) < 0 || add_number(o, "page_tokens", f->page_tokens) < 0 ||
        add_number(o, "pages", f->pages_total) < 0 || add_bytes(o, f) < 0)
        return -ENOMEM;
    if (tokenizer ? add_text(o, "tokenizer", tokenizer) < 0
                  : json_object_object_add(o, "tokenizer", NULL) < 0)
        return -ENOMEM;
    capabilities = json_object_new_array();
    if (add(o, "capabilities", capabilities) < 0)
        return -ENOMEM;
    if ((abilities & FACTS_COMPLETE && add_item(capabilities, "complete") < 0) ||
        (abilities & FACTS_CHAT && add_item(capabilities, "chat") < 0) ||
        (abilities & FACTS_EMBED && add_item(capabilities, "embed") < 0) ||
        (abilities & FACTS_TOOLS && add_item(capabilities, "tools") < 0) ||
        (abilities & FACTS_REASONING && add_item(capabilities, "reasoning") < 0) ||
        (tokenizer && add_item(capabilities, "tokenize") < 0))
        return -ENOMEM;
    *ret = TAKE_PTR(o);
    return 0;
}
