/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resident-engine dequant TYPE: raw blocks on stdin, their values as float32 (little-endian, as the machine
 * computes them) on stdout. Any number of blocks, in a stream; half a block at the end is an error, after the
 * whole ones.
 */

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "engine/gguf/types.h"
#include "engine/kernels/dequantise.h"
#include "engine/tool/tool.h"

/* Values of one go: a multiple of every type's block. */
#define VALUES 8192u

static int bad_type(const char *verb, const char *name)
{
    char known[512];
    size_t at = 0;

    known[0] = '\0';
    for (uint32_t type = 0; type < TENSOR_TYPE_MAX && at < sizeof(known); type++)
        if (dequantise_has_type(type))
            at += (size_t)snprintf(known + at, sizeof(known) - at, " %s", tensor_traits(type)->name);
    return tool_usage(verb, "\"%s\" is no type that can be turned into floats; there are:%s", name, known);
}

int verb_dequant(int argc, char **argv)
{
    static const struct option options[] = {{}};
    const struct tensor_traits *traits;
    _cleanup_free_ uint8_t *blocks = NULL;
    _cleanup_free_ float *values = NULL;
    enum tensor_type type;
    size_t room, n;

    if (getopt_long(argc, argv, "", options, NULL) != -1)
        return TOOL_USAGE;
    if (argc - optind != 1)
        return tool_usage(argv[0], "expected one type");
    if (tensor_type_from_name(argv[optind], &type) < 0 || !dequantise_has_type(type))
        return bad_type(argv[0], argv[optind]);
    traits = tensor_traits(type);
    room = (size_t)VALUES / traits->block_values * traits->block_bytes;
    blocks = malloc(room);
    values = calloc(VALUES, sizeof(*values));
    if (!blocks || !values)
        return tool_fail("stdin", NULL, -ENOMEM);

    do {
        uint32_t n_values;

        n = fread(blocks, 1, room, stdin);
        n_values = (uint32_t)(n / traits->block_bytes * traits->block_values);
        dequantise_row(type, blocks, n_values, values);
        if (fwrite(values, sizeof(*values), n_values, stdout) != n_values)
            return tool_fail("stdout", NULL, -errno);
    } while (n == room);
    if (ferror(stdin))
        return tool_fail("stdin", NULL, -EIO);
    if (fflush(stdout) != 0)
        return tool_fail("stdout", NULL, -errno);
    if (n % traits->block_bytes) {
        fprintf(stderr,
                "resident-engine: stdin: it ends %zu bytes into a block; a block of %s has %u bytes\n",
                n % traits->block_bytes, traits->name, traits->block_bytes);
        return TOOL_FAILED;
    }
    return TOOL_OK;
}
