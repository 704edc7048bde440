/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The template interpreter: the input is a template, rendered over a fixed conversation with small limits.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/json.h"
#include "engine/chat/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char conversation[] =
        "{\"messages\":[{\"role\":\"system\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"b \\u20ac\"},"
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"name\":\"f\",\"arguments\":{\"x\":[1,2.5,true]}}]}],"
        "\"tools\":[{\"type\":\"function\"}],\"add_generation_prompt\":true,\"bos_token\":\"<s>\",\"n\":3}";
    const struct chat_limits limits = {.steps_max = 20000, .memory_max = 1 << 20, .output_max = 1 << 16, .depth_max = 16};
    const struct tm now = {.tm_year = 125, .tm_mday = 1};
    _cleanup_chat_template_ struct chat_template *t = NULL;
    _cleanup_json_ json_object *variables = NULL;
    _cleanup_free_ char *text = NULL;
    struct fault fault = {0};
    size_t n;

    if (chat_template_new((const char *)data, size, &t, &fault) < 0)
        return 0;
    variables = json_tokener_parse(conversation);
    if (chat_render(t, variables, &limits, &now, &text, &n, &fault) == 0 && strlen(text) > n)
        abort();
    return 0;
}
