/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resident-worker: one model, computed for residentd, which it meets on a SOCK_SEQPACKET socket that was
 * passed to it.
 *
 *   main()    opens GPUs if it is told to, gives up what it does not need, then becomes the compute thread (compute.h)
 *   link      reads the socket (link.h)
 *   helper    renders and tokenises (prepare.h), started when the model is there
 *   …         the engine's own pool
 *
 * There is no way out but the end of the process: the daemon closes the connection, a drain ends, or memory
 * does.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "engine/engine-devices.h"
#include "engine/worker/compute.h"
#include "engine/worker/intake.h"
#include "engine/worker/link.h"
#include "engine/worker/lost-pages.h"
#include "engine/worker/report.h"
#include "engine/worker/sandbox.h"
#include "engine/worker/watchdog.h"

enum { EXIT_USAGE = 2 };

static int usage(const char *why)
{
    fprintf(stderr,
            "resident-worker: %s\n"
            "usage: resident-worker [--fd N] [--gpu]\n"
            "       resident-worker --report SOCKET\n"
            "It is started by residentd, which passes a socket: descriptor N, or the first of LISTEN_FDS, or "
            "0.\n"
            "With --gpu it opens the machine's GPUs first; without, everything is computed on the processor.\n"
            "With --report it tells residentd how the main process of its unit ended (ExecStopPost=).\n",
            why);
    return EXIT_USAGE;
}

static int parse_fd(const char *text)
{
    char *end;
    long n;

    errno = 0;
    n = strtol(text, &end, 10);
    return errno == 0 && *text && !*end && n >= 0 && n < 1 << 20 ? (int)n : -EINVAL;
}

/* Standard input becomes /dev/null, so that nothing reads packets by mistake. */
static int move_from_stdin(void)
{
    int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3), null;

    if (fd < 0)
        return -errno;
    null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null < 0)
        return -errno;
    if (dup2(null, STDIN_FILENO) < 0)
        return -errno;
    close(null);
    return fd;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"fd", required_argument, NULL, 'f'}, {"gpu", no_argument, NULL, 'g'}, {"report", required_argument, NULL, 'r'},
        {}};
    struct engine_devices *devices = NULL;
    bool gpu = false;
    struct watchdog watchdog;
    struct intake *intake;
    struct log log, told;
    struct link *link;
    int fd = -EBADF, option, r;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'r') {
            r = report_send(optarg);
            if (r < 0)
                fprintf(stderr, "resident-worker: can't report to %s: %s\n", optarg, strerrordesc_np(-r));
            return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
        }
        if (option == 'g') {
            gpu = true;
            continue;
        }
        if (option != 'f')
            return usage("unknown option");
        fd = parse_fd(optarg);
        if (fd < 0)
            return usage("--fd takes a number");
    }
    if (optind != argc)
        return usage("no arguments are taken");
    if (fd < 0)
        fd = sd_listen_fds(/* unset_environment= */ 1) > 0 ? SD_LISTEN_FDS_START : STDIN_FILENO;
    if (fd == STDIN_FILENO)
        fd = move_from_stdin();
    if (fd < 0 || sd_is_socket(fd, AF_UNIX, SOCK_SEQPACKET, 0) <= 0)
        return usage("that is no socket of residentd's");

    /* The journal's socket is outside of the sandbox; stderr was opened before. Once there is a daemon, it writes the
     * lines, and knows what they are about. */
    log_init_stderr(&log);
    tzset(); /* templates may ask for the date, and later there is no file to be read */
    r = watchdog_open(&watchdog);
    if (r < 0)
        log_line(&log, LOG_WARNING, NULL, "can't tell systemd that it lives: %s", strerrordesc_np(-r));
    r = lost_pages_expect();
    if (r == 0)
        r = sandbox_close_files((int[]){fd, watchdog.fd}, 2);
    if (r == 0 && gpu)
        r = engine_devices_open(NULL, 0, &devices);
    if (r == 0)
        r = sandbox_enter();
    if (r < 0) {
        log_line(&log, LOG_ERR, NULL, "could not give up rights: %s", strerrordesc_np(-r));
        return EXIT_FAILURE;
    }
    r = intake_new(&intake);
    if (r == 0)
        r = link_new(fd, intake, &log, RESIDENTD_BUILD, &watchdog, &link);
    if (r == 0)
        r = link_start(link);
    if (r < 0) {
        log_line(&log, LOG_ERR, NULL, "could not start: %s", strerrordesc_np(-r));
        return EXIT_FAILURE;
    }
    told = log;
    told.sink = link_log;
    told.userdata = link;
    compute_run(link, intake, devices, &told);
}
