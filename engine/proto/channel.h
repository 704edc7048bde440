/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One end of the connection between residentd and a worker: checked packets in, checked packets out, nothing
 * ever blocks. What the socket does not take at once waits in a queue with a limit. Not locked: the worker,
 * which sends from two threads, puts its own mutex around it.
 *
 * After -EBADMSG, -ENOBUFS or any other error the channel is of no more use: close it, and end the worker.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "engine/proto/proto.h"

/* Bytes of packets that wait for the peer to read. Twice the largest packet, so that one always fits while
 * the rest of the traffic goes on; a peer that is further behind is stuck. */
#define CHANNEL_QUEUE_BYTES_MAX (UINT64_C(48) << 20)
#define CHANNEL_QUEUE_FDS_MAX   (2 * PROTO_FDS_MAX)

struct channel;

enum { CHANNEL_NOTHING = 1, CHANNEL_EOF = 2 };

/* A packet with all that came along. Its body lives in the channel until the next channel_receive(), or in
 * @owned. */
struct channel_packet {
    struct packet p;
    int fds[PROTO_FDS_MAX]; /* MODEL's; [n_fds], owned: TAKE_FD what is kept */
    size_t n_fds;
    bool has_credentials; /* when the receiver has set SO_PASSCRED, or the sender is a worker that says HELLO
                           */
    struct ucred credentials;
    int pidfd; /* when the receiver has set SO_PASSPIDFD; -EBADF: none; owned */
    void *owned;
};

/**
 * channel_new() - speak the protocol over a SOCK_SEQPACKET socket
 * @side:    which side this process is
 * @fd_take: consumed, on failure too; made non-blocking
 * Returns 0, -EINVAL (no such socket), -ENOMEM.
 */
int channel_new(enum proto_side side, int fd_take, struct channel **ret);

/**
 * channel_free() - close the socket and drop what waits; takes NULL, returns NULL
 */
struct channel *channel_free(struct channel *c);

/**
 * channel_fd() - the socket, borrowed, for poll and for setsockopt
 */
int channel_fd(const struct channel *c);

/**
 * channel_events() - what to poll the socket for: POLLIN, and POLLOUT while packets wait
 */
short channel_events(const struct channel *c);

/**
 * channel_context() - state, epoch and the peer's version, as of the last packet sent or received
 */
const struct proto_context *channel_context(const struct channel *c);

/**
 * channel_queued_bytes() - what waits for the peer to read, with the memfds
 */
uint64_t channel_queued_bytes(const struct channel *c);

/**
 * channel_error() - what was wrong with the packet that gave -EBADMSG; a static string, "" if there was none
 */
const char *channel_error(const struct channel *c);

/**
 * channel_receive() - take one packet off the socket
 * @ret: filled on 0, to be given to channel_packet_done(). Stale packets (older epoch) are dropped on the
 * way. Returns 0, CHANNEL_NOTHING (poll again), CHANNEL_EOF (the peer is gone), -EBADMSG (a violation),
 * -ENOMEM or another negative errno of recvmsg().
 */
int channel_receive(struct channel *c, struct channel_packet *ret);

/**
 * channel_packet_done() - release the body and all fds that were not taken; works on a zeroed one, too
 */
void channel_packet_done(struct channel_packet *p);

/* The end of a packet, in pieces that are put together on the way. */
struct channel_blob {
    const void *data;
    size_t n_bytes;
};

/**
 * channel_send() - send or queue one packet
 * @type:  not HELLO or RESET of the daemon: channel_greet()
 * @fixed: the struct that belongs to @type, [n_fixed] bytes
 * @blobs: [n_blobs] what follows it; n_blobs <= CHANNEL_BLOBS_MAX
 * @fds:   [n_fds], for MODEL; borrowed (duplicated if they have to wait)
 * Returns 0; -EINVAL (not legal now, or not what its type demands; nothing was sent, and the channel goes
 * on); -ENOBUFS (the queue is full); -EPIPE or -ECONNRESET (the peer is gone); -ENOMEM.
 */
int channel_send(struct channel *c, enum packet_type type, const void *fixed, size_t n_fixed,
                 const struct channel_blob *blobs, size_t n_blobs, const int *fds, size_t n_fds);

#define CHANNEL_BLOBS_MAX 4

/**
 * channel_greet() - the daemon's first packet on a channel: HELLO to a new worker, RESET to one taken over
 * @epoch: > 0; for RESET higher than any that the worker has heard
 * @build: the build id, printable ASCII, at most PROTO_BUILD_MAX bytes
 * Returns as channel_send().
 */
int channel_greet(struct channel *c, enum packet_type type, uint64_t epoch, const char *build);

/**
 * channel_answer() - the worker's answer to HELLO and RESET, with its credentials (SCM_CREDENTIALS)
 * Returns as channel_send().
 */
int channel_answer(struct channel *c, const char *build);

/**
 * channel_flush() - send what waits, after POLLOUT
 * Returns 0 (nothing waits any more), CHANNEL_NOTHING (some still does), or a negative errno (the peer is
 * gone).
 */
int channel_flush(struct channel *c);

DEFINE_CLEANUP(struct channel *, channel_free)
