/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * libresident: talk to residentd, the service that keeps language models resident and shares them.
 *
 * A `struct resident` is a connection; calls are made on it by the names of the service's varlink interfaces, with
 * parameters and replies as JSON text, so that a new method or member needs no new library. Two ways to use it:
 *
 *   - blocking: resident_call() for one reply, resident_stream() for an answer that comes in pieces;
 *   - from an event loop: resident_start() and callbacks, driven by resident_get_fd() and resident_process().
 *
 *      struct resident *r = NULL;
 *      struct resident_error *error = NULL;
 *
 *      if (resident_connect(NULL, &r) < 0)
 *          …
 *      k = resident_stream(r, "io.residentd.Inference.Complete",
 *                          "{\"model\": \"chat\", \"prompt\": \"Once upon a time\"}", print_piece, stdout, &error);
 *      if (k == RESIDENT_REFUSED)
 *          fprintf(stderr, "%s: %s\n", resident_error_name(error), resident_error_description(error));
 *      resident_error_free(error);
 *      resident_close(r);
 *
 * Results. Functions return 0 (or a documented positive value), or a negative errno: -EINVAL (a parameter of the call
 * to the library), -ENOMEM, -ECONNREFUSED, -ENOENT, -EACCES (connecting), -ECONNRESET (the service went away), -EBADMSG
 * (the peer does not speak varlink), -ETIMEDOUT. What the service itself refuses or fails to do is no errno but
 * RESIDENT_REFUSED with a typed error.
 *
 * Threads. There is no global state. A connection and everything that it handed out belongs to one thread at a time;
 * different connections may be used by different threads at once. No function may be called for a connection from
 * inside a callback of the same connection, except those that say so.
 *
 * Signals. SIGPIPE is never raised. A blocking function that is interrupted by a signal handler goes on, unless
 * resident_interrupt() was called.
 */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The varlink interfaces of the service, to put in front of a method's name. */
#define RESIDENT_INFERENCE "io.residentd.Inference."
#define RESIDENT_MODELS    "io.residentd.Models."
#define RESIDENT_USAGE     "io.residentd.Usage."
#define RESIDENT_SERVICE   "org.varlink.service."

/** Where the service listens unless $RESIDENTD_SOCKET says otherwise. */
#define RESIDENT_SOCKET "/run/residentd/io.residentd"

/** The service answered with an error; a positive result of the calling functions. */
#define RESIDENT_REFUSED 1

/** The call was ended from this side: by resident_interrupt() or by a callback's wish. */
#define RESIDENT_STOPPED 2

struct resident;
struct resident_call;
struct resident_reply;
struct resident_error;

/* ---- connections ---- */

/**
 * resident_connect() - connect to the service
 * @path: of its socket; NULL: $RESIDENTD_SOCKET, and RESIDENT_SOCKET where that is not set
 * @ret:  the connection, ended by resident_close()
 * Returns 0, -ENOENT (no socket: is the service installed?), -ECONNREFUSED (a socket that nobody answers), -EACCES,
 * -ENAMETOOLONG, -ENOMEM. Does not wait for the service to answer.
 */
int resident_connect(const char *path, struct resident **ret);

/**
 * resident_close() - end the connection; whatever runs on it is cancelled by the service
 * Calls that have not ended are dropped without their callback. Takes NULL, returns NULL.
 */
struct resident *resident_close(struct resident *r);

/**
 * resident_get_fd() - a descriptor to poll in an event loop
 * It stays the same for the life of the connection, also when the library connects again: after a cancel, and with the
 * next call when the service closed the connection while no call was running (it was restarted). Poll it for reading
 * (POLLIN, EPOLLIN); never read from it, close it or change it.
 */
int resident_get_fd(const struct resident *r);

/**
 * resident_get_events() - what to poll resident_get_fd() for, as a mask of poll()
 * Always POLLIN; a function so that a loop need not know.
 */
int resident_get_events(const struct resident *r);

/**
 * resident_process() - send what can be sent, read what has come, call callbacks. Never waits
 * Returns 1 when something was done and there may be more, 0 when there is nothing to do now, or a negative errno when
 * the connection is lost: every call on it has then been ended with an error, and it can only be closed. One that ends
 * while no call is running is not lost, but opened again by the next call.
 */
int resident_process(struct resident *r);

/**
 * resident_wait() - wait until resident_process() has something to do
 * @timeout_ms: -1: without end
 * Returns 1, 0 when the time is over or a signal handler ran, or a negative errno.
 */
int resident_wait(struct resident *r, int timeout_ms);

/**
 * resident_interrupt() - make a blocking call on @r return RESIDENT_STOPPED as soon as it can: the one that runs in
 * another thread, or that a signal handler interrupted; if none runs, the next one
 * The only function that may be called from any thread and from signal handlers. @r must not be closed meanwhile.
 */
void resident_interrupt(struct resident *r);

/**
 * resident_attach_fd() - send a copy of @fd along with the call that is started next on @r
 * Returns its index, for the parameter that names it (Models.Plan's fd); -EMFILE (4 are attached already) or another
 * negative errno. @fd stays the caller's.
 */
int resident_attach_fd(struct resident *r, int fd);

/* ---- blocking calls ---- */

/**
 * resident_call() - call a method and wait for its one reply
 * @method:     fully qualified, such as RESIDENT_INFERENCE "ListModels"
 * @parameters: a JSON object as text; NULL: no parameters
 * @ret:        the reply, freed by resident_reply_free(); may be NULL when it does not matter
 * @reterr:     set on RESIDENT_REFUSED and when the connection is lost, freed by resident_error_free(); may be NULL
 * Calls that were started on @r before go on meanwhile, callbacks included, and have their turn first: the service runs
 * one call of a connection at a time.
 * Returns 0, RESIDENT_REFUSED, RESIDENT_STOPPED, or a negative errno.
 */
int resident_call(struct resident *r, const char *method, const char *parameters, struct resident_reply **ret,
                  struct resident_error **reterr);

/**
 * resident_piece_t - one piece of a streamed answer
 * @reply: borrowed for the call; the last piece has resident_reply_is_last()
 * Returns 0 to go on, anything else to cancel the call.
 */
typedef int (*resident_piece_t)(const struct resident_reply *reply, void *userdata);

/**
 * resident_stream() - call a method with varlink's `more` and wait until its last piece has come
 * @piece:    called for each piece from inside this function
 * @reterr:   as for resident_call()
 * Returns 0, RESIDENT_REFUSED, RESIDENT_STOPPED (interrupted or by @piece; the service was told to stop), or a negative
 * errno.
 */
int resident_stream(struct resident *r, const char *method, const char *parameters, resident_piece_t piece,
                    void *userdata, struct resident_error **reterr);

/**
 * resident_share() - the files of a model (loaded if need be), to map the very pages that the service computes with
 * @ret_fds: [*ret_n] read-only descriptors, a split model's parts in order: to be closed, and the array to be freed
 * Only for those whom the policy lets ("share"). A copy's memory (residency.ram) is given back with the last of them.
 * Returns as resident_call(); -EBADMSG also when other descriptors came than the service said.
 */
int resident_share(struct resident *r, const char *model, int **ret_fds, size_t *ret_n, struct resident_error **reterr);

/* ---- calls from an event loop ---- */

enum resident_flags {
    RESIDENT_MORE = 1 << 0,   /* answers may come in pieces */
    RESIDENT_ONEWAY = 1 << 1, /* no answer is wanted; the callback is never called, and may be NULL */
};

/**
 * resident_callback_t - an answer, a piece of one, or why there is none
 * @call:  gone once this returns, unless @reply is a piece that is not the last
 * @reply: borrowed for the call; NULL when there is an error
 * @error: borrowed for the call; NULL when there is a reply. A lost connection is an error without a varlink name
 *         (resident_error_name() is "") and with resident_error_errno().
 * From inside, resident_start(), resident_cancel() (also of @call itself), resident_get_fd() and the accessors of reply
 * and error may be called.
 */
typedef void (*resident_callback_t)(struct resident_call *call, const struct resident_reply *reply,
                                    const struct resident_error *error, void *userdata);

/**
 * resident_start() - start a call; its callback comes from resident_process()
 * @flags: of enum resident_flags
 * @ret:   may be NULL; valid until the last callback or resident_cancel()
 * Calls of one connection are answered in order; open several connections to have several at once.
 * Returns 0, -EINVAL (no JSON object), -EMSGSIZE (above 16 MiB), -ENOMEM, -ECONNRESET (the connection is lost).
 */
int resident_start(struct resident *r, const char *method, const char *parameters, unsigned flags,
                   resident_callback_t callback, void *userdata, struct resident_call **ret);

/**
 * resident_cancel() - end a call; its callback is not called any more
 * If the service works on it already, the library closes the socket, which stops the work within a token, and connects
 * again for the calls behind it. Takes NULL, returns NULL.
 */
struct resident_call *resident_cancel(struct resident_call *call);

/* ---- replies ---- */

/**
 * resident_reply_json() - the parameters of the reply, a JSON object as text; lives as long as the reply
 */
const char *resident_reply_json(const struct resident_reply *reply);

/**
 * resident_reply_is_last() - 1 unless more pieces follow
 */
int resident_reply_is_last(const struct resident_reply *reply);

/**
 * resident_reply_text() - a text inside of the reply
 * @path:   names of members and indexes of lists with '/' between: "text", "usage/output_tokens", "models/0/name"
 * @ret_n:  may be NULL; the length in bytes (a text may contain NUL characters)
 * Returns NULL when there is no such member or it is no text; lives as long as the reply.
 */
const char *resident_reply_text(const struct resident_reply *reply, const char *path, size_t *ret_n);

/**
 * resident_reply_int() - an integer inside of the reply
 * Returns 0, or -ENOENT when there is no such member or it is no integer; *ret is then untouched.
 */
int resident_reply_int(const struct resident_reply *reply, const char *path, int64_t *ret);

/**
 * resident_reply_double() - a number inside of the reply; as resident_reply_int()
 */
int resident_reply_double(const struct resident_reply *reply, const char *path, double *ret);

/**
 * resident_reply_bool() - a truth value inside of the reply, 0 or 1; as resident_reply_int()
 */
int resident_reply_bool(const struct resident_reply *reply, const char *path, int *ret);

/**
 * resident_reply_length() - how many items the list at @path has; -ENOENT when there is no such list
 */
int resident_reply_length(const struct resident_reply *reply, const char *path);

/**
 * resident_reply_fd() - descriptor @i of those that came with the reply (Inference.Share)
 * Returns a copy that the caller closes; -ENOENT when none of that number came, or another negative errno.
 */
int resident_reply_fd(const struct resident_reply *reply, unsigned i);

/**
 * resident_reply_free() - release what resident_call() returned; takes NULL, returns NULL
 */
struct resident_reply *resident_reply_free(struct resident_reply *reply);

/* ---- errors ---- */

/**
 * resident_error_name() - the varlink error, such as "io.residentd.NoSuchModel"; "" for a lost connection
 */
const char *resident_error_name(const struct resident_error *error);

/**
 * resident_error_errno() - a negative errno when the connection is at fault, 0 when the service answered
 */
int resident_error_errno(const struct resident_error *error);

/**
 * resident_error_parameters() - the error's parameters, a JSON object as text; "{}" when it has none
 */
const char *resident_error_parameters(const struct resident_error *error);

/**
 * resident_error_text() - a parameter that is a text, such as "model"; NULL when there is none
 */
const char *resident_error_text(const struct resident_error *error, const char *name);

/**
 * resident_error_int() - a parameter that is an integer, such as "retry_after_ms"
 * Returns 0, or -ENOENT when there is none; *ret is then untouched.
 */
int resident_error_int(const struct resident_error *error, const char *name, int64_t *ret);

/**
 * resident_error_description() - one English sentence without a full stop, for people
 */
const char *resident_error_description(const struct resident_error *error);

/**
 * resident_error_free() - release; takes NULL, returns NULL
 */
struct resident_error *resident_error_free(struct resident_error *error);

/* ---- the library ---- */

/**
 * resident_version() - the version of the library that is loaded, such as "0.1.0"; a static string
 */
const char *resident_version(void);

#ifdef __cplusplus
}
#endif
