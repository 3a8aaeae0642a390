/* Workers of llama.cpp's RPC backend (ggml-rpc-server) as devices. Layer hw; the owner's thread; every wait
 * is bounded.
 *
 * A worker serves one client at a time: others wait in its accept queue until that one leaves, and a client
 * that leaves after asking but before the answer kills the worker (it writes to a closed socket without
 * guarding against SIGPIPE). So a worker is never asked before it is known to be free. It is knocked at: one
 * byte that is no command makes it close the connection without a word, which costs it nothing whenever it
 * comes to it. Only then it is asked. A knock that is not answered stays open until it is; meanwhile the
 * worker counts as in use and keeps the sizes it last told. What was asked in earnest is never abandoned, but
 * when the program ends.
 *
 * The protocol, all little-endian: a request is a command byte, a u64 length and so many bytes; an answer is
 * a u64 length and so many bytes. HELLO (14) comes first: 24 bytes of capabilities, answered by version and
 * as many (protocol 4 and later), or nothing, answered by the version's three bytes (3). DEVICE_COUNT (15)
 * answers a u32; GET_DEVICE_MEMORY (11) of a u32 device answers u64 free, u64 total. Source: ggml-rpc.cpp of
 * llama.cpp (b6000 to b11669), tried with the worker of 0.7.0. */
#include "hw/hw_priv.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECT_MS   500
#define KNOCK_MS     150 /* a free worker answers in well under one */
#define ASK_MS       300 /* then the question waits without us */
#define ANSWER_MS    1000
#define REST_MS      200 /* between two questions to one worker */
#define BACK_OFF_MS  2000
#define BACK_OFF_MAX 60000
#define CAPABILITIES 24
#define NO_COMMAND   0xff

enum rpc_command { RPC_MEMORY = 11, RPC_HELLO = 14, RPC_DEVICES = 15 };

struct rpc_worker {
    char endpoint[80];
    char host[72], port[8];
    int knock, ask; /* open connections, -1 = none; at most one of the two */
    bool plain_hello;
    bool known, in_use;
    struct hw_rpc_told told; /* n_devices 0 = it was never reached */
    uint64_t asked_ms, retry_ms, back_off_ms;
    char trouble[128]; /* "" = none */
};

struct rpc {
    struct rpc_worker *workers;
    size_t n;
};

/* ---- bytes ---- */

static int left_ms(uint64_t until_ms)
{
    uint64_t now = clock_mono_ms();
    return now < until_ms ? (int)(until_ms - now) : 0;
}

static bool wait_for(int fd, short events, uint64_t until_ms)
{
    struct pollfd p = {.fd = fd, .events = events};
    int n;
    do
        n = poll(&p, 1, left_ms(until_ms));
    while (n < 0 && errno == EINTR);
    return n > 0;
}

static bool send_all(int fd, const void *bytes, size_t n)
{
    /* requests of a few bytes always fit an empty socket buffer */
    return send(fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static bool receive(int fd, void *out, size_t n, uint64_t until_ms)
{
    for (size_t got = 0; got < n;) {
        if (!wait_for(fd, POLLIN, until_ms))
            return false;
        ssize_t r = recv(fd, (char *)out + got, n - got, 0);
        if (r < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (r <= 0)
            return false;
        got += (size_t)r;
    }
    return true;
}

static uint64_t little(const unsigned char *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = n; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

static bool request(int fd, enum rpc_command command, const void *bytes, size_t n)
{
    unsigned char out[9 + CAPABILITIES] = {(unsigned char)command, (unsigned char)n};
    memcpy(out + 9, bytes, n);
    return send_all(fd, out, 9 + n);
}

/* An answer of at most cap bytes; how many, or 0 on failure. */
static size_t answer(int fd, unsigned char *out, size_t cap)
{
    unsigned char head[8];
    uint64_t until = clock_mono_ms() + ANSWER_MS;
    if (!receive(fd, head, sizeof head, until))
        return 0;
    uint64_t n = little(head, sizeof head);
    return n <= cap && receive(fd, out, (size_t)n, until) ? (size_t)n : 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static int dial_one(const struct addrinfo *a)
{
    int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol), code = 0;
    socklen_t n = sizeof code;
    if (fd < 0)
        return -1;
    if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
        return fd;
    code = errno;
    if (code == EINPROGRESS) {
        code = ETIMEDOUT;
        if (wait_for(fd, POLLOUT, clock_mono_ms() + CONNECT_MS))
            (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &n);
    }
    if (code == 0)
        return fd;
    close(fd);
    errno = code;
    return -1;
}

static int dial(struct rpc_worker *w)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    int code = getaddrinfo(w->host, w->port, &hints, &list), fd = -1;
    if (code != 0) {
        snprintf(w->trouble, sizeof w->trouble, "%s", gai_strerror(code));
        return -1;
    }
    for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
        fd = dial_one(a);
    if (fd < 0)
        snprintf(w->trouble, sizeof w->trouble, "%s", strerror(errno));
    freeaddrinfo(list);
    return fd;
}

/* ---- one worker ---- */

static void failed(struct rpc_worker *w, const char *why)
{
    close_fd(&w->knock);
    close_fd(&w->ask);
    if (why)
        snprintf(w->trouble, sizeof w->trouble, "%s", why);
    w->in_use = false;
    w->back_off_ms = w->back_off_ms ? w->back_off_ms * 2 : BACK_OFF_MS;
    if (w->back_off_ms > BACK_OFF_MAX)
        w->back_off_ms = BACK_OFF_MAX;
    w->retry_ms = clock_mono_ms() + w->back_off_ms;
}

const char *hw_rpc_read(int fd, bool *ret_greeted, struct hw_rpc_told *ret)
{
    unsigned char in[64];
    struct hw_rpc_told told = {.n_devices = 0};
    size_t n = answer(fd, in, sizeof in);
    *ret_greeted = n >= 3;
    if (!*ret_greeted)
        return "it refused the greeting: another protocol version?";
    if (!request(fd, RPC_DEVICES, in, 0) || answer(fd, in, sizeof in) != 4)
        return "it does not tell how many devices it has: its protocol is too old";
    uint64_t devices = little(in, 4);
    if (devices == 0 || devices > HW_MAX_DEVICES)
        return "it has no devices, or too many";
    for (unsigned d = 0; d < devices; d++) {
        const unsigned char index[4] = {(unsigned char)d};
        if (!request(fd, RPC_MEMORY, index, sizeof index) || answer(fd, in, sizeof in) != 16)
            return "it does not tell its memory";
        told.free_bytes[d] = little(in, 8);
        told.total_bytes[d] = little(in + 8, 8);
        if (told.free_bytes[d] > told.total_bytes[d])
            told.free_bytes[d] = told.total_bytes[d];
    }
    told.n_devices = (unsigned)devices;
    *ret = told;
    return NULL;
}

/* Its turn has come: the rest of the questions, answered at once. */
static bool question(struct rpc_worker *w)
{
    bool greeted;
    const char *why = hw_rpc_read(w->ask, &greeted, &w->told);
    if (why) {
        failed(w, why);
        if (!greeted)
            w->plain_hello = !w->plain_hello; /* the other form next time */
        return false;
    }
    close_fd(&w->ask);
    w->known = true;
    w->in_use = false;
    w->trouble[0] = '\0';
    w->back_off_ms = w->retry_ms = 0;
    w->asked_ms = clock_mono_ms();
    return true;
}

static void ask(struct rpc_worker *w)
{
    static const unsigned char capabilities[CAPABILITIES];
    if (w->ask < 0) {
        w->ask = dial(w);
        if (w->ask < 0) {
            failed(w, NULL);
            return;
        }
        if (!request(w->ask, RPC_HELLO, capabilities, w->plain_hello ? 0 : CAPABILITIES)) {
            failed(w, "it closed the connection");
            return;
        }
        if (!wait_for(w->ask, POLLIN, clock_mono_ms() + ASK_MS)) {
            w->in_use = true; /* somebody came first */
            return;
        }
    } else if (!wait_for(w->ask, POLLIN, 0)) {
        return;
    }
    if (!question(w) && !w->known && w->ask < 0 && w->back_off_ms == BACK_OFF_MS)
        w->retry_ms = 0; /* the other form of greeting at the next sample */
}

static void knock(struct rpc_worker *w)
{
    const unsigned char byte = NO_COMMAND;
    uint64_t until = 0;
    if (w->knock < 0) {
        w->knock = dial(w);
        if (w->knock < 0 || !send_all(w->knock, &byte, 1)) {
            failed(w, w->knock < 0 ? NULL : "it closed the connection");
            return;
        }
        until = clock_mono_ms() + KNOCK_MS;
    }
    if (!wait_for(w->knock, POLLIN, until)) {
        w->in_use = true;
        return;
    }
    close_fd(&w->knock); /* closed at the other end: it is free */
    ask(w);
}

static void refresh(struct rpc_worker *w)
{
    uint64_t now = clock_mono_ms();
    if (w->ask >= 0)
        ask(w);
    else if (w->knock >= 0 ||
             (now >= w->retry_ms && (!w->known || w->retry_ms || now - w->asked_ms >= REST_MS)))
        knock(w);
}

/* ---- the adapter ---- */

/* "HOST:PORT", as llama.cpp cuts it: at the first colon. */
static bool parse(struct str text, struct rpc_worker *ret)
{
    struct str port = text, host = str_cut(&port, ':');
    uint64_t number;
    if (host.n == 0 || host.n >= sizeof ret->host || port.n >= sizeof ret->port || !str_u64(port, &number) ||
        number == 0 || number > 65535 || memchr(text.p, ',', text.n))
        return false;
    *ret = (struct rpc_worker){.knock = -1, .ask = -1};
    snprintf(ret->endpoint, sizeof ret->endpoint, "%.*s", STR_ARG(text));
    snprintf(ret->host, sizeof ret->host, "%.*s", STR_ARG(host));
    snprintf(ret->port, sizeof ret->port, "%.*s", STR_ARG(port));
    return true;
}

bool hw_rpc_endpoint_ok(struct str text)
{
    struct rpc_worker w;
    return parse(text, &w);
}

static enum rc rpc_open(const struct hw_roots *roots, void **ret_state, struct err *err)
{
    if (roots->n_rpc == 0) {
        enum rc rc = err_set(err, RC_NOT_FOUND, "no workers on other machines are configured");
        err_hint(err, "rpc: [HOST:PORT] in the configuration names them");
        return rc;
    }
    struct rpc *rpc = mem_new(struct rpc);
    rpc->workers = mem_calloc(roots->n_rpc + 1, sizeof *rpc->workers);
    for (size_t i = 0; i < roots->n_rpc; i++)
        if (parse(str_from(roots->rpc[i]), &rpc->workers[rpc->n]))
            rpc->n++;
    *ret_state = rpc;
    return RC_OK;
}

static void add_device(const struct rpc_worker *w, unsigned d, unsigned index, struct hw_inventory *inv)
{
    struct hw_device *out = &inv->devices[inv->n_devices++];
    *out = (struct hw_device){.vendor = "rpc", .index = index, .valid = HW_UUID};
    snprintf(out->name, sizeof out->name, "RPC%u", index % 1000);
    snprintf(out->model, sizeof out->model, "worker at %s", w->endpoint);
    if (w->told.n_devices > 1)
        snprintf(out->uuid, sizeof out->uuid, "%s/%u", w->endpoint, d);
    else
        snprintf(out->uuid, sizeof out->uuid, "%s", w->endpoint);
    out->lost = w->trouble[0] != '\0';
    if (out->lost)
        return;
    out->valid |= HW_IN_USE;
    out->in_use = w->in_use;
    if (!w->known)
        return;
    out->valid |= HW_MEMORY;
    out->total_bytes = w->told.total_bytes[d];
    out->free_bytes = w->told.free_bytes[d];
    out->used_bytes = out->total_bytes - out->free_bytes;
}

static void rpc_sample(void *state, struct hw_inventory *inv)
{
    struct rpc *rpc = state;
    unsigned index = 0;
    for (size_t i = 0; i < rpc->n; i++) {
        struct rpc_worker *w = &rpc->workers[i];
        refresh(w);
        if (w->trouble[0])
            hw_note(inv, "rpc: the worker at %s: %s", w->endpoint, w->trouble);
        else if (!w->known && w->in_use)
            hw_note(inv, "rpc: the worker at %s serves another client", w->endpoint);
        unsigned n = w->told.n_devices ? w->told.n_devices : 1; /* one that was never reached keeps a place */
        for (unsigned d = 0; d < n && inv->n_devices < HW_MAX_DEVICES; d++)
            add_device(w, d, index++, inv);
    }
}

static void rpc_close(void *state)
{
    struct rpc *rpc = state;
    if (!rpc)
        return;
    for (size_t i = 0; i < rpc->n; i++) {
        close_fd(&rpc->workers[i].knock);
        close_fd(&rpc->workers[i].ask);
    }
    free(rpc->workers);
    free(rpc);
}

const struct hw_adapter hw_adapter_rpc = {
    .name = "rpc",
    .open = rpc_open,
    .sample = rpc_sample,
    .close = rpc_close,
};
