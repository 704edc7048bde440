/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Accepting connections. The first thing that a connection costs is looked at before anything is allocated for it:
 * how many there are, and how many of them are this uid's.
 *
 * A user beyond its quota of connections is told so: a few more are accepted, answered with the error and closed.
 * Beyond those, and beyond the limits that nobody may pass, a connection is closed without a word.
 */
#include "daemon/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include "daemon/limits.h"
#include "daemon/messages.h"
#include "daemon/session.h"

#define ACCEPT_AGAIN_US (UINT64_C(1) * 1000000)

struct listener {
    struct session_host host;
    struct method_table *methods;
    struct nss *nss;
    int fd;
    char *path; /* bound by us; removed at the end if it is still the same socket */
    dev_t device;
    ino_t inode;
    sd_event_source *io, *again;
    struct session **sessions; /* [n_sessions], in no order */
    size_t n_sessions, n_room;
};

/* ---- opening ---- */

static int address_of(const char *path, struct sockaddr_un *ret)
{
    size_t n = strlen(path);

    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (n == 0 || n >= sizeof(ret->sun_path))
        return -ENAMETOOLONG;
    memcpy(ret->sun_path, path, n + 1);
    return 0;
}

static int make_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    _cleanup_free_ char *parent = NULL;

    if (!slash || slash == path)
        return 0;
    parent = strndup(path, (size_t)(slash - path));
    if (!parent)
        return -ENOMEM;
    return mkdir(parent, 0755) == 0 || errno == EEXIST ? 0 : -errno;
}

/* Whether nobody answers at a socket that is in the way. */
static bool is_stale(const struct sockaddr_un *address)
{
    _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct stat st;

    if (fd < 0 || lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return false;
    return connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 && errno == ECONNREFUSED;
}

static int bind_path(struct listener *l, const char *path)
{
    _cleanup_close_ int fd = -EBADF;
    struct sockaddr_un address;
    struct stat st;
    int r;

    r = address_of(path, &address);
    if (r < 0)
        return r;
    r = make_parent(path);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        if (errno != EADDRINUSE || !is_stale(&address))
            return -errno;
        if (unlink(path) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
            return -errno;
    }
    if (lstat(path, &st) < 0)
        return -errno;
    l->path = strdup(path);
    if (!l->path)
        return -ENOMEM;
    l->device = st.st_dev;
    l->inode = st.st_ino;
    /* The umask is no policy: everybody may connect, and credentials decide what they may do. */
    if (chmod(path, 0666) < 0 || listen(fd, SOMAXCONN) < 0)
        return -errno;
    l->fd = TAKE_FD(fd);
    return 0;
}

static bool is_ours(int fd, const char *name)
{
    struct sockaddr_un address;
    socklen_t n = sizeof(address);
    const char *slash;

    if (sd_is_socket(fd, AF_UNIX, SOCK_STREAM, 1) <= 0)
        return false;
    if (name && (strcmp(name, "io.residentd") == 0 || strcmp(name, "varlink") == 0))
        return true;
    memset(&address, 0, sizeof(address));
    if (getsockname(fd, (struct sockaddr *)&address, &n) < 0 || n <= offsetof(struct sockaddr_un, sun_path) ||
        n > sizeof(address) || address.sun_path[sizeof(address.sun_path) - 1] != 0)
        return false;
    slash = strrchr(address.sun_path, '/');
    return slash && strcmp(slash + 1, "io.residentd") == 0;
}

/* The fd of ours among those that systemd passed; -ENOENT: none. */
static int fd_from_systemd(void)
{
    char **names = NULL;
    int n = sd_listen_fds_with_names(/* unset_environment= */ 0, &names), found = -ENOENT;

    for (int i = 0; i < n; i++) {
        if (found < 0 && is_ours(SD_LISTEN_FDS_START + i, names ? names[i] : NULL))
            found = SD_LISTEN_FDS_START + i;
        if (names)
            free(names[i]);
    }
    free(names);
    return found;
}

static int open_socket(struct listener *l, const struct listener_options *options)
{
    int flags;

    if (options->fd >= 0)
        l->fd = options->fd;
    else if (options->path)
        return bind_path(l, options->path);
    else
        l->fd = fd_from_systemd();
    if (l->fd < 0)
        return bind_path(l, LISTENER_PATH_DEFAULT);
    flags = fcntl(l->fd, F_GETFL);
    if (flags < 0 || fcntl(l->fd, F_SETFL, flags | O_NONBLOCK) < 0 || fcntl(l->fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    return 0;
}

/* ---- sessions ---- */

static int add_session(struct listener *l, struct session *s)
{
    if (l->n_sessions == l->n_room) {
        size_t n_room = l->n_room ? 2 * l->n_room : 16;
        struct session **sessions = reallocarray(l->sessions, n_room, sizeof(*sessions));

        if (!sessions)
            return -ENOMEM;
        l->sessions = sessions;
        l->n_room = n_room;
    }
    l->sessions[l->n_sessions++] = s;
    return 0;
}

static void on_ended(struct session *s, void *userdata)
{
    struct listener *l = userdata;

    for (size_t i = 0; i < l->n_sessions; i++)
        if (l->sessions[i] == s) {
            l->sessions[i] = l->sessions[--l->n_sessions];
            break;
        }
    session_free(s);
}

static const char *user_name(uid_t uid, void *userdata)
{
    const struct listener *l = userdata;

    for (size_t i = 0; i < l->n_sessions; i++) {
        const struct identity *identity = session_identity(l->sessions[i]);

        if (identity->uid == uid && identity->name)
            return identity->name;
    }
    return NULL;
}

static uint64_t connections_max(const struct listener *l, const struct identity *identity)
{
    struct policy_subject subject = identity_subject(identity);
    struct policy_quota quota;
    uint64_t max;

    policy_quota_for(manager_policy(l->host.manager), &subject, &quota);
    max = account_share(manager_accounts(l->host.manager), identity->uid, ACCOUNT_CONNECTIONS, LIMIT_CONNECTIONS);
    if (LIMIT_CONNECTIONS_PER_UID < max)
        max = LIMIT_CONNECTIONS_PER_UID;
    return quota.connections < max ? quota.connections : max;
}

static void refuse_connection(const struct listener *l, uid_t uid, uint64_t limit, struct fault *ret)
{
    fault_init(ret, FAULT_QUOTA_EXCEEDED, "connections");
    ret->limit = (int64_t)limit;
    ret->used = (int64_t)account_used(manager_accounts(l->host.manager), uid, ACCOUNT_CONNECTIONS);
}

/*
 * Counts the connection for its user. Returns 0; ACCOUNT_FULL with the connection charged but @ret_refusal set when the
 * quota is used up; a negative errno when it is to be closed without a word.
 */
static int charge_connection(struct listener *l, const struct identity *identity,
                             struct account_charge *charge, struct fault *ret_refusal)
{
    struct accounts *accounts = manager_accounts(l->host.manager);
    uint64_t limit = connections_max(l, identity);
    int r;

    r = account_charge(accounts, identity->uid, ACCOUNT_CONNECTIONS, 1, limit, charge);
    if (r <= 0)
        return r;
    r = account_charge(accounts, identity->uid, ACCOUNT_CONNECTIONS, 1, limit + LIMIT_CONNECTIONS_REFUSED,
                       charge);
    if (r != 0)
        return r < 0 ? r : -EDQUOT;
    refuse_connection(l, identity->uid, limit, ret_refusal);
    return ACCOUNT_FULL;
}

/* Connections of one user, while they are counted anew. */
struct tally {
    uid_t uid;
    uint64_t limit, n_kept;
};

static struct tally *find_tally(struct tally *tallies, size_t *n, uid_t uid)
{
    size_t i = 0;

    while (i < *n && tallies[i].uid != uid)
        i++;
    if (i == *n)
        tallies[(*n)++] = (struct tally){.uid = uid};
    return &tallies[i];
}

/*
 * The policy was read again: whoever has more connections now than it allows keeps those with a running call and as
 * many others as there is room for; the rest hear why with their next call. Everything else that a policy says is
 * looked at anew with every call.
 */
static void on_reloaded(void *userdata)
{
    struct listener *l = userdata;
    _cleanup_free_ struct tally *tallies = calloc(l->n_sessions + 1, sizeof(*tallies));
    size_t n_tallies = 0;

    if (!tallies)
        return; /* they stay until they close */
    for (size_t i = 0; i < l->n_sessions; i++) {
        const struct identity *identity = session_identity(l->sessions[i]);
        struct tally *t = find_tally(tallies, &n_tallies, identity->uid);

        t->limit = connections_max(l, identity);
        t->n_kept += !session_is_idle(l->sessions[i]);
    }
    for (size_t i = 0; i < l->n_sessions; i++) {
        const struct identity *identity = session_identity(l->sessions[i]);
        struct tally *t = find_tally(tallies, &n_tallies, identity->uid);
        struct fault refusal;

        if (!session_is_idle(l->sessions[i]))
            continue;
        if (t->n_kept < t->limit) {
            t->n_kept++;
            continue;
        }
        refuse_connection(l, identity->uid, t->limit, &refusal);
        session_refuse(l->sessions[i], &refusal);
    }
}

static int serve(struct listener *l, int fd)
{
    _cleanup_(identity_done) struct identity identity = IDENTITY_NULL;
    struct account_charge charge = ACCOUNT_CHARGE_NULL;
    struct session *s = NULL;
    struct fault refusal;
    int r;

    if (l->n_sessions >= LIMIT_CONNECTIONS)
        return -EUSERS;
    r = identity_from_socket(fd, &identity);
    if (r < 0)
        return r;
    r = charge_connection(l, &identity, &charge, &refusal);
    if (r < 0)
        return r;
    r = session_new(&l->host, fd, &identity, &charge, r == ACCOUNT_FULL ? &refusal : NULL, &s);
    if (r < 0) {
        account_discharge(&charge);
        return r;
    }
    r = add_session(l, s);
    if (r < 0)
        session_free(s); /* which has closed the fd */
    return r < 0 ? 1 : 0;
}

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct listener *l = userdata;

    return sd_event_source_set_enabled(l->io, SD_EVENT_ON);
}

/* Out of descriptors or memory: the connection stays in the queue, and asking again at once would only burn time. */
static void pause_accepting(struct listener *l, int error)
{
    log_line(manager_log(l->host.manager), LOG_ERR, &(struct log_fields){.message_id = MESSAGE_ACCEPT_FAILED},
             "Can't accept a connection, trying again in a second: %s", strerror(error));
    if (sd_event_source_set_time_relative(l->again, ACCEPT_AGAIN_US) >= 0 &&
        sd_event_source_set_enabled(l->again, SD_EVENT_ONESHOT) >= 0)
        (void)sd_event_source_set_enabled(l->io, SD_EVENT_OFF);
}

static int on_connection(sd_event_source *source, int listen_fd, uint32_t revents, void *userdata)
{
    struct listener *l = userdata;

    for (unsigned i = 0; i < LIMIT_ACCEPTS_IN_A_ROW; i++) {
        _cleanup_close_ int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        int r;

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
                pause_accepting(l, errno);
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            return 0;
        }
        r = serve(l, fd);
        if (r >= 0)
            fd = -EBADF; /* the session's now, or closed by it */
        else
            log_line(manager_log(l->host.manager), LOG_DEBUG, NULL, "Connection closed at once: %s",
                     strerror(-r));
    }
    return 0;
}

/* ---- life ---- */

static int add_sources(struct listener *l)
{
    sd_event *event = manager_event(l->host.manager);
    int r;

    r = sd_event_add_time_relative(event, &l->again, CLOCK_MONOTONIC, 0, 0, on_again, l);
    if (r < 0)
        return r;
    r = sd_event_source_set_enabled(l->again, SD_EVENT_OFF);
    if (r < 0)
        return r;
    r = sd_event_add_io(event, &l->io, l->fd, EPOLLIN, on_connection, l);
    if (r < 0)
        return r;
    (void)sd_event_source_set_description(l->io, "listener");
    return 0;
}

/* systemd's socket stays when this process goes: who connects from now on is the next daemon's, and waits in the queue.
 * At a socket of our own they are told that they are too late. */
static bool on_stopping(void *userdata)
{
    struct listener *l = userdata;

    if (!l->path) {
        (void)sd_event_source_set_enabled(l->io, SD_EVENT_OFF);
        (void)sd_event_source_set_enabled(l->again, SD_EVENT_OFF);
    }
    return l->n_sessions > 0;
}

int listener_new(struct manager *m, const struct listener_options *options, struct listener **ret)
{
    _cleanup_(listener_freep) struct listener *l = calloc(1, sizeof(*l));
    int r;

    if (!l)
        return -ENOMEM;
    l->fd = -EBADF;
    r = method_table_new(&l->methods);
    if (r < 0)
        return r;
    r = nss_new(manager_event(m), options->lookup, &l->nss);
    if (r < 0)
        return r;
    l->host = (struct session_host){.manager = m,
                                    .nss = l->nss,
                                    .methods = l->methods,
                                    .ended = on_ended,
                                    .user_name = user_name,
                                    .userdata = l};
    r = open_socket(l, options);
    if (r < 0)
        return r;
    r = add_sources(l);
    if (r < 0)
        return r;
    manager_set_reloaded(m, on_reloaded, l);
    manager_set_stopping(m, on_stopping, l);
    manager_set_nss(m, l->nss);
    *ret = TAKE_PTR(l);
    return 0;
}

/* Only what is still our own socket: a daemon that replaced it may answer there already. */
static void remove_socket(const struct listener *l)
{
    struct stat st;

    if (l->path && lstat(l->path, &st) == 0 && st.st_dev == l->device && st.st_ino == l->inode)
        (void)unlink(l->path);
}

struct listener *listener_free(struct listener *l)
{
    if (!l)
        return NULL;
    manager_set_reloaded(l->host.manager, NULL, NULL);
    manager_set_stopping(l->host.manager, NULL, NULL);
    manager_set_nss(l->host.manager, NULL);
    while (l->n_sessions > 0)
        session_free(l->sessions[--l->n_sessions]);
    free(l->sessions);
    sd_event_source_disable_unref(l->io);
    sd_event_source_disable_unref(l->again);
    remove_socket(l);
    free(l->path);
    closep(&l->fd);
    nss_free(l->nss);
    method_table_free(l->methods);
    free(l);
    return NULL;
}

const char *listener_path(const struct listener *l)
{
    return l->path;
}
