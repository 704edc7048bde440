/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/emit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "engine/worker/link.h"

/* As in the table of proto.c. */
#define REPLY_BYTES_MAX (16u << 20)

void emit_init(struct emit *e, struct link *link_borrow)
{
    *e = (struct emit){.link = link_borrow};
}

void emit_done(struct emit *e)
{
    free(e->tenants);
    free(e->pieces);
    *e = (struct emit){0};
}

int emit_tenant(struct emit *e, const struct step_tenant *part)
{
    /* As few as there are sequences, and mostly sorted. */
    for (uint32_t i = e->n_tenants; i-- > 0;) {
        struct step_tenant *t = &e->tenants[i];

        if (t->tenant == part->tenant) {
            t->n_pages = part->n_pages;
            t->cost_ns += part->cost_ns;
            t->n_prompt += part->n_prompt;
            t->n_output += part->n_output;
            return 0;
        }
    }
    if (e->n_tenants == e->tenants_allocated) {
        uint32_t n = e->tenants_allocated > 0 ? 2 * e->tenants_allocated : 16;
        struct step_tenant *grown = reallocarray(e->tenants, n, sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        e->tenants = grown;
        e->tenants_allocated = n;
    }
    e->tenants[e->n_tenants++] = *part;
    return 0;
}

static int reserve(struct emit *e, size_t n)
{
    size_t needed = e->n_bytes + e->n_open + n, size = e->allocated > 0 ? e->allocated : 4096;
    char *grown;

    if (needed <= e->allocated)
        return 0;
    while (size < needed)
        size *= 2;
    grown = realloc(e->pieces, size);
    if (!grown)
        return -ENOMEM;
    e->pieces = grown;
    e->allocated = size;
    return 0;
}

void emit_piece_begin(struct emit *e, uint64_t request)
{
    struct step_piece head = {.request = request};

    e->n_open = 0;
    /* Without memory for it, emit_text() or emit_piece_end() fails. */
    if (reserve(e, sizeof(head)) < 0)
        return;
    memcpy(e->pieces + e->n_bytes, &head, sizeof(head));
    e->n_open = sizeof(head);
}

int emit_text(struct emit *e, const char *text, size_t n)
{
    if (e->n_open == 0 || reserve(e, n) < 0)
        return -ENOMEM;
    if (n > 0)
        memcpy(e->pieces + e->n_bytes + e->n_open, text, n);
    e->n_open += n;
    return 0;
}

int emit_piece_end(struct emit *e, json_object *extra, uint32_t n_tokens, int32_t queue_position,
                   int64_t eta_ms)
{
    const char *text = extra ? json_text(extra) : "";
    size_t n_extra;
    struct step_piece head;

    if (e->n_open == 0 || !text)
        return -ENOMEM;
    memcpy(&head, e->pieces + e->n_bytes, sizeof(head));
    head.n_text = (uint32_t)(e->n_open - sizeof(head));
    n_extra = extra ? strlen(text) : 0;
    head.n_extra = (uint32_t)n_extra;
    head.n_tokens = n_tokens;
    head.queue_position = queue_position;
    head.eta_ms = eta_ms;
    if (emit_text(e, text, n_extra) < 0)
        return -ENOMEM;
    memcpy(e->pieces + e->n_bytes, &head, sizeof(head));
    e->n_bytes += e->n_open;
    e->n_open = 0;
    e->n_pieces++;
    return 0;
}

void emit_step(struct emit *e, uint64_t epoch, struct packet_step step)
{
    char *at;

    if (e->n_pieces == 0 && e->n_tenants == 0)
        return;
    e->n_open = 0;
    step.n_pieces = e->n_pieces;
    step.n_tenants = e->n_tenants;
    /* Tenants stand before pieces. */
    if (reserve(e, e->n_tenants * sizeof(*e->tenants)) < 0) {
        const struct fault fault = {.kind = FAULT_INSUFFICIENT_MEMORY, .subject = "ram"};

        emit_request_failed(e->link, LINK_EPOCH_ANY, 0, &fault);
        link_finish(e->link, EXIT_FAILURE);
    }
    at = e->pieces + e->n_tenants * sizeof(*e->tenants);
    memmove(at, e->pieces, e->n_bytes);
    if (e->n_tenants > 0)
        memcpy(e->pieces, e->tenants, e->n_tenants * sizeof(*e->tenants));
    link_send(e->link, epoch, PACKET_STEP, &step, sizeof(step), e->pieces,
              e->n_bytes + e->n_tenants * sizeof(*e->tenants));
    e->n_bytes = 0;
    e->n_pieces = 0;
    e->n_tenants = 0;
}

void emit_figures(struct emit *e, uint64_t epoch, struct packet_step step)
{
    link_send(e->link, epoch, PACKET_STEP, &step, sizeof(step), NULL, 0);
}

int emit_request_done(struct link *l, uint64_t epoch, const struct packet_done *done, json_object *extra)
{
    const char *text = extra ? json_text(extra) : "";

    return text ? emit_request_done_text(l, epoch, done, text, strlen(text)) : -ENOMEM;
}

int emit_request_done_text(struct link *l, uint64_t epoch, const struct packet_done *done, const char *text,
                           size_t n)
{
    if (n > REPLY_BYTES_MAX)
        return -E2BIG;
    link_send(l, epoch, PACKET_DONE, done, sizeof(*done), text, n);
    return 0;
}

void emit_request_failed(struct link *l, uint64_t epoch, uint64_t request, const struct fault *fault)
{
    const struct packet_failed failed = {.request = request};
    _cleanup_json_ json_object *o = json_object_new_object();
    json_object *parameters = NULL, *name = json_object_new_string(fault_error_name(fault->kind));
    const char *text = NULL;

    if (o && name && fault_to_json(fault, &parameters) == 0 &&
        json_object_object_add(o, "error", name) == 0 &&
        json_object_object_add(o, "parameters", parameters) == 0)
        text = json_text(o);
    if (!text)
        link_finish(l, EXIT_FAILURE);
    link_send(l, epoch, PACKET_FAILED, &failed, sizeof(failed), text, strlen(text));
}
