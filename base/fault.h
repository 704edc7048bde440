/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What went wrong, for a person or a program at the other end of the socket: a kind and typed parameters, filled in by
 * the layer that knows, carried by value through every layer above it, and turned into a varlink error by one table.
 * Kinds and parameters are those of the io.residentd interface (client/varlink/io.residentd.varlink).
 *
 * A fault owns nothing: it is copied by assignment. Texts that are too long are cut at a UTF-8 boundary.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;

enum fault_kind {
    FAULT_NONE,
    FAULT_NO_SUCH_MODEL,       /* subject: model */
    FAULT_NOT_ALLOWED,         /* subject: model or ""; reason: policy, share, admins_only, unknown_uid */
    FAULT_QUOTA_EXCEEDED,      /* subject: quota; limit, used, retry_after_ms */
    FAULT_QUEUE_FULL,          /* limit, retry_after_ms */
    FAULT_CONTEXT_TOO_LONG,    /* limit, used (= given) */
    FAULT_INSUFFICIENT_MEMORY, /* subject: kind of memory; used (= needed), limit (= available), suggestions */
    FAULT_MODEL_INVALID,       /* subject: model; reason, offset */
    FAULT_MODEL_UNAVAILABLE,   /* subject: model; reason, retry_after_ms */
    FAULT_POLICY_INVALID,      /* file, line, column, subject: key, reason: expected */
    FAULT_NO_SUCH_REQUEST,     /* request */
    FAULT_CANCELLED,           /* reason */
    FAULT_SHUTTING_DOWN,       /* retry_after_ms */
    FAULT_INVALID_PARAMETER,   /* subject: parameter; reason: what was expected. org.varlink.service's own error */
    FAULT_METHOD_NOT_FOUND,    /* subject: method */
    FAULT_METHOD_NOT_IMPLEMENTED, /* subject: method */
    FAULT_INTERFACE_NOT_FOUND, /* subject: interface */
    FAULT_EXPECTED_MORE,       /* the method only works with "more" */
    FAULT_KIND_MAX,
};

#define FAULT_NO_OFFSET (-1)
#define FAULT_NO_RETRY (-1)

struct fault {
    enum fault_kind kind;
    char subject[192];
    char reason[448];
    char file[256];
    uint32_t line, column; /* from 1; 0: unknown */
    int64_t offset;        /* bytes into the model file, FAULT_NO_OFFSET */
    int64_t limit, used;
    int64_t retry_after_ms; /* FAULT_NO_RETRY */
    uint64_t request;
    char suggestions[1024]; /* JSON array as text, "" = none */
};

/**
 * fault_init() - a fault of @kind about @subject ("" or NULL: nothing in particular) with nothing else known
 * @f may be NULL (the caller does not want to know): then nothing happens. The same holds for every fault_* setter.
 */
void fault_init(struct fault *f, enum fault_kind kind, const char *subject);

/**
 * fault_set() - fault_init() and a reason formatted as by printf
 */
void fault_set(struct fault *f, enum fault_kind kind, const char *subject, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/**
 * fault_model_invalid() - the model file is wrong at @offset (FAULT_NO_OFFSET: nowhere in particular)
 * The subject, the model's name, is filled in by whoever knows it (fault_subject()).
 */
void fault_model_invalid(struct fault *f, int64_t offset, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/**
 * fault_subject() - name what the fault is about, keeping everything else
 */
void fault_subject(struct fault *f, const char *subject);

/**
 * fault_error_name() - the fully qualified varlink error of a kind, e.g. "io.residentd.NoSuchModel"; a static string
 * FAULT_NONE has none: NULL.
 */
const char *fault_error_name(enum fault_kind kind);

/**
 * fault_to_json() - the parameters of the varlink error, as the interface declares them
 * *ret is a new object that the caller owns. Returns 0 or -ENOMEM.
 */
int fault_to_json(const struct fault *f, struct json_object **ret);

/**
 * fault_from_json() - the reverse, for a peer's error: @error_name as on the wire, @parameters may be NULL
 * Unknown fields are ignored and absent ones stay unset. Returns 0, or -ENOENT for a name that is not in the table.
 */
int fault_from_json(const char *error_name, struct json_object *parameters, struct fault *ret);

/**
 * fault_describe() - one English sentence without a full stop, for terminals and logs, cut to @size
 * Returns @buffer.
 */
const char *fault_describe(const struct fault *f, char *buffer, size_t size);
