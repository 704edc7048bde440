/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The texts of the project's interfaces, compiled in: the .varlink files of this folder, byte for byte. The service
 * hands them out, and both ends check what arrives against them.
 */

#include <stddef.h>

struct interface_text {
    const char *name; /* "io.residentd.Inference" */
    const char *text; /* terminated; n bytes without the NUL */
    size_t n;
};

/* Sorted by name; the last row has no name. */
extern const struct interface_text interface_texts[];

/**
 * interface_text_find() - the text of an interface by its name, NULL if there is none
 */
const struct interface_text *interface_text_find(const char *name);
