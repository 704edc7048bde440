/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For compare-jinja2.py: a JSON object with `source` and `variables` a line on stdin, one with `text` or
 * `error` a line on stdout.
 */
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/json.h"
#include "engine/chat/chat.h"

int main(void)
{
    static const struct tm now = {.tm_year = 125,
                                  .tm_mon = 2,
                                  .tm_mday = 14,
                                  .tm_hour = 15,
                                  .tm_min = 9,
                                  .tm_sec = 26,
                                  .tm_wday = 5,
                                  .tm_yday = 72};
    _cleanup_free_ char *line = NULL;
    size_t room = 0;

    while (getline(&line, &room, stdin) > 0) {
        _cleanup_json_ json_object *in = json_tokener_parse(line), *out = json_object_new_object();
        _cleanup_chat_template_ struct chat_template *t = NULL;
        _cleanup_free_ char *text = NULL;
        json_object *source = NULL, *variables = NULL;
        struct fault fault = {0};
        size_t n;

        json_object_object_get_ex(in, "source", &source);
        json_object_object_get_ex(in, "variables", &variables);
        if (chat_template_new(json_object_get_string(source), strlen(json_object_get_string(source)), &t,
                              &fault) < 0 ||
            chat_render(t, variables, NULL, &now, &text, &n, &fault) < 0)
            json_object_object_add(out, "error", json_object_new_string(fault.reason));
        else
            json_object_object_add(out, "text", json_object_new_string_len(text, (int)n));
        puts(json_text(out));
    }
    return 0;
}
