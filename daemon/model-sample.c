/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looking after what is loaded: now and then the kernel is asked whether it still holds what it held when the model
 * became ready, and whether the files are still those that were checked.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/units.h"
#include "daemon/internal.h"
#include "daemon/limits.h"
#include "daemon/messages.h"

void model_sample(struct model *model)
{
    uint64_t now = manager_now_us(model->manager);

    if (model->state != MODEL_READY || model->is_kept || now - model->sampled_us < LIMIT_SAMPLE_US)
        return;
    model->sampled_us = now;
    /* Without a thread now, the next time. */
    (void)residency_sample(model->residency);
}

void model_sampled(struct model *model, uint64_t bytes_lost)
{
    const struct log_fields fields = {
        .model = model->rules->name,
        .message_id = bytes_lost > 0 ? MESSAGE_MODEL_LOST_MEMORY : MESSAGE_MODEL_HELD_AGAIN,
    };
    bool was_lost = model->bytes_lost > 0;
    char lost[UNITS_TEXT_MAX];

    model->bytes_lost = bytes_lost;
    if ((bytes_lost > 0) == was_lost)
        return;
    if (bytes_lost > 0)
        log_line(model->manager->log, LOG_ALERT, &fields,
                 "model %s: %s of it are not held in memory any more, though the policy says so", model->rules->name,
                 units_format_size(bytes_lost, lost));
    else
        log_line(model->manager->log, LOG_NOTICE, &fields, "model %s: all of it is held in memory again",
                 model->rules->name);
    manager_model_changed(model->manager);
}

const char *model_pages(const struct model *model)
{
    uint64_t whole, huge, reserved;

    if (!model->residency || residency_locked_bytes(model->residency) == 0)
        return NULL;
    whole = residency_locked_bytes(model->residency);
    huge = residency_huge_bytes(model->residency);
    reserved = residency_reserved_bytes(model->residency);
    if (reserved > whole / 2)
        return "reserved 2 MiB";
    return huge > whole / 2 ? "2 MiB" : "4 KiB";
}
