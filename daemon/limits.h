/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a client can take of the daemon before any quota of the policy speaks, and how long a worker may take, each with
 * its reason.
 */

#include <stdint.h>

/* Connections of everybody together: each costs a descriptor, and a service that ran out of them could not be asked
 * why. systemd's own varlink server has the same number. */
#define LIMIT_CONNECTIONS 4096

/* Connections of one uid, whatever the policy says: a quarter of all. */
#define LIMIT_CONNECTIONS_PER_UID 1024

/* Connections beyond a quota that are kept just long enough to say so. */
#define LIMIT_CONNECTIONS_REFUSED 8

/* The same for all together whom the user database does not know: whoever has a range of uids could else hold all
 * connections while each of them is being told. */
#define LIMIT_CONNECTIONS_UNKNOWN 64

/* Descriptors that came with frames of one uid and wait to be taken; 4 fit into a frame, and only Models.Plan has a use
 * for one. Those of everybody: a process has 65536. */
#define LIMIT_FDS_PER_UID 64
#define LIMIT_FDS 4096

/* Bytes of frames and replies buffered for one uid: four frames of the largest size. */
#define LIMIT_BYTES_PER_UID (UINT64_C(64) * 1024 * 1024)

/* The same of everybody: of this each gets a share that shrinks with the number of those who hold some. */
#define LIMIT_BYTES (UINT64_C(512) * 1024 * 1024)

/* What a session costs while nothing is buffered. */
#define LIMIT_SESSION_BYTES 4096

/* JSON of one call. A value costs json-c about 60 bytes, so a call stays below 64 MiB; prompts of a million tokens come
 * as text. */
#define LIMIT_CALL_DEPTH 64
#define LIMIT_CALL_VALUES (UINT64_C(1024) * 1024)

/* Answers that a client does not read: no new call of it begins above the first, the connection is dropped above the
 * second. A streamed answer of 100,000 tokens is about 5 MB on the wire. */
#define LIMIT_UNREAD_BYTES_PAUSE (UINT64_C(256) * 1024)
#define LIMIT_UNREAD_BYTES_DROP (UINT64_C(4) * 1024 * 1024)

/* A client that reads nothing at all while something waits for it. */
#define LIMIT_UNREAD_US (UINT64_C(30) * 1000000)

/* From a frame's first byte to its NUL. 16 MiB over a Unix socket take milliseconds; a person at socat does not type
 * slower than this. */
#define LIMIT_FRAME_US (UINT64_C(60) * 1000000)

/* How often a streamed reply is looked at; one that was silent since the last time gets a piece. So there are at most
 * twice as many between two pieces; the interface promises 10 s, and varlinkctl gives up after 45. */
#define LIMIT_SILENCE_US (UINT64_C(4) * 1000000)

/* Connections accepted in a row before the others have their turn. */
#define LIMIT_ACCEPTS_IN_A_ROW 16

/* Live requests of everybody: each costs about a kilobyte, and its parameters while it is held. */
#define LIMIT_REQUESTS 16384

/* How often the kernel is asked whether what is loaded is still there: walking the page tables of 40 GB in small pages
 * takes it some 100 ms. */
#define LIMIT_SAMPLE_US (UINT64_C(10) * 1000000)

/* Ends of a worker in a row before its model is given up: about 3 s of trying. */
#define LIMIT_CRASHES 6

/* Log lines of a worker in a minute; one that is broken, or whose model is hostile, can't fill the journal. */
#define LIMIT_WORKER_LINES 60

/* From the start of a worker to HELLO: exec, dynamic linking, sandbox, on a machine that is busy. */
#define LIMIT_HELLO_US (UINT64_C(30) * 1000000)

/* From the start of a worker that only reads the directory of a model's files to what it says; a slow disk's time. */
#define LIMIT_MEASURE_US (UINT64_C(60) * 1000000)

/* One step of the engine, as its link thread tells. 512 tokens of a 70B model on two cores take over a minute. */
#define LIMIT_STEP_US (UINT64_C(600) * 1000000)

/* What running requests have after SIGTERM; systemd waits for 90 s. */
#define LIMIT_DRAIN_US (UINT64_C(5) * 1000000)

/* Starts of the daemon within this time, none of which ended in order: at so many, what they left is not trusted. */
#define LIMIT_STARTS_US (UINT64_C(60) * 1000000)
#define LIMIT_STARTS 3

/* Models.Plan at a time, of everybody: each is a process for some 100 ms. */
#define LIMIT_PLANS 4

/* From the end of a unit's process to the report of why: systemd has to start its ExecStopPost= in between. */
#define LIMIT_REPORT_US (UINT64_C(500) * 1000)

/* Without an answer to PING. The link thread answers even while an engine step hangs, so silence means that
 * the process does not run at all. Generous, because a machine that swaps or is paused is no reason to throw
 * a loaded model away. */
#define LIMIT_PONG_US (UINT64_C(30) * 1000000)

/* From the closing of its link to a worker's end; then it is killed. */
#define LIMIT_WORKER_END_US (UINT64_C(2) * 1000000)

/* From then on to where nobody waits any more: what it has may be there for good. systemd kills a unit's process that
 * hangs (WatchdogSec= of its unit), which the service may not do itself, so this is longer. */
#define LIMIT_LINGER_US (UINT64_C(150) * 1000000)

/* What a request that ended waits for the ledger before it is answered all the same. Longer than a disk that is busy
 * takes for a write, shorter than the patience of whoever waits for an answer. */
#define LIMIT_LEDGER_US (UINT64_C(3) * 1000000)

/* Requests that ended and wait in memory for a ledger that can't be written: some 20 MB. */
#define LIMIT_LEDGER_RECORDS 65536
