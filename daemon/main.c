/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentd: arguments, privileges, then the manager and the listener around one event loop.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "base/log.h"
#include "base/wipe.h"
#include "daemon/listener.h"
#include "daemon/manager.h"
#include "daemon/messages.h"
#include "daemon/privileges.h"

enum { EXIT_USAGE = 2 };

struct arguments {
    const char **policies; /* [n_policies] */
    size_t n_policies;
    const char *socket, *state, *worker, *pressure;
    int level;
    bool done; /* --help or --version was answered */
};

static void help(void)
{
    printf("residentd [--policy FILE|DIR]... [--socket PATH] [--state DIR] [--log-level LEVEL]\n"
           "\n"
           "Keeps language models resident in memory and lets the users of this machine share them.\n"
           "\n"
           "  --policy FILE|DIR   instead of the files below /usr/lib/residentd and /etc/residentd; may be repeated,\n"
           "                      later ones win\n"
           "  --socket PATH       where clients connect (%s)\n"
           "  --state DIR         what is kept between runs\n"
           "  --worker PATH       the resident-worker to start\n"
           "  --pressure FILE     in the kernel's format of memory pressure, instead of the kernel's own\n"
           "  --log-level LEVEL   err, warning, notice, info or debug\n"
           "  --version, --help\n",
           LISTENER_PATH_DEFAULT);
}

static int parse(int argc, char **argv, struct arguments *a)
{
    enum { POLICY = 256, SOCKET, STATE, WORKER, PRESSURE, LEVEL, VERSION, HELP };
    static const struct option options[] = {
        {"policy", required_argument, NULL, POLICY},   {"socket", required_argument, NULL, SOCKET},
        {"state", required_argument, NULL, STATE},     {"worker", required_argument, NULL, WORKER},
        {"pressure", required_argument, NULL, PRESSURE},
        {"log-level", required_argument, NULL, LEVEL}, {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, HELP},             {NULL, 0, NULL, 0},
    };
    int c;

    a->level = LOG_INFO;
    a->policies = calloc((size_t)argc, sizeof(*a->policies));
    if (!a->policies)
        return -ENOMEM;
    while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
        switch (c) {
        case POLICY:
            a->policies[a->n_policies++] = optarg;
            break;
        case SOCKET:
            a->socket = optarg;
            break;
        case STATE:
            a->state = optarg;
            break;
        case WORKER:
            a->worker = optarg;
            break;
        case PRESSURE:
            a->pressure = optarg;
            break;
        case LEVEL:
            a->level = log_level_from_name(optarg);
            if (a->level < 0) {
                fprintf(stderr, "residentd: --log-level is one of err, warning, notice, info, debug\n");
                return -EINVAL;
            }
            break;
        case VERSION:
            printf("residentd %s\n", RESIDENTD_VERSION);
            a->done = true;
            return 0;
        case HELP:
        case 'h':
            help();
            a->done = true;
            return 0;
        default:
            return -EINVAL;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "residentd: unexpected argument \"%s\"\n", argv[optind]);
        return -EINVAL;
    }
    return 0;
}

/* Between two turns nothing is left on the stack of what users have sent. */
static int loop(sd_event *event)
{
    int r = 0;

    while (r >= 0 && sd_event_get_state(event) != SD_EVENT_FINISHED) {
        r = sd_event_run(event, UINT64_MAX);
        wipe_stack();
    }
    return r < 0 ? r : 0;
}

static const struct log_fields failed = {.message_id = MESSAGE_START_FAILED};

static int run(const struct arguments *a, const struct log *log)
{
    const struct manager_options options = {
        .policy_paths = a->policies,
        .n_policy_paths = a->n_policies,
        .state_dir = a->state,
        .worker_path = a->worker,
        .pressure_path = a->pressure,
        .log = log,
    };
    const struct listener_options where = {.path = a->socket, .fd = -EBADF};
    _cleanup_(manager_freep) struct manager *m = NULL;
    _cleanup_(listener_freep) struct listener *listener = NULL;
    struct fault fault;
    char text[640];
    int r;

    fault_init(&fault, FAULT_NONE, NULL);
    r = manager_new(&options, &m, &fault);
    if (r < 0) {
        if (fault.kind != FAULT_NONE)
            log_line(log, LOG_ERR, &failed, "%s", fault_describe(&fault, text, sizeof(text)));
        else
            log_line(log, LOG_ERR, &failed, "can't start: %s", strerror(-r));
        return r;
    }
    r = listener_new(m, &where, &listener);
    if (r < 0) {
        log_line(log, LOG_ERR, &failed, "can't listen on %s: %s", a->socket ? a->socket : LISTENER_PATH_DEFAULT,
                 strerror(-r));
        return r;
    }
    log_line(log, LOG_NOTICE, NULL, "residentd %s listens on %s", RESIDENTD_VERSION,
             listener_path(listener) ? listener_path(listener) : "the socket that it was given");
    manager_listening(m);
    r = loop(manager_event(m));
    if (r < 0)
        log_line(log, LOG_ERR, &failed, "event loop: %s", strerror(-r));
    return r;
}

int main(int argc, char **argv)
{
    struct arguments a = {.n_policies = 0};
    struct log log;
    int r;

    r = parse(argc, argv, &a);
    if (r < 0 || a.done) {
        free(a.policies);
        return r < 0 ? EXIT_USAGE : EXIT_SUCCESS;
    }
    /* The socket's mode is set, all else is the service's own. */
    umask(077);
    log_init(&log);
    log.level_max = a.level;
    privileges_raise_limits();
    r = privileges_drop();
    if (r < 0)
        log_line(&log, LOG_ERR, &failed, "can't drop privileges: %s", strerror(-r));
    else
        r = run(&a, &log);
    free(a.policies);
    return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
