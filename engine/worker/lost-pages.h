/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A model's file is used where it is mapped. Where somebody cuts it short, or its device can't be read, whoever touches
 * the missing pages gets SIGBUS: the worker then says so on stderr and ends with PROTO_EXIT_PAGES_LOST, from which the
 * daemon knows that the file is to blame and neither the worker nor a request.
 */

/**
 * lost_pages_expect() - have this process end so; before any other thread is made. Threads must not block SIGBUS
 * Returns 0 or a negative errno.
 */
int lost_pages_expect(void);
