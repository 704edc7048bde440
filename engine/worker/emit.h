/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Putting together what the daemon hears: one STEP packet with all that a step brought, and the ends of
 * requests. Compute thread; done and failed also helper thread. A piece that was begun and not ended is
 * dropped by the next begin.
 */

#include <stdint.h>

#include "base/json.h"
#include "engine/proto/worker-proto.h"

struct fault;
struct link;

struct emit {
    struct link *link; /* borrowed */
    struct step_tenant *tenants;
    uint32_t n_tenants, tenants_allocated;
    char *pieces; /* [n_bytes], whole ones; behind them the one that is being made */
    size_t n_bytes, allocated;
    uint32_t n_pieces;
    size_t n_open; /* bytes of the piece that is being made, with its head */
};

/**
 * emit_init() - nothing to say yet
 */
void emit_init(struct emit *e, struct link *link_borrow);

/**
 * emit_done() - release the buffers
 */
void emit_done(struct emit *e);

/**
 * emit_tenant() - add to a tenant's part of the step; returns 0 or -ENOMEM
 */
int emit_tenant(struct emit *e, const struct step_tenant *part);

/**
 * emit_piece_begin() - what follows is about @request
 */
void emit_piece_begin(struct emit *e, uint64_t request);

/**
 * emit_text() - more text of the piece; returns 0 or -ENOMEM
 */
int emit_text(struct emit *e, const char *text, size_t n);

/**
 * emit_piece_end() - the piece is whole
 * @extra: NULL: none; borrowed
 * Returns 0 or -ENOMEM.
 */
int emit_piece_end(struct emit *e, json_object *extra, uint32_t n_tokens, int32_t queue_position,
                   int64_t eta_ms);

/**
 * emit_step() - send all of it as one STEP, if there is anything; counts of pieces and tenants are filled in
 */
void emit_step(struct emit *e, uint64_t epoch, struct packet_step step);

/**
 * emit_figures() - a STEP of no piece and no tenant
 */
void emit_figures(struct emit *e, uint64_t epoch, struct packet_step step);

/**
 * emit_request_done() - DONE. @extra: NULL: none; borrowed. Returns 0; -E2BIG (nothing was sent); -ENOMEM
 */
int emit_request_done(struct link *l, uint64_t epoch, const struct packet_done *done, json_object *extra);

/**
 * emit_request_done_text() - DONE with a blob of JSON text [@n]. Returns 0; -E2BIG (nothing was sent)
 */
int emit_request_done_text(struct link *l, uint64_t epoch, const struct packet_done *done, const char *text,
                           size_t n);

/**
 * emit_request_failed() - FAILED; @request 0: the model. Ends the process when there is not even memory for
 * that
 */
void emit_request_failed(struct link *l, uint64_t epoch, uint64_t request, const struct fault *fault);
