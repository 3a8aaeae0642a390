/* Answers that the work pool makes. Layer daemon; `make` runs on the work pool, all else on the loop. The
 * task outlives a client that leaves: its answer is then thrown away. */
#include "daemon/daemon_priv.h"

struct background {
    struct http_exchange *ex; /* NULL once the client is gone */
    uv_work_t work;
    background_fn make;
    void *arg;
    struct buf out;
    enum rc rc;
    struct err err;
};

static void on_gone(void *arg)
{
    ((struct background *)arg)->ex = NULL;
}

static void make(uv_work_t *work)
{
    struct background *b = work->data;
    b->rc = b->make(b->arg, &b->out, &b->err);
}

static void answer(uv_work_t *work, int status)
{
    struct background *b = work->data;
    (void)status;
    if (b->ex && b->rc == RC_OK)
        http_reply(b->ex, 200, "application/json", buf_str(&b->out));
    else if (b->ex)
        http_reply_err(b->ex, &b->err, 0);
    buf_release(&b->out);
    free(b->arg);
    free(b);
}

void background_answer(struct daemon *d, struct http_exchange *ex, background_fn fn, void *arg)
{
    struct background *b = mem_new(struct background);
    b->ex = ex;
    b->make = fn;
    b->arg = arg;
    b->work.data = b;
    http_on_abort(ex, on_gone, b);
    uv_queue_work(d->loop, &b->work, make, answer);
}
