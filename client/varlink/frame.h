/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Varlink's framing: JSON texts ended by a NUL byte. struct frame_reader cuts what arrives into frames, struct
 * frame_writer holds what a peer has not taken yet. Both are bounded and both overwrite what they held with zeros as
 * soon as it is no longer needed, because frames carry prompts and answers. Neither reads or writes more than it is
 * asked to: who owns the descriptor decides when. One thread at a time.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/*
 * A frame's text without the NUL. The limit is systemd's own, so what varlinkctl can send arrives here, and a prompt
 * that fills a context of a million tokens fits.
 */
#define FRAME_BYTES_MAX ((size_t)16 * 1024 * 1024)

/* Descriptors that may come with a call (SCM_RIGHTS); more are closed unseen. */
#define FRAME_FDS_MAX 4
/* … and with an answer: the files of a split model. */
#define FRAME_FDS_SENT_MAX 128

struct frame_reader {
    char *data;
    size_t size;    /* allocated */
    size_t begin;   /* of what has not been handed out */
    size_t end;     /* of what has arrived */
    size_t scanned; /* no NUL in [begin, scanned) */
    size_t handed;  /* bytes before begin that the caller may still look at */
    int *fds; /* [n_fds] came with the bytes that were read last; taken ones are -EBADF */
    size_t n_fds;
    bool reads_answers; /* set by who knows: FRAME_FDS_SENT_MAX may come, not FRAME_FDS_MAX */
};

/**
 * frame_reader_done() - overwrite and release; a zeroed struct is an empty reader, before and after
 */
void frame_reader_done(struct frame_reader *r);

/**
 * frame_reader_read() - read once from a non-blocking @fd, at most one bufferful
 * Makes room as needed; the frame that was handed out last is gone afterwards. Not to be called while a whole frame
 * waits, so that a peer that sends ahead is held by its own socket buffer. Descriptors that come along are kept until
 * frame_reader_drop_fds(); the kernel hands them out with the first byte that they were sent with.
 * Returns the number of bytes (> 0), 0 at the peer's end of file, -EAGAIN, -EMSGSIZE (a frame above the limit),
 * -ENOMEM or another negative errno of read().
 */
ssize_t frame_reader_read(struct frame_reader *r, int fd);

/**
 * frame_reader_take_fd() - descriptor @i of those that came along; the caller's from now on, -EBADF: there is none
 */
int frame_reader_take_fd(struct frame_reader *r, size_t i);

/**
 * frame_reader_take_fds() - all of them
 * @ret: [returned number], the caller's from now on, and the array too; NULL where there are none
 */
size_t frame_reader_take_fds(struct frame_reader *r, int **ret);

/**
 * frame_reader_drop_fds() - close those that nobody took
 */
void frame_reader_drop_fds(struct frame_reader *r);

/**
 * frame_reader_push() - the same with @n bytes from memory; -EMSGSIZE or -ENOMEM, else 0
 */
int frame_reader_push(struct frame_reader *r, const char *bytes, size_t n);

/**
 * frame_reader_next() - the next whole frame
 * @ret: its text, terminated by its NUL; valid, and the caller's to change, until the next call on the reader
 * Returns true when there was one. The frame before it is overwritten with zeros.
 */
bool frame_reader_next(struct frame_reader *r, char **ret, size_t *ret_n);

/**
 * frame_reader_forget() - overwrite the frame that was handed out last, and release the buffer when it is large
 */
void frame_reader_forget(struct frame_reader *r);

/**
 * frame_reader_pending() - bytes of a frame that has begun and not ended, or of frames that wait
 */
size_t frame_reader_pending(const struct frame_reader *r);

struct frame_chunk;

struct frame_writer {
    struct frame_chunk *first, *last;
    size_t n_bytes; /* that wait, NULs included */
    size_t n_fds;   /* that wait */
};

/**
 * frame_writer_done() - overwrite and release what waits; a zeroed struct is an empty writer, before and after
 */
void frame_writer_done(struct frame_writer *w);

/**
 * frame_writer_push() - queue a copy of @text (without NUL bytes) as one frame
 * Returns 0, -EMSGSIZE (above FRAME_BYTES_MAX), -ENOMEM. How much may wait is the caller's limit to keep.
 */
int frame_writer_push(struct frame_writer *w, const char *text, size_t n);

/**
 * frame_writer_push_fds() - the same, and descriptors that go along with it
 * @fds: [n_fds] at most FRAME_FDS_SENT_MAX; they are taken, on failure too
 */
int frame_writer_push_fds(struct frame_writer *w, const char *text, size_t n, const int *fds, size_t n_fds);

/**
 * frame_writer_write() - give a non-blocking socket as much as it takes; never raises SIGPIPE
 * Returns 0 (look at n_bytes for what is left) or a negative errno (-EPIPE, -ECONNRESET: the peer is gone).
 */
int frame_writer_write(struct frame_writer *w, int fd);
