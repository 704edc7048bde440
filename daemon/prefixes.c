/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/prefixes.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json-build.h"
#include "base/log.h"
#include "base/trust.h"
#include "base/utf8.h"
#include "daemon/messages.h"
#include "policy/policy.h"

#define WHY_MAX (TRUST_PATH_MAX + 128)

/* Tens of thousands of tokens; the configuration that carries them ends at 4 MiB. */
#define PREFIX_BYTES_MAX (256 * 1024)

static int read_text(const char *path, uid_t own_uid, char *buffer, size_t *ret_n, char *ret_why)
{
    _cleanup_close_ int fd = -EBADF;
    struct trust_error why = {.reason = "trusted"};
    size_t n = 0;
    ssize_t got;
    int r;

    r = trust_open(path, own_uid, 0, &fd, &why);
    if (r < 0) {
        snprintf(ret_why, WHY_MAX, "%s must be %s", why.path, why.reason);
        if (r != -EPERM)
            snprintf(ret_why, WHY_MAX, "%s", strerrordesc_np(-r));
        return r;
    }
    do {
        got = read(fd, buffer + n, PREFIX_BYTES_MAX + 1 - n);
        if (got < 0 && errno != EINTR) {
            snprintf(ret_why, WHY_MAX, "%s", strerrordesc_np(errno));
            return -EIO;
        }
        n += got > 0 ? (size_t)got : 0;
    } while (got != 0 && n <= PREFIX_BYTES_MAX);
    if (n > PREFIX_BYTES_MAX) {
        snprintf(ret_why, WHY_MAX, "it must have at most 256 KiB");
        return -E2BIG;
    }
    if (!utf8_is_valid(buffer, n, NULL)) {
        snprintf(ret_why, WHY_MAX, "it must be UTF-8 text");
        return -EINVAL;
    }
    *ret_n = n;
    return 0;
}

bool prefixes_add(json_object *config, const struct policy_model *rules, uid_t own_uid, const struct log *log)
{
    _cleanup_free_ char *buffer = rules->n_public_prefixes > 0 ? malloc(PREFIX_BYTES_MAX + 1) : NULL;
    const struct log_fields fields = {.model = rules->name, .message_id = MESSAGE_PREFIX_LEFT_OUT};
    json_object *texts;

    if (rules->n_public_prefixes == 0)
        return true;
    texts = json_object_new_array();
    if (!buffer || !add_take(config, "public_prefixes", texts))
        return false;
    for (size_t i = 0; i < rules->n_public_prefixes; i++) {
        const char *path = rules->public_prefixes[i];
        char why[WHY_MAX];
        size_t n = 0;

        if (read_text(path, own_uid, buffer, &n, why) < 0)
            log_line(log, LOG_WARNING, &fields, "public prefix left out: %s: %s", path, why);
        else if (!append_take(texts, json_object_new_string_len(buffer, (int)n)))
            return false;
    }
    return true;
}
