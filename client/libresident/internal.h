/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the files of the library share. Not installed.
 */

#include <json-c/json.h>
#include <stdbool.h>

#include "client/libresident/resident.h"
#include "client/varlink/frame.h"

struct resident_reply {
    json_object *parameters; /* an object; owned */
    bool last;
    int *fds; /* [n_fds] that came along; owned */
    size_t n_fds;
};

struct resident_error {
    char *name;              /* NULL: the connection is at fault */
    json_object *parameters; /* an object or NULL; owned */
    int error;               /* negative errno, 0 */
    char description[640];
};

struct resident_call {
    struct resident_call *next;
    struct resident *connection;
    int fds[FRAME_FDS_MAX]; /* [n_fds] to go along with it; owned */
    size_t n_fds;
    char *frame; /* the call as JSON; NULL once it was handed to the socket's queue */
    size_t n_frame;
    unsigned flags;
    resident_callback_t callback;
    void *userdata;
};

/*
 * Only the first call of the list is on the wire. The service runs one call of a connection at a time anyhow, and so a
 * cancelled call can be cut off by closing the socket without hurting the calls behind it.
 */
struct resident {
    char *path;
    int epoll_fd;     /* what users poll: it stays while sockets come and go */
    int socket_fd;    /* -EBADF: lost */
    int interrupt_fd; /* an eventfd */
    unsigned events;  /* that the socket is polled for */
    int lost;         /* negative errno */
    bool interrupted;
    bool in_process;
    unsigned generation; /* of the socket: counts connects */
    int fds[FRAME_FDS_MAX]; /* [n_fds] of the call that is started next */
    size_t n_fds;
    struct frame_reader in;
    struct frame_writer out;
    struct resident_call *first, *last;
};

/**
 * connection_open() - open the socket, instead of the one that is open, and watch it; 0 or a negative errno
 */
int connection_open(struct resident *r);

/* Before a call is queued: opens it again if the service has closed it while nothing was called, as it does when it is
 * restarted. Returns 0 or a negative errno; the next call tries again. */
int connection_renew(struct resident *r);

/**
 * connection_send() - put the first call on the wire if it is not there yet, and write what can be written
 */
void connection_send(struct resident *r);

/**
 * connection_mark_lost() - beyond repair: resident_process(), which this wakes, ends every call with @error
 */
void connection_mark_lost(struct resident *r, int error);

/**
 * call_handle_frame() - one frame of the service; calls a callback. Returns 0, -EBADMSG, -ENOMEM
 */
int call_handle_frame(struct resident *r, const char *text, size_t n);

/**
 * call_lose_first() - the first call ends with a lost connection; calls its callback
 */
void call_lose_first(struct resident *r, int error);

/**
 * call_end_oneway() - the first call needs no answer and was written: gone
 */
void call_end_oneway(struct resident *r);

/**
 * reply_new_take() - @parameters are taken, on failure too; NULL stands for none. Returns 0 or -ENOMEM
 */
int reply_new_take(json_object *parameters, bool last, struct resident_reply **ret);

/**
 * reply_dup() - one that outlives the callback, with descriptors of its own. Returns 0 or a negative errno
 */
int reply_dup(const struct resident_reply *reply, struct resident_reply **ret);

/**
 * error_new_take() - @parameters are taken, on failure too; NULL stands for none. Returns 0 or -ENOMEM
 */
int error_new_take(const char *name, json_object *parameters, struct resident_error **ret);

/**
 * error_new_of_errno() - that of a connection which is lost for the reason @error. Returns 0 or -ENOMEM
 */
int error_new_of_errno(int error, struct resident_error **ret);

/**
 * error_of_errno() - a lost connection as an error; in place, because there may be no memory left
 */
void error_of_errno(int error, struct resident_error *ret);
