/* A toy worker of llama.cpp's RPC backend: one thread that serves one client at a time, as the real one does.
 * Tests only. */
#ifndef TEST_HW_WORKER_H
#define TEST_HW_WORKER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct worker {
    char endpoint[32];
    unsigned devices;
    uint64_t free_bytes, total_bytes;
    bool plain_hello; /* the older greeting: nothing, answered by three bytes */
    bool lies;        /* its memory's answer has another length */
    /* written by the thread, read after worker_stop */
    unsigned greeted, abandoned; /* clients; those that left between question and answer */
    int listener, stop[2];
    pthread_t thread;
};

/* Fields of the first part are set before. */
void worker_start(struct worker *w);
void worker_stop(struct worker *w);
int worker_connect(const struct worker *w); /* a client of the test's own, which keeps others waiting */

#endif
