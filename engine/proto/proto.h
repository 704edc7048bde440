/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The rules of the packets in worker-proto.h, on bytes alone: what may come from whom in which state, and
 * whether it is well-formed. channel.h applies them to a socket; only tests and the fuzzer call them
 * directly.
 */

#include "engine/proto/worker-proto.h"

/* What a side knows of the connection when a packet arrives or is about to be sent. */
struct proto_context {
    enum proto_side side; /* whose knowledge this is */
    enum proto_state state;
    uint64_t epoch;        /* 0: not greeted yet */
    bool reset;            /* RESET was the last greeting and is not answered yet: HELLO may name any state */
    uint32_t peer_version; /* 0: not greeted yet */
};

enum { PROTO_STALE = 1 };

/**
 * proto_head_check() - may a packet of @from with this head come now, with @n_fds fds (the memfd not
 * counted)? Compares the length with the type's limit, so that the caller can allocate after it.
 * @reterr_why: on -EBADMSG what is wrong, a static string
 * Returns 0, PROTO_STALE (from before the present epoch: drop it), -EBADMSG (violation).
 */
int proto_head_check(const struct proto_context *c, enum proto_side from, const struct packet_head *head,
                     size_t n_fds, const char **reterr_why);

/**
 * proto_body_check() - is the body what its head says?
 * @body: head->n_bytes bytes, aligned to 8
 * @ret:  borrows @body
 * Returns 0 or -EBADMSG.
 */
int proto_body_check(const struct proto_context *c, enum proto_side from, const struct packet_head *head,
                     const void *body, struct packet *ret, const char **reterr_why);

/**
 * proto_advance() - what the context is after a checked packet of @from was sent or received
 */
void proto_advance(struct proto_context *c, enum proto_side from, const struct packet *p);

/**
 * proto_type_to_string(), proto_state_to_string() - for logs; "?" for numbers out of range
 */
const char *proto_type_to_string(unsigned type);
const char *proto_state_to_string(unsigned state);

/* Walks over the tenants and pieces of a checked STEP packet. */
struct step_iterator {
    const char *at;
    uint32_t n_tenants, n_pieces; /* not handed out yet */
};

/**
 * step_iterator_init() - start at the beginning of @p, a checked PACKET_STEP, whose body must outlive the
 * iterator
 */
void step_iterator_init(struct step_iterator *it, const struct packet *p);

/**
 * step_next_tenant() - the next tenant's share; call it until it returns false, before the pieces
 */
bool step_next_tenant(struct step_iterator *it, struct step_tenant *ret);

/**
 * step_next_piece() - the next request's part; *ret_text (n_text bytes) and *ret_extra (n_extra) point into
 * the packet
 */
bool step_next_piece(struct step_iterator *it, struct step_piece *ret, const char **ret_text,
                     const char **ret_extra);
