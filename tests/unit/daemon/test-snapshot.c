/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What one daemon leaves for the next: it comes back as it was, and anything odd makes the whole of it void. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/sha256.h"
#include "daemon/snapshot.h"

/* docs: magic, version, length, digest, zeros; then JSON. */
enum { HEAD_BYTES = 88, AT_VERSION = 8, AT_LENGTH = 12, AT_DIGEST = 16, AT_RESERVED = 81 };

static size_t make(const char *json, uint8_t **ret)
{
    size_t n = strlen(json);
    uint8_t *data = calloc(1, HEAD_BYTES + n);
    const uint32_t version = SNAPSHOT_VERSION, length = (uint32_t)n;
    char digits[SHA256_TEXT_MAX];
    struct sha256 digest;

    assert_non_null(data);
    memcpy(data, "ridrsnp1", 8);
    memcpy(data + AT_VERSION, &version, 4);
    memcpy(data + AT_LENGTH, &length, 4);
    sha256_init(&digest);
    sha256_add(&digest, json, n);
    memcpy(data + AT_DIGEST, sha256_text(&digest, digits), SHA256_TEXT_MAX);
    memcpy(data + HEAD_BYTES, json, n);
    *ret = data;
    return HEAD_BYTES + n;
}

static int parse(const char *json, const char **why)
{
    _cleanup_(snapshot_freep) struct snapshot *s = NULL;
    _cleanup_free_ uint8_t *data = NULL;
    size_t n = make(json, &data);

    return snapshot_parse(data, n, &s, why);
}

static void refused(const char *json, const char *expected)
{
    const char *why = "";

    assert_int_equal(parse(json, &why), -EBADMSG);
    assert_string_equal(why, expected);
}

#define FILE_JSON "{\"device\":1,\"inode\":2,\"bytes\":3,\"mtime_ns\":-4,\"ctime_ns\":5}"
#define MODEL_JSON(files)                                                                                          \
    "{\"name\":\"m\",\"pin\":1,\"loading\":\"{}\",\"link\":7,\"copies\":0,\"pid\":8,\"uid\":61184,\"granted\":9,"    \
    "\"kv\":10,\"scratch\":11,\"files\":" files "}"
#define WITH_KEY(key, starts, models)                                                                              \
    "{\"epoch\":5,\"next_id\":9,\"mark_key\":" key ",\"starts\":" starts ",\"models\":" models "}"
#define WITH(starts, models) WITH_KEY("[1,2,3,4294967295]", starts, models)

static void what_is_written_is_read(void **state)
{
    struct residency_identity files[2] = {{1, 2, 3, 4, 5}, {UINT32_MAX, INT64_MAX, 1, -1, INT64_MIN}};
    struct snapshot_model models[2] = {
        {.name = (char *)"none"},
        {.name = (char *)"m", .loading = (char *)"{\"path\":\"/ä\"}", .pin = 2, .link_id = 3, .copies_id = 4,
         .pid = 4711, .uid = 61184, .granted_bytes = 1, .kv_bytes = 2, .scratch_bytes = 3, .files = files,
         .n_files = 2},
    };
    const struct snapshot s = {
        .epoch = 77, .next_id = 5, .mark_key = {{1, 0, UINT32_MAX, 7}}, .starts_us = {1, 2}, .n_starts = 2, .gpus = {"0000:01:00.0", "", "0000:41:00.0"}, .models = models, .n_models = 2};
    _cleanup_(snapshot_freep) struct snapshot *back = NULL;
    _cleanup_close_ int fd = -EBADF;
    const char *why = "";

    assert_int_equal(snapshot_write(&s, &fd), 0);
    assert_true(pwrite(fd, "x", 1, 0) < 0); /* nobody can change it */
    assert_int_equal(snapshot_read(fd, &back, &why), 0);
    assert_int_equal(back->epoch, 77);
    assert_int_equal(back->next_id, 5);
    assert_memory_equal(&back->mark_key, &s.mark_key, sizeof(s.mark_key));
    assert_int_equal(back->n_starts, 2);
    assert_int_equal(back->starts_us[1], 2);
    assert_memory_equal(back->gpus, s.gpus, sizeof(s.gpus));
    assert_int_equal(back->n_models, 2);
    assert_string_equal(back->models[0].name, "none");
    assert_null(back->models[0].loading);
    assert_string_equal(back->models[1].loading, "{\"path\":\"/ä\"}");
    assert_int_equal(back->models[1].pin, 2);
    assert_int_equal(back->models[1].link_id, 3);
    assert_int_equal(back->models[1].copies_id, 4);
    assert_int_equal(back->models[1].pid, 4711);
    assert_int_equal(back->models[1].uid, 61184);
    assert_int_equal(back->models[1].granted_bytes, 1);
    assert_int_equal(back->models[1].n_files, 2);
    assert_memory_equal(back->models[1].files, files, sizeof(files));
}

static void what_could_still_change_is_refused(void **state)
{
    _cleanup_(snapshot_freep) struct snapshot *s = NULL;
    _cleanup_close_ int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    _cleanup_free_ uint8_t *data = NULL;
    size_t n = make(WITH("[]", "[]"), &data);
    const char *why = "";

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, n), n);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
    assert_int_equal(snapshot_read(fd, &s, &why), -EBADMSG);
    assert_string_equal(why, "it is not sealed");
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL), 0);
    assert_int_equal(snapshot_read(fd, &s, &why), 0);
}

static void what_is_no_memfd_is_refused(void **state)
{
    _cleanup_(snapshot_freep) struct snapshot *s = NULL;
    const char *why = "";
    int pipes[2];

    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(snapshot_read(pipes[0], &s, &why), -EBADMSG);
    close(pipes[0]);
    close(pipes[1]);
}

static void each_bit_of_it_counts(void **state)
{
    _cleanup_free_ uint8_t *data = NULL;
    size_t n = make(WITH("[1]", "[" MODEL_JSON("[" FILE_JSON "]") "]"), &data);
    _cleanup_(snapshot_freep) struct snapshot *s = NULL;
    const char *why;

    for (size_t i = 0; i < n * 8; i++) {
        data[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(snapshot_parse(data, n, &s, &why), -EBADMSG);
        data[i / 8] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t cut = 0; cut < n; cut++)
        assert_int_equal(snapshot_parse(data, cut, &s, &why), -EBADMSG);
    assert_int_equal(snapshot_parse(data, n, &s, &why), 0);
}

static void another_version_is_not_guessed_at(void **state)
{
    _cleanup_free_ uint8_t *data = NULL;
    size_t n = make(WITH("[]", "[]"), &data);
    _cleanup_(snapshot_freep) struct snapshot *s = NULL;
    const char *why = "";

    data[AT_VERSION]++;
    assert_int_equal(snapshot_parse(data, n, &s, &why), -EBADMSG);
    assert_string_equal(why, "it is of another version");
    data[AT_VERSION]--;
    data[AT_RESERVED] = 1;
    assert_int_equal(snapshot_parse(data, n, &s, &why), -EBADMSG);
    assert_string_equal(why, "its head is wrong");
}

static void values_out_of_range_are_refused(void **state)
{
    static const char no_model[] = "a loaded model that is not described", no_name[] = "a model without a name, or a bad pin";
    const char *why = "";

    assert_int_equal(parse(WITH("[1,2,3,4,5,6,7,8]", "[" MODEL_JSON("[" FILE_JSON "]") "]"), &why), 0);
    refused(WITH("[1,2,3,4,5,6,7,8,9]", "[]"), "no starts or no models, or too many");
    refused(WITH("[-1]", "[]"), "a bad time of a start");
    assert_int_equal(parse(WITH("[]", "[],\"gpus\":[\"\",\"0000:01:00.0\"]"), &why), 0);
    refused(WITH("[]", "[],\"gpus\":{}"), "too many GPUs, or no list of them");
    refused(WITH("[]", "[],\"gpus\":[\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\",\"\"]"),
            "too many GPUs, or no list of them");
    refused(WITH("[]", "[],\"gpus\":[1]"), "a GPU whose place is no short text");
    refused(WITH("[]", "[],\"gpus\":[\"0000:01:00.0 and more\"]"), "a GPU whose place is no short text");
    refused(WITH("[1.5]", "[]"), "a bad time of a start");
    refused(WITH_KEY("[1,2,3]", "[]", "[]"), "no key of marks");
    refused(WITH_KEY("[1,2,3,4,5]", "[]", "[]"), "no key of marks");
    refused(WITH_KEY("[1,2,3,4294967296]", "[]", "[]"), "a bad key of marks");
    refused(WITH_KEY("[1,2,3,-1]", "[]", "[]"), "a bad key of marks");
    refused(WITH_KEY("[1,2,3,\"4\"]", "[]", "[]"), "a bad key of marks");
    refused(WITH("[]", "{}"), "no starts or no models, or too many");
    refused(WITH("[]", "[1]"), "a model that is no object");
    refused("[]", "no epoch or no next number");
    refused("{\"epoch\":0,\"next_id\":9,\"starts\":[],\"models\":[]}", "no epoch or no next number");
    refused("{\"epoch\":9223372036854775807,\"next_id\":9,\"starts\":[],\"models\":[]}", "no epoch or no next number");
    refused("{\"epoch\":5,\"next_id\":9223372036854775807,\"starts\":[],\"models\":[]}", "no epoch or no next number");
    refused("{", "it can't be read");
    refused(WITH("[]", "[{\"name\":\"\",\"pin\":0}]"), no_name);
    refused(WITH("[]", "[{\"name\":\"a\\u0000b\",\"pin\":0}]"), no_name);
    refused(WITH("[]", "[{\"name\":\"12345678901234567890123456789012345678901234567890123456789012345\",\"pin\":0}]"), no_name);
    refused(WITH("[]", "[{\"name\":\"m\",\"pin\":3}]"), no_name);
    refused(WITH("[]", "[{\"name\":\"m\",\"pin\":0,\"loading\":7}]"), "a bad text of what was loaded");
    refused(WITH("[]", "[{\"name\":\"m\",\"pin\":0,\"loading\":\"x\"}]"), no_model);
    refused(WITH("[]", "[{\"name\":\"m\",\"pin\":1,\"loading\":\"{}\",\"link\":0,\"copies\":0,\"pid\":8,\"uid\":1,"
                       "\"granted\":9,\"kv\":10,\"scratch\":11,\"files\":[" FILE_JSON "]}]"), no_model);
    refused(WITH("[]", "[{\"name\":\"m\",\"pin\":1,\"loading\":\"{}\",\"link\":7,\"copies\":0,\"pid\":0,\"uid\":1,"
                       "\"granted\":9,\"kv\":10,\"scratch\":11,\"files\":[" FILE_JSON "]}]"), no_model);
    refused(WITH("[]", "[{\"name\":\"m\",\"pin\":1,\"loading\":\"{}\",\"link\":7,\"copies\":0,\"pid\":8,"
                       "\"uid\":4294967295,\"granted\":9,\"kv\":10,\"scratch\":11,\"files\":[" FILE_JSON "]}]"), no_model);
    refused(WITH("[]", "[" MODEL_JSON("[]") "]"), "a model's files are missing, or too many");
    refused(WITH("[]", "[" MODEL_JSON("[{}]") "]"), "a file that is not identified");
    refused(WITH("[]", "[" MODEL_JSON("[{\"device\":1,\"inode\":2,\"bytes\":0,\"mtime_ns\":4,\"ctime_ns\":5}]") "]"),
            "a file that is not identified");
}

/* 128 files are what one MODEL packet carries. */
static void more_files_than_a_worker_can_get_are_refused(void **state)
{
    for (size_t n = 128; n <= 129; n++) {
        char json[16384] = "{\"epoch\":5,\"next_id\":9,\"mark_key\":[1,2,3,4],\"starts\":[],\"models\":[{\"name\":\"m\","
                           "\"pin\":1,\"loading\":\"{}\",\"link\":7,\"copies\":0,\"pid\":8,\"uid\":1,\"granted\":9,\"kv\":10,\"scratch\":11,"
                           "\"files\":[";
        const char *why = "";

        for (size_t i = 0; i < n; i++)
            strcat(json, i > 0 ? "," FILE_JSON : FILE_JSON);
        strcat(json, "]}]}");
        assert_int_equal(parse(json, &why), n == 128 ? 0 : -EBADMSG);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(what_could_still_change_is_refused),
        cmocka_unit_test(what_is_no_memfd_is_refused),
        cmocka_unit_test(each_bit_of_it_counts),
        cmocka_unit_test(another_version_is_not_guessed_at),
        cmocka_unit_test(values_out_of_range_are_refused),
        cmocka_unit_test(more_files_than_a_worker_can_get_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
