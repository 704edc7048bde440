/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The socket side of the protocol. Invariants:
 *  1. No call blocks: the socket is non-blocking, and a memfd is memory.
 *  2. Each fd that the kernel hands over is in a channel_packet or closed before channel_receive() returns.
 *  3. What waits in the queue is in the order in which it was sent, and nothing overtakes it.
 *  4. The bytes in @queued_bytes are those of the queue's entries with their memfds, never above
 *     CHANNEL_QUEUE_BYTES_MAX.
 */
#include "engine/proto/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* Linux 6.5, newer than the headers of Debian 12. */
#ifndef SCM_PIDFD
#define SCM_PIDFD 0x04
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

/* Without these a peer could change or shorten a body after it was checked. */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

/* The memfd comes before MODEL's fds. */
#define FDS_RECEIVED_MAX (PROTO_FDS_MAX + 1)

struct waiting {
    struct waiting *next;
    uint64_t cost_bytes; /* with the memfd */
    bool credentials;
    size_t n_fds;
    int *fds; /* owned, behind @bytes */
    size_t n_bytes;
    unsigned char bytes[];
};

struct channel {
    int fd;
    struct proto_context context;
    const char *error;

    struct waiting *first, **end;
    uint64_t queued_bytes;
    size_t queued_fds;

    size_t n_buffer; /* of the last packet that lies in it: prompts and answers are not left there */
    _Alignas(16) unsigned char buffer[sizeof(struct packet_head) + PROTO_INLINE_MAX];
};

_Static_assert(sizeof(struct packet_head) % 8 == 0, "a body in the buffer is aligned");

int channel_new(enum proto_side side, int fd_take, struct channel **ret)
{
    _cleanup_close_ int fd = fd_take;
    struct channel *c;
    socklen_t n = sizeof(int);
    int type, flags;

    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0 || type != SOCK_SEQPACKET)
        return -EINVAL;
    flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;

    c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->fd = TAKE_FD(fd);
    c->context = (struct proto_context){.side = side, .state = PROTO_STATE_NEW};
    c->error = "";
    c->end = &c->first;
    *ret = c;
    return 0;
}

static void waiting_free(struct waiting *w)
{
    for (size_t i = 0; i < w->n_fds; i++)
        close(w->fds[i]);
    explicit_bzero(w->bytes, w->n_bytes);
    free(w);
}

struct channel *channel_free(struct channel *c)
{
    if (!c)
        return NULL;
    for (struct waiting *w = c->first, *next; w; w = next) {
        next = w->next;
        waiting_free(w);
    }
    close(c->fd);
    explicit_bzero(c->buffer, c->n_buffer);
    free(c);
    return NULL;
}

int channel_fd(const struct channel *c)
{
    return c->fd;
}

short channel_events(const struct channel *c)
{
    return (short)(POLLIN | (c->first ? POLLOUT : 0));
}

const struct proto_context *channel_context(const struct channel *c)
{
    return &c->context;
}

uint64_t channel_queued_bytes(const struct channel *c)
{
    return c->queued_bytes;
}

const char *channel_error(const struct channel *c)
{
    return c->error;
}

static enum proto_side other(enum proto_side side)
{
    return side == PROTO_DAEMON ? PROTO_WORKER : PROTO_DAEMON;
}

static int violation(struct channel *c, const char *why)
{
    c->error = why;
    return -EBADMSG;
}

/* ---- receiving ---- */

struct ancillary {
    int fds[FDS_RECEIVED_MAX];
    size_t n_fds;
    bool too_many;
    bool has_credentials;
    struct ucred credentials;
    int pidfd;
};

static void ancillary_done(struct ancillary *a)
{
    for (size_t i = 0; i < a->n_fds; i++)
        if (a->fds[i] >= 0)
            close(a->fds[i]);
    if (a->pidfd >= 0)
        close(a->pidfd);
}

static void ancillary_take(struct msghdr *msg, struct ancillary *a)
{
    for (struct cmsghdr *h = CMSG_FIRSTHDR(msg); h; h = CMSG_NXTHDR(msg, h)) {
        size_t n = h->cmsg_len - CMSG_LEN(0);

        if (h->cmsg_level != SOL_SOCKET)
            continue;
        if (h->cmsg_type == SCM_RIGHTS) {
            for (size_t i = 0; i < n / sizeof(int); i++) {
                int fd;

                memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
                if (a->n_fds < FDS_RECEIVED_MAX) {
                    a->fds[a->n_fds++] = fd;
                } else {
                    close(fd);
                    a->too_many = true;
                }
            }
        } else if (h->cmsg_type == SCM_CREDENTIALS && n == sizeof(struct ucred)) {
            memcpy(&a->credentials, CMSG_DATA(h), sizeof(struct ucred));
            a->has_credentials = true;
        } else if (h->cmsg_type == SCM_PIDFD && n == sizeof(int)) {
            if (a->pidfd >= 0)
                close(a->pidfd);
            memcpy(&a->pidfd, CMSG_DATA(h), sizeof(int));
        }
    }
}

static int read_memfd(struct channel *c, int fd, size_t n_bytes, void **ret)
{
    _cleanup_free_ unsigned char *body = NULL;
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals < 0 || (seals & SEALS) != SEALS)
        return violation(c, "a body that is not in a sealed memfd");
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size < 0 || (uint64_t)st.st_size != n_bytes)
        return violation(c, "a memfd of another length than its packet says");

    body = malloc(n_bytes);
    if (!body)
        return -ENOMEM;
    for (size_t at = 0; at < n_bytes;) {
        ssize_t n = pread(fd, body + at, n_bytes - at, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return violation(c, "a memfd that can't be read");
        at += (size_t)n;
    }
    *ret = TAKE_PTR(body);
    return 0;
}

static int take_packet(struct channel *c, size_t n_received, struct ancillary *a, struct channel_packet *ret)
{
    enum proto_side from = other(c->context.side);
    _cleanup_free_ void *owned = NULL;
    struct packet_head head;
    const void *body = c->buffer + sizeof(head);
    size_t n_memfds;
    struct packet p;
    int r;

    if (n_received < sizeof(head))
        return violation(c, "a packet shorter than its head");
    memcpy(&head, c->buffer, sizeof(head));
    n_memfds = head.flags & PACKET_FLAG_MEMFD ? 1 : 0;
    if (a->n_fds < n_memfds)
        return violation(c, "the memfd is missing");
    if (a->too_many)
        return violation(c, "too many file descriptors");
    r = proto_head_check(&c->context, from, &head, a->n_fds - n_memfds, &c->error);
    if (r != 0)
        return r;
    if (n_received != sizeof(head) + (n_memfds ? 0 : head.n_bytes))
        return violation(c, "a packet of another length than its head says");
    if (n_memfds) {
        r = read_memfd(c, a->fds[0], head.n_bytes, &owned);
        if (r < 0)
            return r;
        body = owned;
    }
    r = proto_body_check(&c->context, from, &head, body, &p, &c->error);
    if (r < 0)
        return r;
    proto_advance(&c->context, from, &p);

    *ret = (struct channel_packet){
        .p = p,
        .n_fds = a->n_fds - n_memfds,
        .has_credentials = a->has_credentials,
        .credentials = a->credentials,
        .pidfd = TAKE_FD(a->pidfd),
        .owned = TAKE_PTR(owned),
    };
    for (size_t i = 0; i < ret->n_fds; i++)
        ret->fds[i] = TAKE_FD(a->fds[n_memfds + i]);
    return 0;
}

int channel_receive(struct channel *c, struct channel_packet *ret)
{
    for (;;) {
        union {
            struct cmsghdr align;
            char space[CMSG_SPACE(FDS_RECEIVED_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred)) +
                       CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec iov = {.iov_base = c->buffer, .iov_len = sizeof(c->buffer)};
        struct msghdr msg = {
            .msg_iov = &iov,
            .msg_iovlen = 1,
            .msg_control = &control,
            .msg_controllen = sizeof(control),
        };
        struct ancillary a = {.pidfd = -EBADF};
        ssize_t n;
        int r;

        explicit_bzero(c->buffer, c->n_buffer);
        c->n_buffer = 0;
        n = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (n < 0) {
            /* ECONNRESET says, once, that the peer closed without having read everything; what it sent before that
             * is still there to be read. */
            if (errno == EINTR || errno == ECONNRESET)
                continue;
            return errno == EAGAIN ? CHANNEL_NOTHING : -errno;
        }
        c->n_buffer = (size_t)n;
        ancillary_take(&msg, &a);
        if (n == 0)
            r = CHANNEL_EOF;
        else if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
            r = violation(c, "a packet longer than any");
        else
            r = take_packet(c, (size_t)n, &a, ret);
        ancillary_done(&a);
        /* CHANNEL_EOF is not PROTO_STALE: only take_packet() returns the latter. */
        if (n > 0 && r == PROTO_STALE)
            continue;
        return r;
    }
}

void channel_packet_done(struct channel_packet *p)
{
    for (size_t i = 0; i < p->n_fds; i++)
        if (p->fds[i] >= 0)
            close(p->fds[i]);
    /* A zeroed one has pidfd 0, which is nobody's pidfd. */
    if (p->pidfd > 0)
        close(p->pidfd);
    if (p->owned)
        explicit_bzero(p->owned, (size_t)(p->p.blob - (const char *)p->p.fixed) + p->p.n_blob);
    free(p->owned);
    *p = (struct channel_packet){.pidfd = -EBADF};
}

/* ---- sending ---- */

static int send_now(struct channel *c, const struct iovec *iov, size_t n_iov, const int *fds, size_t n_fds,
                    bool credentials)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(FDS_RECEIVED_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = n_iov};
    char *at = control.space;

    memset(&control, 0, sizeof(control));
    if (n_fds > 0) {
        struct cmsghdr *h = (struct cmsghdr *)(void *)at;

        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(h), fds, n_fds * sizeof(int));
        at += CMSG_SPACE(n_fds * sizeof(int));
    }
    if (credentials) {
        struct cmsghdr *h = (struct cmsghdr *)(void *)at;
        struct ucred me = {.pid = getpid(), .uid = getuid(), .gid = getgid()};

        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_CREDENTIALS;
        h->cmsg_len = CMSG_LEN(sizeof(me));
        memcpy(CMSG_DATA(h), &me, sizeof(me));
        at += CMSG_SPACE(sizeof(me));
    }
    if (at > control.space) {
        msg.msg_control = &control;
        msg.msg_controllen = (size_t)(at - control.space);
    }

    for (;;) {
        if (sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 0;
        if (errno != EINTR)
            return errno == EAGAIN || errno == ENOBUFS ? CHANNEL_NOTHING : -errno;
    }
}

static int enqueue(struct channel *c, const struct iovec *iov, size_t n_iov, const int *fds, size_t n_fds,
                   bool credentials, uint64_t cost_bytes)
{
    size_t n_bytes = 0, fds_at;
    struct waiting *w;

    if (c->queued_bytes + cost_bytes > CHANNEL_QUEUE_BYTES_MAX ||
        c->queued_fds + n_fds > CHANNEL_QUEUE_FDS_MAX)
        return -ENOBUFS;
    for (size_t i = 0; i < n_iov; i++)
        n_bytes += iov[i].iov_len;
    fds_at = (sizeof(*w) + n_bytes + 7) & ~(size_t)7;
    w = malloc(fds_at + n_fds * sizeof(int));
    if (!w)
        return -ENOMEM;
    *w = (struct waiting){
        .cost_bytes = cost_bytes,
        .credentials = credentials,
        .fds = (int *)(void *)((char *)w + fds_at),
        .n_bytes = 0,
    };
    for (size_t i = 0; i < n_iov; i++) {
        if (iov[i].iov_len > 0)
            memcpy(w->bytes + w->n_bytes, iov[i].iov_base, iov[i].iov_len);
        w->n_bytes += iov[i].iov_len;
    }
    for (; w->n_fds < n_fds; w->n_fds++) {
        w->fds[w->n_fds] = fcntl(fds[w->n_fds], F_DUPFD_CLOEXEC, 0);
        if (w->fds[w->n_fds] < 0) {
            int r = -errno;

            waiting_free(w);
            return r;
        }
    }
    *c->end = w;
    c->end = &w->next;
    c->queued_bytes += cost_bytes;
    c->queued_fds += n_fds;
    return 0;
}

static int write_all(int fd, const void *data, size_t n_bytes)
{
    while (n_bytes > 0) {
        ssize_t n = write(fd, data, n_bytes);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        data = (const char *)data + n;
        n_bytes -= (size_t)n;
    }
    return 0;
}

static int make_memfd(const struct iovec *iov, size_t n_iov, int *ret)
{
    _cleanup_close_ int fd = memfd_create("packet", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    int r;

    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("packet", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    for (size_t i = 0; i < n_iov; i++) {
        r = write_all(fd, iov[i].iov_base, iov[i].iov_len);
        if (r < 0)
            return r;
    }
    if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        return -errno;
    *ret = TAKE_FD(fd);
    return 0;
}

static int send_packet(struct channel *c, enum packet_type type, uint64_t epoch, const void *fixed,
                       size_t n_fixed, const struct channel_blob *blobs, size_t n_blobs, const int *fds,
                       size_t n_fds)
{
    enum proto_side from = c->context.side;
    bool credentials = type == PACKET_HELLO && from == PROTO_WORKER;
    struct iovec iov[2 + CHANNEL_BLOBS_MAX];
    int all_fds[FDS_RECEIVED_MAX];
    size_t n_iov = 2, n_all_fds = 0;
    uint64_t n_bytes = n_fixed;
    struct packet_head head = {.type = (uint16_t)type, .epoch = epoch};
    _cleanup_close_ int memfd = -EBADF;
    struct packet p;
    int r;

    if (n_blobs > CHANNEL_BLOBS_MAX || n_fds > PROTO_FDS_MAX)
        return -EINVAL;
    iov[0] = (struct iovec){.iov_base = &head, .iov_len = sizeof(head)};
    iov[1] = (struct iovec){.iov_base = (void *)fixed, .iov_len = n_fixed};
    for (size_t i = 0; i < n_blobs; i++) {
        iov[n_iov++] = (struct iovec){.iov_base = (void *)blobs[i].data, .iov_len = blobs[i].n_bytes};
        if (blobs[i].n_bytes > UINT32_MAX)
            return -EINVAL;
        n_bytes += blobs[i].n_bytes;
    }
    if (n_bytes > UINT32_MAX)
        return -EINVAL;
    head.n_bytes = (uint32_t)n_bytes;
    if (n_bytes > PROTO_INLINE_MAX)
        head.flags |= PACKET_FLAG_MEMFD;
    if (proto_head_check(&c->context, from, &head, n_fds, &c->error) != 0)
        return -EINVAL;
    /* What can be checked without putting the pieces together; the receiver checks all of it. */
    p = (struct packet){.type = type, .epoch = epoch, .fixed = fixed};
    if (type != PACKET_STEP && type != PACKET_LOG && type != PACKET_HELLO && type != PACKET_RESET &&
        proto_body_check(&c->context, from, &head, fixed, &p, &c->error) < 0)
        return -EINVAL;

    if (head.flags & PACKET_FLAG_MEMFD) {
        r = make_memfd(iov + 1, n_iov - 1, &memfd);
        if (r < 0)
            return r;
        all_fds[n_all_fds++] = memfd;
        n_iov = 1;
    }
    if (n_fds > 0)
        memcpy(all_fds + n_all_fds, fds, n_fds * sizeof(int));
    n_all_fds += n_fds;

    r = c->first ? CHANNEL_NOTHING : send_now(c, iov, n_iov, all_fds, n_all_fds, credentials);
    if (r == CHANNEL_NOTHING)
        r = enqueue(c, iov, n_iov, all_fds, n_all_fds, credentials, sizeof(head) + n_bytes);
    if (r < 0)
        return r;
    proto_advance(&c->context, from, &p);
    return 0;
}

int channel_send(struct channel *c, enum packet_type type, const void *fixed, size_t n_fixed,
                 const struct channel_blob *blobs, size_t n_blobs, const int *fds, size_t n_fds)
{
    if (type == PACKET_HELLO || type == PACKET_RESET)
        return -EINVAL;
    return send_packet(c, type, c->context.epoch, fixed, n_fixed, blobs, n_blobs, fds, n_fds);
}

static int send_hello(struct channel *c, enum packet_type type, uint64_t epoch, enum proto_state state,
                      const char *build)
{
    struct packet_hello hello = {.magic = PROTO_MAGIC, .version = PROTO_VERSION, .state = (uint32_t)state};
    struct channel_blob blob = {.data = build, .n_bytes = strlen(build)};

    return send_packet(c, type, epoch, &hello, sizeof(hello), &blob, 1, NULL, 0);
}

int channel_greet(struct channel *c, enum packet_type type, uint64_t epoch, const char *build)
{
    if (c->context.side != PROTO_DAEMON || (type != PACKET_HELLO && type != PACKET_RESET))
        return -EINVAL;
    return send_hello(c, type, epoch, PROTO_STATE_NEW, build);
}

int channel_answer(struct channel *c, const char *build)
{
    if (c->context.side != PROTO_WORKER)
        return -EINVAL;
    return send_hello(c, PACKET_HELLO, c->context.epoch, c->context.state, build);
}

int channel_flush(struct channel *c)
{
    while (c->first) {
        struct waiting *w = c->first;
        struct iovec iov = {.iov_base = w->bytes, .iov_len = w->n_bytes};
        int r = send_now(c, &iov, 1, w->fds, w->n_fds, w->credentials);

        if (r != 0)
            return r;
        c->first = w->next;
        if (!c->first)
            c->end = &c->first;
        c->queued_bytes -= w->cost_bytes;
        c->queued_fds -= w->n_fds;
        waiting_free(w);
    }
    return 0;
}
