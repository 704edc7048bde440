/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/json-build.h"
#include "base/json.h"
#include "base/sha256.h"
#include "engine/proto/worker-proto.h"

/* Linux 6.3, newer than the headers of Debian 12. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define MAGIC UINT64_C(0x31706e7372646972) /* "ridrsnp1" */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

enum {
    NAME_MAX_BYTES = 64,
    LOADING_MAX_BYTES = 1 << 20, /* paths of a model, its draft and its adapters */
    PIN_MAX = 2,
};

struct head {
    uint64_t magic;
    uint32_t version;
    uint32_t n_bytes; /* of the JSON that follows */
    char sha256[SHA256_TEXT_MAX];
    char reserved[7];
};
_Static_assert(sizeof(struct head) == 88, "head");
_Static_assert(offsetof(struct head, version) == 8 && offsetof(struct head, n_bytes) == 12, "head");
_Static_assert(offsetof(struct head, sha256) == 16 && offsetof(struct head, reserved) == 81, "head");

struct snapshot *snapshot_free(struct snapshot *s)
{
    if (!s)
        return NULL;
    for (size_t i = 0; i < s->n_models; i++) {
        free(s->models[i].name);
        free(s->models[i].loading);
        free(s->models[i].files);
    }
    free(s->models);
    free(s);
    return NULL;
}

/* ---- writing ---- */

static json_object *file_to_json(const struct residency_identity *f)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (!o || !add_count(o, "device", f->device) || !add_count(o, "inode", f->inode) ||
        !add_count(o, "bytes", f->n_bytes) || !add_int(o, "mtime_ns", f->mtime_ns) ||
        !add_int(o, "ctime_ns", f->ctime_ns))
        return NULL;
    return TAKE_PTR(o);
}

static json_object *files_to_json(const struct snapshot_model *m)
{
    _cleanup_json_ json_object *array = json_object_new_array();

    for (size_t i = 0; array && i < m->n_files; i++) {
        if (!append_take(array, file_to_json(&m->files[i])))
            return NULL;
    }
    return TAKE_PTR(array);
}

static json_object *model_to_json(const struct snapshot_model *m)
{
    _cleanup_json_ json_object *o = json_object_new_object();

    if (!o || !add_text(o, "name", m->name) || !add_count(o, "pin", m->pin))
        return NULL;
    if (m->loading && (!add_text(o, "loading", m->loading) || !add_count(o, "link", m->link_id) ||
                       !add_count(o, "copies", m->copies_id) || !add_count(o, "pid", (uint64_t)m->pid) ||
                       !add_count(o, "uid", m->uid) || !add_count(o, "granted", m->granted_bytes) ||
                       !add_count(o, "kv", m->kv_bytes) || !add_count(o, "scratch", m->scratch_bytes) ||
                       !add_take(o, "files", files_to_json(m))))
        return NULL;
    return TAKE_PTR(o);
}

static json_object *key_to_json(const struct mark_key *key)
{
    _cleanup_json_ json_object *array = json_object_new_array();

    for (size_t i = 0; array && i < MARK_KEY_WORDS; i++) {
        if (!append_take(array, json_object_new_int64(key->words[i])))
            return NULL;
    }
    return TAKE_PTR(array);
}

/* By number; "" where there was none. */
static json_object *gpus_to_json(const struct snapshot *s)
{
    _cleanup_json_ json_object *array = json_object_new_array();

    for (size_t i = 0; array && i < GPUS_MAX; i++) {
        if (!append_take(array, json_object_new_string(s->gpus[i])))
            return NULL;
    }
    return TAKE_PTR(array);
}

static json_object *to_json(const struct snapshot *s)
{
    _cleanup_json_ json_object *o = json_object_new_object();
    json_object *starts = json_object_new_array(), *models = json_object_new_array();
    bool good = o && starts && models && add_take(o, "mark_key", key_to_json(&s->mark_key));

    for (size_t i = 0; good && i < s->n_starts; i++)
        good = append_take(starts, json_object_new_int64((int64_t)s->starts_us[i]));
    for (size_t i = 0; good && i < s->n_models; i++)
        good = append_take(models, model_to_json(&s->models[i]));
    good = good && add_count(o, "epoch", s->epoch) && add_count(o, "next_id", s->next_id) &&
           add_take(o, "gpus", gpus_to_json(s));
    if (!good) {
        json_object_put(starts);
        json_object_put(models);
        return NULL;
    }
    if (!add_take(o, "starts", starts)) {
        json_object_put(models);
        return NULL;
    }
    return add_take(o, "models", models) ? TAKE_PTR(o) : NULL;
}

static int write_all(int fd, const void *data, size_t n)
{
    while (n > 0) {
        ssize_t k = write(fd, data, n);

        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return -errno;
        data = (const char *)data + k;
        n -= (size_t)k;
    }
    return 0;
}

int snapshot_write(const struct snapshot *s, int *ret)
{
    _cleanup_json_ json_object *o = to_json(s);
    _cleanup_close_ int fd = -EBADF;
    struct head head = {.magic = MAGIC, .version = SNAPSHOT_VERSION};
    struct sha256 digest;
    const char *text;
    size_t n;
    int r;

    text = o ? json_text(o) : NULL;
    if (!text)
        return -ENOMEM;
    n = strlen(text);
    if (n > SNAPSHOT_BYTES_MAX - sizeof(head))
        return -E2BIG;
    head.n_bytes = (uint32_t)n;
    sha256_init(&digest);
    sha256_add(&digest, text, n);
    sha256_text(&digest, head.sha256);
    fd = memfd_create("residentd-state", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("residentd-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    r = write_all(fd, &head, sizeof(head));
    if (r >= 0)
        r = write_all(fd, text, n);
    if (r < 0)
        return r;
    if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        return -errno;
    *ret = TAKE_FD(fd);
    return 0;
}

/* ---- reading ---- */

static int odd(const char *why, const char **reterr_why)
{
    *reterr_why = why;
    return -EBADMSG;
}

static bool get_number(json_object *o, const char *key, int64_t min, int64_t max, int64_t *ret)
{
    json_object *value;
    int64_t n;

    if (!json_object_object_get_ex(o, key, &value) || !json_object_is_type(value, json_type_int))
        return false;
    n = json_object_get_int64(value);
    if (n < min || n > max)
        return false;
    *ret = n;
    return true;
}

static bool get_count(json_object *o, const char *key, uint64_t *ret)
{
    int64_t n;

    if (!get_number(o, key, 0, INT64_MAX, &n))
        return false;
    *ret = (uint64_t)n;
    return true;
}

/* NULL: not there, or not a text of at most @max bytes without NUL. */
static const char *get_text(json_object *o, const char *key, size_t max)
{
    json_object *value;
    const char *text;

    if (!json_object_object_get_ex(o, key, &value) || !json_object_is_type(value, json_type_string))
        return NULL;
    text = json_object_get_string(value);
    if (strlen(text) != (size_t)json_object_get_string_len(value) || !*text || strlen(text) > max)
        return NULL;
    return text;
}

static bool get_array(json_object *o, const char *key, size_t max, json_object **ret)
{
    return json_object_object_get_ex(o, key, ret) && json_object_is_type(*ret, json_type_array) &&
           json_object_array_length(*ret) <= max;
}

static int parse_files(json_object *o, struct snapshot_model *m, const char **reterr_why)
{
    json_object *array;

    if (!get_array(o, "files", PROTO_FDS_MAX, &array) || json_object_array_length(array) == 0)
        return odd("a model's files are missing, or too many", reterr_why);
    m->files = calloc(json_object_array_length(array), sizeof(*m->files));
    if (!m->files)
        return -ENOMEM;
    for (size_t i = 0; i < json_object_array_length(array); i++) {
        json_object *file = json_object_array_get_idx(array, i);
        struct residency_identity *f = &m->files[m->n_files++];

        if (!json_object_is_type(file, json_type_object) || !get_count(file, "device", &f->device) ||
            !get_count(file, "inode", &f->inode) || !get_count(file, "bytes", &f->n_bytes) || f->n_bytes == 0 ||
            !get_number(file, "mtime_ns", INT64_MIN, INT64_MAX, &f->mtime_ns) ||
            !get_number(file, "ctime_ns", INT64_MIN, INT64_MAX, &f->ctime_ns))
            return odd("a file that is not identified", reterr_why);
    }
    return 0;
}

static int parse_loaded(json_object *o, const char *loading, struct snapshot_model *m, const char **reterr_why)
{
    int64_t pid, uid;

    if (!get_count(o, "link", &m->link_id) || m->link_id == 0 || !get_count(o, "copies", &m->copies_id) ||
        !get_number(o, "pid", 1, INT_MAX, &pid) || !get_number(o, "uid", 0, UINT32_MAX - 1, &uid) ||
        !get_count(o, "granted", &m->granted_bytes) || !get_count(o, "kv", &m->kv_bytes) ||
        !get_count(o, "scratch", &m->scratch_bytes))
        return odd("a loaded model that is not described", reterr_why);
    m->pid = (pid_t)pid;
    m->uid = (uid_t)uid;
    m->loading = strdup(loading);
    if (!m->loading)
        return -ENOMEM;
    return parse_files(o, m, reterr_why);
}

static int parse_model(json_object *o, struct snapshot_model *m, const char **reterr_why)
{
    const char *name, *loading;
    int64_t pin;

    if (!json_object_is_type(o, json_type_object))
        return odd("a model that is no object", reterr_why);
    name = get_text(o, "name", NAME_MAX_BYTES);
    if (!name || !get_number(o, "pin", 0, PIN_MAX, &pin))
        return odd("a model without a name, or a bad pin", reterr_why);
    m->pin = (uint32_t)pin;
    m->name = strdup(name);
    if (!m->name)
        return -ENOMEM;
    if (!json_object_object_get_ex(o, "loading", NULL))
        return 0;
    loading = get_text(o, "loading", LOADING_MAX_BYTES);
    return loading ? parse_loaded(o, loading, m, reterr_why) : odd("a bad text of what was loaded", reterr_why);
}

static int parse_key(json_object *o, struct mark_key *ret, const char **reterr_why)
{
    json_object *words;

    if (!get_array(o, "mark_key", MARK_KEY_WORDS, &words) || json_object_array_length(words) != MARK_KEY_WORDS)
        return odd("no key of marks", reterr_why);
    for (size_t i = 0; i < MARK_KEY_WORDS; i++) {
        json_object *word = json_object_array_get_idx(words, i);
        int64_t value = json_object_is_type(word, json_type_int) ? json_object_get_int64(word) : -1;

        if (value < 0 || value > UINT32_MAX)
            return odd("a bad key of marks", reterr_why);
        ret->words[i] = (uint32_t)value;
    }
    return 0;
}

/* Snapshots of earlier versions have none. */
static int parse_gpus(json_object *o, struct snapshot *s, const char **reterr_why)
{
    json_object *gpus;

    if (!json_object_object_get_ex(o, "gpus", NULL))
        return 0;
    if (!get_array(o, "gpus", GPUS_MAX, &gpus))
        return odd("too many GPUs, or no list of them", reterr_why);
    for (size_t i = 0; i < json_object_array_length(gpus); i++) {
        json_object *value = json_object_array_get_idx(gpus, i);
        const char *text = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;

        if (!text || strlen(text) >= sizeof(s->gpus[i]))
            return odd("a GPU whose place is no short text", reterr_why);
        snprintf(s->gpus[i], sizeof(s->gpus[i]), "%s", text);
    }
    return 0;
}

static int parse_json(json_object *o, struct snapshot *s, const char **reterr_why)
{
    json_object *starts, *models;
    int r;

    if (!json_object_is_type(o, json_type_object) || !get_count(o, "epoch", &s->epoch) || s->epoch == 0 ||
        s->epoch >= INT64_MAX || !get_count(o, "next_id", &s->next_id) || s->next_id == 0 ||
        s->next_id > INT64_MAX / 2)
        return odd("no epoch or no next number", reterr_why);
    r = parse_gpus(o, s, reterr_why);
    if (r < 0)
        return r;
    if (!get_array(o, "starts", SNAPSHOT_STARTS_MAX, &starts) ||
        !get_array(o, "models", SNAPSHOT_MODELS_MAX, &models))
        return odd("no starts or no models, or too many", reterr_why);
    for (size_t i = 0; i < json_object_array_length(starts); i++) {
        json_object *value = json_object_array_get_idx(starts, i);

        if (!json_object_is_type(value, json_type_int) || json_object_get_int64(value) < 0)
            return odd("a bad time of a start", reterr_why);
        s->starts_us[s->n_starts++] = (uint64_t)json_object_get_int64(value);
    }
    r = parse_key(o, &s->mark_key, reterr_why);
    if (r < 0)
        return r;
    s->models = calloc(json_object_array_length(models) + 1, sizeof(*s->models));
    if (!s->models)
        return -ENOMEM;
    for (size_t i = 0; i < json_object_array_length(models); i++) {
        r = parse_model(json_object_array_get_idx(models, i), &s->models[s->n_models++], reterr_why);

        if (r < 0)
            return r;
    }
    return 0;
}

int snapshot_parse(const void *data, size_t n, struct snapshot **ret, const char **reterr_why)
{
    static const struct json_limits limits = {.bytes_max = SNAPSHOT_BYTES_MAX, .depth_max = 8, .values_max = 1u << 20};
    _cleanup_(snapshot_freep) struct snapshot *s = NULL;
    _cleanup_json_ json_object *o = NULL;
    char digits[SHA256_TEXT_MAX];
    struct sha256 digest;
    struct head head;
    const char *text;
    int r;

    if (n < sizeof(head) || n > SNAPSHOT_BYTES_MAX)
        return odd("its length is wrong", reterr_why);
    memcpy(&head, data, sizeof(head));
    text = (const char *)data + sizeof(head);
    if (head.magic != MAGIC)
        return odd("it is no snapshot", reterr_why);
    if (head.version != SNAPSHOT_VERSION)
        return odd("it is of another version", reterr_why);
    if (head.n_bytes != n - sizeof(head) || memcmp(head.reserved, (char[7]){0}, sizeof(head.reserved)) != 0)
        return odd("its head is wrong", reterr_why);
    sha256_init(&digest);
    sha256_add(&digest, text, head.n_bytes);
    if (memcmp(sha256_text(&digest, digits), head.sha256, SHA256_TEXT_MAX) != 0)
        return odd("its checksum is wrong", reterr_why);
    r = json_parse(text, head.n_bytes, &limits, &o, NULL, NULL);
    if (r < 0)
        return r == -ENOMEM ? r : odd("it can't be read", reterr_why);
    s = calloc(1, sizeof(*s));
    if (!s)
        return -ENOMEM;
    r = parse_json(o, s, reterr_why);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(s);
    return 0;
}

int snapshot_read(int fd, struct snapshot **ret, const char **reterr_why)
{
    _cleanup_free_ char *data = NULL;
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat st;

    if (seals < 0 || (seals & SEALS) != SEALS)
        return odd("it is not sealed", reterr_why);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size > SNAPSHOT_BYTES_MAX)
        return odd("its length is wrong", reterr_why);
    data = malloc((size_t)st.st_size);
    if (!data)
        return -ENOMEM;
    for (off_t at = 0; at < st.st_size;) {
        ssize_t n = pread(fd, data + at, (size_t)(st.st_size - at), at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return odd("it can't be read", reterr_why);
        at += n;
    }
    return snapshot_parse(data, (size_t)st.st_size, ret, reterr_why);
}
