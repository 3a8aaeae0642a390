/* A small HTTP/1.1 client: see client.h. */
#include "cli/client.h"

#include "base/clock.h"
#include "base/mem.h"
#include "os/file.h"
#include "proxy/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <llhttp.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <uv.h>

enum { READ_BYTES = 32 * 1024, ERROR_BODY_MAX = 1024 * 1024 };

/* ---- addresses ---- */

static enum rc bad_url(const char *url, const char *what, struct err *err)
{
    enum rc rc = err_set(err, RC_INVALID, "\"%s\" is not an address: %s", url, what);
    err_hint(err, "write it as http://127.0.0.1:11435");
    return rc;
}

static bool copy(struct str s, char *out, size_t cap)
{
    if (s.n >= cap)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f)
            return false;
    memcpy(out, s.p, s.n);
    out[s.n] = '\0';
    return true;
}

enum rc client_address_url(const char *url, struct client_address *ret_address, struct err *err)
{
    struct str rest = str_from(url), host;
    struct client_address a = {.tls = str_starts(rest, "https://")};
    if (a.tls || str_starts(rest, "http://"))
        rest.p += 7 + a.tls, rest.n -= 7 + a.tls;
    if (str_find(rest, STR("://")) >= 0)
        return bad_url(url, "it begins with neither http:// nor https://", err);
    ptrdiff_t slash = str_find(rest, STR("/"));
    struct str base = slash < 0 ? STR("") : (struct str){rest.p + slash, rest.n - (size_t)slash};
    while (str_ends(base, "/"))
        base.n--;
    if (slash >= 0)
        rest.n = (size_t)slash;
    if (str_starts(rest, "[")) {
        rest.p++, rest.n--;
        host = str_cut(&rest, ']');
        if (rest.n && rest.p[0] != ':')
            return bad_url(url, "something else than a port follows the bracket", err);
        if (rest.n)
            rest.p++, rest.n--;
    } else {
        host = str_cut(&rest, ':');
    }
    uint64_t port = a.tls ? 443 : 80;
    if (rest.n && (!str_u64(rest, &port) || port == 0 || port > 65535))
        return bad_url(url, "the port is not a number from 1 to 65535", err);
    if (host.n == 0 || !copy(host, a.host, sizeof a.host))
        return bad_url(url, "the host is missing or malformed", err);
    if (!copy(base, a.base, sizeof a.base))
        return bad_url(url, "the path is too long or malformed", err);
    snprintf(a.port, sizeof a.port, "%u", (unsigned)port);
    *ret_address = a;
    return RC_OK;
}

enum rc client_address_control(const char *path, struct client_address *ret_address, struct err *err)
{
    char usual[512];
    struct client_address a = {.local = true};
    if (!path) {
        file_dir(FILE_DIR_RUNTIME, usual, sizeof usual);
        size_t n = strlen(usual);
        snprintf(usual + n, sizeof usual - n, "/arriero.sock");
        path = usual;
    }
    if (strlen(path) >= sizeof a.path) {
        enum rc rc =
            err_set(err, RC_LIMIT, "the socket's path is longer than %zu bytes: %s", sizeof a.path - 1, path);
        err_hint(err, "choose a shorter one with --socket or $ARRIERO_SOCKET");
        return rc;
    }
    snprintf(a.path, sizeof a.path, "%s", path);
    *ret_address = a;
    return RC_OK;
}

/* For messages: "/run/arriero/arriero.sock" or "http://127.0.0.1:11435". */
static const char *address_text(const struct client_address *a, char *out, size_t cap)
{
    bool six = strchr(a->host, ':') != NULL;
    if (a->local)
        snprintf(out, cap, "%s", a->path);
    else
        snprintf(out, cap, "http%s://%s%s%s:%s", a->tls ? "s" : "", six ? "[" : "", a->host, six ? "]" : "",
                 a->port);
    return out;
}

/* ---- one exchange ---- */

struct exchange {
    const struct client_address *address;
    const struct client_request *request;
    int fd;
    struct tls_context *trust; /* NULL = without TLS, as is tls until the connection is there */
    struct tls *tls;
    uint64_t deadline_ms; /* of clock_mono_ms; 0 = none */
    llhttp_t parser;
    size_t header_bytes;
    bool complete, stopped;
    client_body_fn fn;
    void *arg;
    struct buf error_body; /* of an answer that is no success */
};

/* TLS may have to write in order to read, and the other way round. */
static short events_for(const struct exchange *x, short wanted)
{
    int mask = wanted == POLLIN ? UV_READABLE : UV_WRITABLE;
    if (x->tls)
        mask = tls_mask(x->tls, mask);
    return (short)((mask & UV_READABLE ? POLLIN : 0) | (mask & UV_WRITABLE ? POLLOUT : 0));
}

static enum rc wait_for(const struct exchange *x, short wanted, struct err *err)
{
    short events = events_for(x, wanted);
    struct pollfd fds[2] = {{.fd = x->fd, .events = events}, {.fd = x->request->cancel_fd, .events = POLLIN}};
    for (;;) {
        int left = -1;
        if (x->deadline_ms) {
            uint64_t now = clock_mono_ms();
            left = now >= x->deadline_ms ? 0 : (int)(x->deadline_ms - now);
        }
        int n = poll(fds, 2, left);
        if (n < 0 && errno != EINTR)
            return err_sys(err, RC_IO, "cannot wait for the daemon");
        if (n > 0 && fds[1].revents)
            return err_set(err, RC_CANCELLED, "interrupted");
        if (n > 0 && fds[0].revents)
            return RC_OK;
        if (n == 0) {
            char text[CLIENT_BASE_MAX + 32];
            enum rc rc = err_set(err, RC_TIMEOUT, "no answer from %s within %u s",
                                 address_text(x->address, text, sizeof text), x->request->timeout_ms / 1000);
            err_hint(err, "the daemon is busy or stuck: look at its log");
            return rc;
        }
    }
}

static enum rc not_there(const struct client_address *a, struct err *err)
{
    char text[CLIENT_BASE_MAX + 32];
    int why = errno;
    address_text(a, text, sizeof text);
    if (why == ENOENT || why == ECONNREFUSED) {
        enum rc rc = err_set(err, RC_NOT_FOUND, "no daemon answers at %s", text);
        err_hint(err, "start it with: arriero serve");
        return rc;
    }
    enum rc rc = err_sys(err, why == EACCES || why == EPERM ? RC_DENIED : RC_IO,
                         "cannot reach the daemon at %s", text);
    if (why == EACCES || why == EPERM)
        err_hint(err, "it belongs to another user; run this as that user or name your own with --socket");
    return rc;
}

static enum rc connect_to(struct exchange *x, int family, int protocol, const struct sockaddr *sa,
                          socklen_t len, struct err *err)
{
    x->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    if (x->fd < 0)
        return err_sys(err, RC_IO, "cannot make a socket");
    if (connect(x->fd, sa, len) == 0)
        return RC_OK;
    if (errno == EINPROGRESS || errno == EAGAIN) {
        enum rc rc = wait_for(x, POLLOUT, err);
        int failed = 0;
        socklen_t n = sizeof failed;
        if (rc != RC_OK)
            return rc;
        if (getsockopt(x->fd, SOL_SOCKET, SO_ERROR, &failed, &n) == 0 && failed == 0)
            return RC_OK;
        errno = failed;
    }
    return not_there(x->address, err);
}

static enum rc open_connection(struct exchange *x, struct err *err)
{
    const struct client_address *a = x->address;
    if (a->local) {
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        memcpy(un.sun_path, a->path, strlen(a->path) + 1);
        return connect_to(x, AF_UNIX, 0, (struct sockaddr *)&un, sizeof un, err);
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    int rv = getaddrinfo(a->host, a->port, &hints, &list);
    if (rv != 0) {
        enum rc rc = err_set(err, RC_NOT_FOUND, "the host \"%s\" is unknown: %s", a->host, gai_strerror(rv));
        err_hint(err, "a daemon on this machine is http://127.0.0.1:11435");
        return rc;
    }
    enum rc rc = err_set(err, RC_NOT_FOUND, "the host \"%s\" has no address", a->host);
    for (struct addrinfo *i = list; i; i = i->ai_next) {
        if (x->fd >= 0)
            close(x->fd);
        x->fd = -1;
        rc = connect_to(x, i->ai_family, i->ai_protocol, i->ai_addr, i->ai_addrlen, err);
        if (rc == RC_OK || rc == RC_CANCELLED || rc == RC_TIMEOUT)
            break;
    }
    freeaddrinfo(list);
    return rc;
}

/* ---- TLS ---- */

static enum rc trust(struct exchange *x, struct err *err)
{
    const struct client_address *a = x->address;
    enum rc rc = a->tls ? tls_context_client(a->ca_file, &x->trust, err) : RC_OK;
    if (rc == RC_OK && a->unchecked)
        tls_context_accept_any(x->trust);
    return rc;
}

static enum rc not_trusted(const struct exchange *x, int why, struct err *err)
{
    char text[CLIENT_BASE_MAX + 32];
    address_text(x->address, text, sizeof text);
    if (why != EPROTO) {
        enum rc rc = err_set(err, RC_IO, "%s broke the connection off while it was being encrypted: %s", text,
                             strerror(why));
        err_hint(err, "see the server's log: it may refuse this client");
        return rc;
    }
    if (tls_distrusted(x->tls)) {
        enum rc rc = err_set(err, RC_DENIED, "%s is not trusted: %s", text, tls_why(x->tls));
        err_hint(err,
                 "name who signed its certificate with --cacert FILE or $ARRIERO_CACERT, and check the host "
                 "in the URL");
        return rc;
    }
    enum rc rc = err_set(err, RC_INVALID, "%s cannot be spoken to with TLS: %s", text, tls_why(x->tls));
    err_hint(err, "if it is a port without TLS, write http://");
    return rc;
}

/* Nothing of the request is sent before it is through. */
static enum rc shake_hands(struct exchange *x, struct err *err)
{
    if (!x->trust)
        return RC_OK;
    x->tls = tls_connect(x->trust, x->fd, x->address->host);
    if (!x->tls)
        return err_set(err, RC_NOMEM, "there is no memory for a TLS connection");
    for (int e; (e = tls_handshake(x->tls)) != 0;) {
        enum rc rc = e == EAGAIN ? wait_for(x, POLLIN, err) : not_trusted(x, e, err);
        if (rc != RC_OK)
            return rc;
    }
    return RC_OK;
}

static ssize_t send_some(struct exchange *x, struct str s)
{
    const struct iovec iov = {(void *)(uintptr_t)s.p, s.n};
    return x->tls ? tls_send(x->tls, &iov, 1) : send(x->fd, s.p, s.n, MSG_NOSIGNAL);
}

static ssize_t receive_some(struct exchange *x, void *p, size_t n)
{
    return x->tls ? tls_recv(x->tls, p, n) : recv(x->fd, p, n, 0);
}

/* ---- the request ---- */

static enum rc send_all(struct exchange *x, struct str s, struct err *err)
{
    while (s.n) {
        ssize_t n = send_some(x, s);
        if (n > 0) {
            s.p += n;
            s.n -= (size_t)n;
            continue;
        }
        if (errno == EAGAIN) {
            enum rc rc = wait_for(x, POLLOUT, err);
            if (rc != RC_OK)
                return rc;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return RC_OK; /* it may have answered before it closed: the answer says why */
        } else if (errno != EINTR) {
            return err_sys(err, RC_IO, "cannot send to the daemon");
        }
    }
    return RC_OK;
}

static enum rc send_request(struct exchange *x, struct err *err)
{
    const struct client_request *r = x->request;
    const struct client_address *a = x->address;
    struct buf head = {0};
    buf_printf(&head, "%s %s%s HTTP/1.1\r\n", r->method, a->base, r->path);
    if (a->local)
        buf_puts(&head, "Host: localhost\r\n");
    else
        buf_printf(&head, strchr(a->host, ':') ? "Host: [%s]:%s\r\n" : "Host: %s:%s\r\n", a->host, a->port);
    buf_puts(&head, "User-Agent: arriero/" ARRIERO_VERSION "\r\nConnection: close\r\n");
    if (r->bearer)
        buf_printf(&head, "Authorization: Bearer %s\r\n", r->bearer);
    if (r->body.n || strcmp(r->method, "POST") == 0)
        buf_printf(&head, "Content-Type: application/json\r\nContent-Length: %zu\r\n", r->body.n);
    buf_puts(&head, "\r\n");
    enum rc rc = send_all(x, buf_str(&head), err);
    buf_release(&head);
    return rc == RC_OK ? send_all(x, r->body, err) : rc;
}

/* ---- llhttp's callbacks: 0 goes on, HPE_USER (-1) ends with the parser's error ---- */

static int count_header(llhttp_t *p, const char *at, size_t n)
{
    (void)at;
    struct exchange *x = p->data;
    x->header_bytes += n;
    if (x->header_bytes <= CLIENT_HEADER_MAX)
        return 0;
    llhttp_set_error_reason(p, "the answer's head is too long");
    return HPE_USER;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct exchange *x = p->data;
    struct str piece = {at, n};
    if (x->stopped)
        return 0;
    if (p->status_code / 100 != 2) {
        if (x->error_body.n + n <= ERROR_BODY_MAX)
            buf_put_str(&x->error_body, piece);
    } else if (!x->fn(x->arg, piece)) {
        x->stopped = true;
    }
    return 0;
}

static int on_complete(llhttp_t *p)
{
    struct exchange *x = p->data;
    if (p->status_code / 100 == 1) /* an interim answer: the real one follows */
        return 0;
    x->complete = true;
    return HPE_PAUSED;
}

static enum rc broken(const struct exchange *x, const char *why, struct err *err)
{
    char text[CLIENT_BASE_MAX + 32];
    enum rc rc = err_set(err, RC_BACKEND, "the answer of %s broke off: %s",
                         address_text(x->address, text, sizeof text), why);
    err_hint(err, "arriero status and the daemon's log say more");
    return rc;
}

static enum rc read_answer(struct exchange *x, struct err *err)
{
    static const llhttp_settings_t settings = {
        .on_header_field = count_header,
        .on_header_value = count_header,
        .on_status = count_header,
        .on_body = on_body,
        .on_message_complete = on_complete,
    };
    auto_free char *bytes = mem_calloc(1, READ_BYTES);
    llhttp_init(&x->parser, HTTP_RESPONSE, &settings);
    x->parser.data = x;
    while (!x->complete && !x->stopped) {
        ssize_t n = receive_some(x, bytes, READ_BYTES);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            enum rc rc = wait_for(x, POLLIN, err);
            if (rc != RC_OK)
                return rc;
            continue;
        }
        if (n < 0)
            return broken(x, strerror(errno), err);
        enum llhttp_errno e = n ? llhttp_execute(&x->parser, bytes, (size_t)n) : llhttp_finish(&x->parser);
        if (e != HPE_OK && e != HPE_PAUSED && !x->stopped) {
            const char *why = llhttp_get_error_reason(&x->parser);
            return broken(x, why && why[0] ? why : llhttp_errno_name(e), err);
        }
        if (n == 0 && !x->complete)
            return broken(x, "the connection closed before its end", err);
    }
    return RC_OK;
}

/* ---- errors in answers ---- */

static enum rc rc_of_answer(struct str word, unsigned status)
{
    static const struct {
        enum rc code;
        const char *word;
        unsigned http;
    } table[] = {
#define RC(name, value, word, http) {name, word, http},
#include "base/rc.def"
#undef RC
    };
    for (size_t i = 1; i < TABLE_COUNT(table); i++)
        if (str_eq_c(word, table[i].word))
            return table[i].code;
    for (size_t i = 1; i < TABLE_COUNT(table); i++)
        if (status == table[i].http)
            return table[i].code;
    return RC_BACKEND;
}

/* {"error":{"message","hint","code"}}, OpenAI's form of it, or any other body. */
static enum rc answer_error(struct exchange *x, struct err *err)
{
    unsigned status = x->parser.status_code;
    yyjson_doc *doc = NULL;
    struct str message = STR(""), hint = STR(""), code = STR("");
    if (json_parse(buf_str(&x->error_body), "the daemon's answer", &doc, NULL) == RC_OK) {
        yyjson_val *root = yyjson_doc_get_root(doc), *e = yyjson_obj_get(root, "error");
        if (yyjson_is_str(e))
            message = (struct str){yyjson_get_str(e), yyjson_get_len(e)};
        message = json_str(e, "message", message);
        hint = json_str(e, "hint", hint);
        code = json_str(e, "code", code);
    }
    enum rc rc = rc_of_answer(code, status);
    char text[CLIENT_BASE_MAX + 32];
    if (message.n)
        rc = err_set(err, rc, "%.*s", STR_ARG(message));
    else
        rc = err_set(err, rc, "%s answered %s with status %u", address_text(x->address, text, sizeof text),
                     x->request->path, status);
    if (hint.n)
        err_hint(err, "%.*s", STR_ARG(hint));
    yyjson_doc_free(doc);
    return rc;
}

enum rc client_stream(const struct client_address *a, const struct client_request *r, client_body_fn fn,
                      void *arg, struct err *err)
{
    struct exchange x = {.address = a, .request = r, .fd = -1, .fn = fn, .arg = arg};
    if (r->timeout_ms)
        x.deadline_ms = clock_mono_ms() + r->timeout_ms;
    enum rc rc = trust(&x, err);
    if (rc == RC_OK)
        rc = open_connection(&x, err);
    if (rc == RC_OK)
        rc = shake_hands(&x, err);
    if (rc == RC_OK)
        rc = send_request(&x, err);
    if (rc == RC_OK)
        rc = read_answer(&x, err);
    if (rc == RC_OK && x.parser.status_code / 100 != 2)
        rc = answer_error(&x, err);
    if (x.tls)
        tls_goodbye(x.tls);
    tls_free(x.tls);
    tls_context_free(x.trust);
    if (x.fd >= 0)
        close(x.fd);
    buf_release(&x.error_body);
    return rc;
}

static bool collect(void *arg, struct str piece)
{
    return buf_put_str(arg, piece);
}

enum rc client_json(const struct client_address *a, const struct client_request *r, yyjson_doc **ret_doc,
                    struct err *err)
{
    struct buf body = {.max = CLIENT_BODY_MAX};
    enum rc rc = client_stream(a, r, collect, &body, err);
    if (rc == RC_OK && body.failed)
        rc = err_set(err, RC_LIMIT, "the daemon's answer is longer than %zu MiB", CLIENT_BODY_MAX >> 20);
    if (rc == RC_OK)
        rc = json_parse(buf_str(&body), "the daemon's answer", ret_doc, err);
    buf_release(&body);
    return rc;
}

void client_escape(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     (c && strchr("-._~", c));
        buf_printf(out, plain ? "%c" : "%%%02X", c);
    }
}
