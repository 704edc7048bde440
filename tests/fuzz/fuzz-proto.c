/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The packets between daemon and worker, as a compromised peer could write them. Input: a byte that chooses
 * sender, state and greeting, a byte for the number of fds, then head and body. What passes must hold
 * together: a STEP's pieces end exactly where the packet ends.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/proto/proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk_step(const struct packet *p)
{
    struct step_iterator it;
    struct step_tenant tenant;
    struct step_piece piece;
    const char *text, *extra, *end = p->blob;
    uint32_t n_pieces = 0;

    step_iterator_init(&it, p);
    while (step_next_tenant(&it, &tenant))
        end += sizeof(tenant);
    while (step_next_piece(&it, &piece, &text, &extra)) {
        end = extra + piece.n_extra;
        n_pieces++;
    }
    if (end != p->blob + p->n_blob || n_pieces != p->step->n_pieces)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proto_context context = {.epoch = 5};
    enum proto_side from;
    struct packet_head head;
    struct packet p;
    _cleanup_free_ uint8_t *body = NULL;
    const char *why = NULL;
    int r;

    if (size < 2 + sizeof(head))
        return 0;
    from = (data[0] & 1) ? PROTO_WORKER : PROTO_DAEMON;
    context.side = from == PROTO_DAEMON ? PROTO_WORKER : PROTO_DAEMON;
    context.state = (enum proto_state)((data[0] >> 1) % PROTO_STATE_MAX);
    context.reset = (data[0] & 0x40) != 0;
    context.epoch = (data[0] & 0x80) ? 0 : 5;
    memcpy(&head, data + 2, sizeof(head));
    r = proto_head_check(&context, from, &head, data[1], &why);
    if (r < 0 && !why)
        abort();
    if (r != 0)
        return 0;
    if (head.n_bytes != size - 2 - sizeof(head))
        return 0;
    /* As much as the packet has and no more, so that the sanitiser sees a byte too many. */
    body = malloc(head.n_bytes);
    if (!body)
        return 0;
    memcpy(body, data + 2 + sizeof(head), head.n_bytes);
    why = NULL;
    r = proto_body_check(&context, from, &head, body, &p, &why);
    if (r < 0 && !why)
        abort();
    if (r < 0)
        return 0;
    if (p.type == PACKET_STEP)
        walk_step(&p);
    proto_advance(&context, from, &p);
    if (context.state >= PROTO_STATE_MAX || context.epoch == 0)
        abort();
    return 0;
}
