/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "engine/worker/used.h"

#include "engine/worker/link.h"
#include "engine/worker/work.h"

void used_note(struct used *u, const struct work *w, const struct packet_done *done, uint64_t now_ns)
{
    uint64_t mark = w->batch.item.tenant ? w->batch.item.tenant->mark : 0;

    if (!w->batch.started || mark == 0)
        return;
    u->entries[u->n_noted++ % USED_MAX] = (struct used_entry){
        .what = {.epoch = w->epoch,
                 .request = w->id,
                 .mark = mark,
                 .prompt_tokens = done->prompt_tokens,
                 .cached_tokens = done->cached_tokens,
                 .output_tokens = done->output_tokens,
                 .duration_ns = done->prefill_ns + done->decode_ns},
        .received_ns = w->received_ns,
        .ended_ns = now_ns,
    };
}

void used_tell(const struct used *u, struct link *l, uint64_t epoch, uint64_t now_ns)
{
    uint64_t n = u->n_noted < USED_MAX ? u->n_noted : USED_MAX;

    for (uint64_t i = u->n_noted - n; i < u->n_noted; i++) {
        const struct used_entry *e = &u->entries[i % USED_MAX];
        struct packet_used what = e->what;

        if (now_ns - e->ended_ns > USED_AGE_NS)
            continue;
        what.age_ns = now_ns - e->received_ns;
        link_send(l, epoch, PACKET_USED, &what, sizeof(what), NULL, 0);
    }
}
