/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * residentctl chat: a conversation, line by line. Each turn sends all of it, because the service keeps nothing of
 * a conversation but the cache of what it has computed.
 *
 * Ctrl-C ends the answer that is being written, and at the prompt the program; Ctrl-D ends the program. SIGINT comes
 * through a signalfd, so that it is one more descriptor to wait for and no handler needs to know anything.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/json.h"
#include "client/residentctl/ctl.h"
#include "client/residentctl/generate.h"

struct chat {
    struct ctl *ctl;
    struct generate_options options;
    json_object *messages; /* owned by options.parameters */
    int signal_fd;
    bool is_interactive; /* stdin is a terminal: show a prompt */
    struct generate_output output;
    struct resident_call *call; /* NULL: no answer is on its way */
    int status;                 /* of the answer */
};

static void on_piece(struct resident_call *call, const struct resident_reply *reply,
                     const struct resident_error *error, void *userdata)
{
    struct chat *c = userdata;

    if (!reply) {
        c->call = NULL;
        generate_end(&c->output);
        c->status = ctl_report(
            c->ctl, resident_error_errno(error) < 0 ? resident_error_errno(error) : RESIDENT_REFUSED, error);
        return;
    }
    if (generate_show(&c->output, reply) < 0) {
        c->status = STATUS_FAILED;
        c->call = resident_cancel(c->call);
    }
    if (resident_reply_is_last(reply))
        c->call = NULL;
}

static bool take_interrupt(struct chat *c)
{
    struct signalfd_siginfo info;

    return read(c->signal_fd, &info, sizeof(info)) == sizeof(info);
}

/* Runs the call until it ends or Ctrl-C ends it. */
static int wait_for_answer(struct chat *c)
{
    while (c->call) {
        struct pollfd fds[] = {
            {.fd = resident_get_fd(c->ctl->connection),
             .events = (short)resident_get_events(c->ctl->connection)},
            {.fd = c->signal_fd, .events = POLLIN},
        };
        int k = resident_process(c->ctl->connection);

        if (k != 0)
            continue; /* a lost connection has ended the call */
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return STATUS_FAILED;
        if (take_interrupt(c)) {
            c->call = resident_cancel(c->call);
            c->status = STATUS_INTERRUPTED;
        }
    }
    return c->status;
}

/* One turn. The answer, also one that was cut short, becomes part of the conversation; one that failed does not. */
static int answer(struct chat *c, const char *line, size_t n)
{
    _cleanup_free_ char *text = NULL;
    size_t n_text = 0, n_before = json_object_array_length(c->messages);
    const char *parameters;
    int r, status;

    if (!generate_message(c->messages, "user", line, n))
        return ctl_no_memory();
    parameters = json_text(c->options.parameters);
    generate_output_init(&c->output, c->ctl, c->options.stats);
    c->output.copy = open_memstream(&text, &n_text);
    if (!parameters || !c->output.copy) {
        fclosep(&c->output.copy);
        return ctl_no_memory();
    }
    c->status = STATUS_DONE;
    r = resident_start(c->ctl->connection, RESIDENT_INFERENCE "Chat", parameters, RESIDENT_MORE, on_piece, c,
                       &c->call);
    status = r < 0 ? ctl_report(c->ctl, r, NULL) : wait_for_answer(c);
    generate_end(&c->output);
    fflush(stdout);
    if (fclose(c->output.copy) != 0)
        return ctl_no_memory();
    c->output.copy = NULL;
    if (status != STATUS_DONE && status != STATUS_INTERRUPTED)
        json_object_array_del_idx(c->messages, n_before, 1);
    else if (!generate_message(c->messages, "assistant", text, n_text))
        return ctl_no_memory();
    return status;
}

/* Waits for input. Returns false when Ctrl-C came first. */
static bool wait_for_line(struct chat *c)
{
    struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = c->signal_fd, .events = POLLIN}};

    if (c->is_interactive) {
        fputs("> ", stdout);
        fflush(stdout);
    }
    while (poll(fds, 2, -1) < 0 && errno == EINTR)
        ;
    return !take_interrupt(c);
}

static int converse(struct chat *c)
{
    _cleanup_free_ char *line = NULL;
    size_t n_room = 0;
    int status = STATUS_DONE;

    /* stdin is polled, so nothing may hide in stdio's buffer. */
    setvbuf(stdin, NULL, _IONBF, 0);
    for (;;) {
        ssize_t n;

        if (!wait_for_line(c)) {
            fputc('\n', stdout);
            return STATUS_INTERRUPTED;
        }
        n = getline(&line, &n_room, stdin);
        if (n < 0) {
            if (c->is_interactive)
                fputc('\n', stdout);
            return status;
        }
        if (n > 0 && line[n - 1] == '\n')
            n--;
        if (n == 0)
            continue;
        status = answer(c, line, (size_t)n);
        if (resident_process(c->ctl->connection) < 0)
            return STATUS_FAILED; /* the service is gone, and has said so */
        if (status == STATUS_INTERRUPTED && c->is_interactive)
            status = STATUS_DONE;
        if (status != STATUS_DONE && !c->is_interactive)
            return status;
    }
}

static int begin(struct chat *c, const char *model)
{
    sigset_t interrupt;

    c->messages = json_object_new_array();
    if (!put(c->options.parameters, "messages", c->messages) ||
        !put(c->options.parameters, "model", json_object_new_string(model)) ||
        (c->options.system &&
         !generate_message(c->messages, "system", c->options.system, strlen(c->options.system))))
        return ctl_no_memory();
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    if (sigprocmask(SIG_BLOCK, &interrupt, NULL) < 0)
        return STATUS_FAILED;
    c->signal_fd = signalfd(-1, &interrupt, SFD_CLOEXEC | SFD_NONBLOCK);
    if (c->signal_fd < 0)
        return STATUS_FAILED;
    return ctl_connect(c->ctl);
}

int verb_chat(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    struct chat c = {.ctl = ctl,
                     .signal_fd = -EBADF,
                     .is_interactive = isatty(STDIN_FILENO) && ctl->is_terminal && !ctl->json};
    int status;

    status = generate_parse(verb, argc, argv, &c.options);
    if (status == STATUS_DONE && argc - optind != 1)
        status = ctl_usage(verb, "exactly one model is expected");
    if (status == STATUS_DONE)
        status = begin(&c, argv[optind]);
    if (status == STATUS_DONE)
        status = converse(&c);
    closep(&c.signal_fd);
    generate_options_done(&c.options);
    return status;
}
