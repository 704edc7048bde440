/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bounded JSON reader: whatever it takes must survive a round trip through its own output, and every
 * place that the index knows must be inside the text.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct json_limits limits = {
        .bytes_max = 1 << 16, .depth_max = 12, .values_max = 4096, .comments = size > 0 && data[0] == '/'};
    _cleanup_json_ json_object *object = NULL, *again = NULL;
    _cleanup_(json_index_freep) struct json_index *index = NULL;
    struct json_error error = {0};
    uint32_t line, column;
    const char *text;

    if (json_parse((const char *)data, size, &limits, &object, &index, &error) < 0) {
        if (!error.reason || error.offset > size)
            abort();
        return 0;
    }
    if (!json_index_find(index, "", &line, &column))
        abort();
    text = json_text(object);
    if (text && json_parse(text, strlen(text), &(struct json_limits){1 << 24, 12, 4096, false}, &again, NULL,
                           NULL) < 0)
        abort();
    return 0;
}
