/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Varlink's two parsers. The first byte says which:
 *   'I'  the rest is an interface text; what parses is looked up by all of its names and used to check values.
 *   else the rest is a stream of frames that arrives in pieces of that many bytes; the frames must be what memchr()
 *        makes of the stream, and each that is a call is checked against the interface that it names.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "client/varlink/frame.h"
#include "client/varlink/idl.h"
#include "client/varlink/interfaces.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool truth)
{
    if (!truth)
        abort();
}

static void check_all(const struct idl *idl, json_object *value)
{
    for (size_t i = 0; i < idl_n_methods(idl); i++) {
        const struct idl_method *method = idl_method(idl, i);
        struct fault fault;

        must(idl_find_method(idl, method->name) == method);
        if (idl_check(method->in, value, 0, &fault) < 0)
            must(fault.kind == FAULT_INVALID_PARAMETER && strlen(fault.subject) < sizeof(fault.subject));
        (void)idl_check(method->out, value, IDL_ALLOW_UNKNOWN, NULL);
    }
}

static void fuzz_idl(const char *text, size_t n)
{
    _cleanup_json_ json_object *value = json_tokener_parse("{\"model\":\"m\",\"a\":[],\"b\":{\"a\":null},\"c\":1}");
    struct idl_mistake mistake = {0};
    struct idl *idl = NULL;
    int r = idl_parse(text, n, &idl, &mistake);

    must((r == 0) == (idl != NULL));
    if (r == 0)
        check_all(idl, value);
    else
        must(r != -EINVAL || (mistake.expected && mistake.line > 0 && mistake.column > 0));
    idl_free(idl);
}

/* A parse of ours, once. */
static const struct idl *interface_of(const char *name, size_t n)
{
    static struct idl *parsed[8];

    for (size_t i = 0; interface_texts[i].name; i++) {
        if (strlen(interface_texts[i].name) != n || memcmp(interface_texts[i].name, name, n) != 0)
            continue;
        if (!parsed[i])
            must(idl_parse(interface_texts[i].text, interface_texts[i].n, &parsed[i], NULL) == 0);
        return parsed[i];
    }
    return NULL;
}

static void fuzz_call(const char *text, size_t n)
{
    static const struct json_limits limits = {.bytes_max = 1 << 20, .depth_max = 64, .values_max = 1 << 16};
    _cleanup_json_ json_object *message = NULL;
    json_object *method = NULL, *parameters = NULL;
    const struct idl_method *idl;
    const struct idl *interface;
    const char *name, *dot;

    if (json_parse(text, n, &limits, &message, NULL, NULL) < 0 ||
        !json_object_object_get_ex(message, "method", &method) || !json_object_is_type(method, json_type_string))
        return;
    (void)json_object_object_get_ex(message, "parameters", &parameters);
    name = json_object_get_string(method);
    dot = strrchr(name, '.');
    interface = dot ? interface_of(name, (size_t)(dot - name)) : NULL;
    idl = interface ? idl_find_method(interface, dot + 1) : NULL;
    if (!idl || !json_object_is_type(parameters, json_type_object))
        return;
    /* What passes passes again without the nulls. */
    if (idl_check(idl->in, parameters, IDL_DROP_NULLS, NULL) == 0)
        must(idl_check(idl->in, parameters, 0, NULL) == 0);
}

static void fuzz_frames(const char *stream, size_t n, size_t n_piece)
{
    struct frame_reader reader = {0};
    const char *expected = stream;
    char *text;
    size_t n_text;

    for (size_t at = 0; at < n; at += n_piece) {
        must(frame_reader_push(&reader, stream + at, n - at < n_piece ? n - at : n_piece) == 0);
        while (frame_reader_next(&reader, &text, &n_text)) {
            must(strlen(text) == n_text && memcmp(text, expected, n_text + 1) == 0);
            expected += n_text + 1;
            fuzz_call(text, n_text);
        }
    }
    must(frame_reader_pending(&reader) == (size_t)(stream + n - expected));
    must(memchr(expected, 0, (size_t)(stream + n - expected)) == NULL);
    frame_reader_done(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] == 'I')
        fuzz_idl((const char *)data + 1, size - 1);
    else
        fuzz_frames((const char *)data + 1, size - 1, data[0] ? data[0] : 256);
    return 0;
}
