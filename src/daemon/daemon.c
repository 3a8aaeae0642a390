/* Start, signals, stop. Layer daemon; the main thread, which runs the loop.
 *
 * Start: configuration, lock, store, first sample, loop, catalog (work pool), then pool, listeners, ready.
 * Stop: listeners close and requests end while the pool drains; when both are through, the handles close, the
 * loop ends, and what is queued for the history is written. */
#include "daemon/daemon_priv.h"

#include "base/clock.h"
#include "base/log.h"
#include "daemon/notify.h"
#include "daemon/pressure.h"
#include "os/file.h"
#include "proxy/sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- options of the modules ---- */

void daemon_pool_options(struct daemon *d, struct pool_options *ret)
{
    const struct config *c = d->config;
    pool_options_default(ret);
    ret->loop = d->loop;
    ret->runtime_binary = c->llama_server[0] ? c->llama_server : NULL;
    ret->log_dir = d->log_dir[0] ? d->log_dir : NULL;
    ret->roster_dir = d->detaches ? d->roster_dir : NULL;
    ret->host_reserve_bytes = c->reserve_host;
    ret->n_budgets = 0;
    for (size_t i = 0; i < c->n_budgets && i < TABLE_COUNT(ret->budgets); i++) {
        snprintf(ret->budgets[i].device, sizeof ret->budgets[i].device, "%s", c->budgets[i].device);
        ret->budgets[i].bytes = c->budgets[i].bytes;
        ret->n_budgets++;
    }
    ret->load_timeout_ms = c->load_timeout;
    ret->drain_timeout_ms = c->drain_timeout;
    ret->stop_timeout_ms = c->stop_timeout;
    ret->max_waiting = c->max_waiting;
    ret->surplus = c->slot_surplus;
    ret->max_overtaken = c->max_overtaken;
    ret->starvation_ms = c->starvation;
    ret->queue_wait_ms = (uint32_t)c->queue_wait; /* bounded to a day */
    ret->patience_ms = c->patience;
    ret->min_residence_ms = c->min_residence;
    ret->loads_at_once = c->loads_at_once;
    ret->kv_dir = d->kv_dir[0] ? d->kv_dir : NULL;
    ret->kv_quota = c->kv_quota;
    ret->kv_save_ms = c->kv_save_time;
    ret->kv_min_tokens = c->kv_min_tokens;
    ret->yields = c->memory_yield;
    ret->yield_after_ms = c->yield_after;
    ret->oom_score_adj = c->oom_score;
    ret->heat_dwell_ms = c->heat_dwell;
}

/* The names that this machine goes by. */
static const char *host_names(struct daemon *d)
{
    char own[256];
    buf_clear(&d->host_names);
    if (gethostname(own, sizeof own - 1) == 0) {
        own[sizeof own - 1] = '\0';
        (void)buf_printf(&d->host_names, "%s,%s.local", own, own);
    }
    for (size_t i = 0; i < d->config->allowed_hosts.n; i++)
        (void)buf_printf(&d->host_names, ",%s", d->config->allowed_hosts.items[i]);
    return d->host_names.data;
}

static const struct auth_spec *join_keys(struct daemon *d)
{
    size_t n = d->given.n + d->ring.n;
    d->key_specs = mem_realloc(d->key_specs, n + 1, sizeof *d->key_specs);
    if (d->given.n)
        memcpy(d->key_specs, d->given.specs, d->given.n * sizeof *d->key_specs);
    if (d->ring.n)
        memcpy(d->key_specs + d->given.n, d->ring.specs, d->ring.n * sizeof *d->key_specs);
    return d->key_specs;
}

static bool is_loopback(const char *address)
{
    struct sockaddr_storage sa;
    socklen_t n;
    if (sock_parse_address(address, &sa, &n, NULL) != RC_OK)
        return false;
    if (sa.ss_family == AF_INET)
        return ntohl(((struct sockaddr_in *)&sa)->sin_addr.s_addr) >> 24 == 127;
    const struct in6_addr *a = &((struct sockaddr_in6 *)&sa)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(a) || (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == 127);
}

static bool is_exposed(const struct config *c)
{
    bool beyond = false;
    for (size_t i = 0; i < c->listen.n; i++)
        beyond |= !is_loopback(c->listen.items[i]);
    for (size_t i = 0; i < c->control_listen.n; i++)
        beyond |= !is_loopback(c->control_listen.items[i]);
    return beyond;
}

void daemon_http_options(struct daemon *d, struct http_options *ret)
{
    const struct config *c = d->config;
    http_options_default(ret);
    ret->loop = d->loop;
    route_ops_init(d, &ret->route);
    ret->max_body_bytes = c->max_body;
    ret->body_budget_bytes = c->body_budget;
    ret->header_timeout_ms = c->header_timeout;
    ret->idle_timeout_ms = c->idle_timeout;
    ret->write_timeout_ms = c->write_timeout;
    ret->connect_timeout_ms = c->connect_timeout;
    ret->retry_max = c->retry_max;
    ret->retry_base_ms = c->retry_base;
    ret->retry_longest_ms = c->retry_longest;
    ret->first_byte_ms = c->first_byte;
    ret->event_gap_ms = c->event_gap;
    ret->total_ms = c->total_time;
    ret->max_connections = c->max_connections;
    ret->half_close_keep = strcmp(c->half_close, "keep") == 0;
    ret->cors_origin = strcmp(c->cors_origin, "none") == 0 ? "" : c->cors_origin;
    ret->allowed_hosts = host_names(d);
    ret->collect_plain = c->collect_plain;
    ret->embed_batch = c->embed_batch;
    ret->embed_join_ms = c->embed_join;
    ret->record = events_request;
    ret->record_arg = d;
    ret->tls = d->tls;
    ret->keys = join_keys(d);
    ret->n_keys = d->given.n + d->ring.n;
    ret->keys_required = d->given.found || d->ring.found || (is_exposed(c) && !c->insecure);
}

void daemon_set_ring(struct daemon *d, struct key_set *ring)
{
    struct key_set old = d->ring;
    struct http_options opt;
    d->ring = *ring;
    d->ring_serial++;
    *ring = (struct key_set){0};
    daemon_http_options(d, &opt);
    http_server_configure(d->server, &opt);
    key_set_release(&old);
}

/* ---- hooks ---- */

static const struct hw_inventory *on_inventory(void *arg)
{
    return sampler_latest(((struct daemon *)arg)->sampler);
}

static void on_want_sample(void *arg)
{
    sampler_want(((struct daemon *)arg)->sampler);
}

static bool on_why_not(void *arg, struct str name, struct err *err)
{
    return model_set_why_not(((struct daemon *)arg)->set, name, err);
}

static void on_fresh(void *arg)
{
    struct daemon *d = arg;
    d->doing = "a sample of the machine";
    if (d->pool && !d->pool_stopped)
        pool_inventory_changed(d->pool);
    levels_look(d);
}

/* The kernel reports pressure sooner than the next reading is due. */
static void on_pressure(void *arg, enum yield_level level)
{
    struct daemon *d = arg;
    d->doing = "memory pressure";
    if (!d->pool || d->pool_stopped)
        return;
    pool_pressure(d->pool, level);
    if (level > YIELD_CALM)
        sampler_want(d->sampler);
}

/* ---- places ---- */

static enum rc check_open(const struct config *c, size_t n_keys, struct err *err)
{
    const struct config_list *lists[] = {&c->listen, &c->control_listen};
    for (size_t l = 0; l < TABLE_COUNT(lists); l++)
        for (size_t i = 0; i < lists[l]->n; i++) {
            struct sockaddr_storage sa;
            socklen_t n;
            const char *address = lists[l]->items[i];
            enum rc rc = sock_parse_address(address, &sa, &n, err);
            if (rc != RC_OK)
                return rc;
            if (n_keys || c->insecure || is_loopback(address))
                continue;
            rc = err_set(err, RC_DENIED, "%s can be reached from other machines, and there are no API keys",
                         address);
            err_hint(err, "make one with arriero key add NAME, listen on 127.0.0.1, or allow it with "
                          "insecure: true");
            return rc;
        }
    return RC_OK;
}

enum rc daemon_load_tls(const struct config *c, struct tls_context **ret_context, struct err *err)
{
    return c->tls_cert[0] ? tls_context_server(c->tls_cert, c->tls_key, ret_context, err) : RC_OK;
}

/* Two daemons on one state directory would mix their histories. Without a directory there is nothing to
 * share. */
static enum rc lock_state_dir(struct daemon *d, struct err *err)
{
    char path[4200];
    struct err why;
    d->lock_fd = -1;
    if (file_mkdirs(d->state_dir, 0700, &why) != RC_OK) {
        log_warn("%s: history and logs cannot be kept there", why.message);
        return RC_OK;
    }
    snprintf(path, sizeof path, "%s/arriero.lock", d->state_dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        log_warn("cannot open %s: %s; nothing keeps a second daemon from %s", path, strerror(errno),
                 d->state_dir);
        return RC_OK;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        char text[32] = "";
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        close(fd);
        uint64_t pid = 0;
        bool known = n > 0 && str_u64(str_trim((struct str){text, (size_t)n}), &pid);
        enum rc rc = known ? err_set(err, RC_BUSY, "the state directory %s is in use by process %llu",
                                     d->state_dir, (unsigned long long)pid)
                           : err_set(err, RC_BUSY, "the state directory %s is in use", d->state_dir);
        err_hint(err, "stop the other daemon, or choose another directory with --state-dir");
        return rc;
    }
    struct stat locked, named;
    if (fstat(fd, &locked) != 0 || stat(path, &named) != 0 || locked.st_ino != named.st_ino ||
        locked.st_dev !=
            named.st_dev) { /* somebody took it away meanwhile: whoever comes next gets another */
        close(fd);
        return err_set(err, RC_BUSY, "%s was replaced while it was locked: start the daemon again", path);
    }
    char text[32];
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n)
        log_debug("cannot write %s: %s", path, strerror(errno));
    d->lock_fd = fd;
    return RC_OK;
}

static void find_places(struct daemon *d)
{
    const struct config *c = d->config;
    if (c->state_dir[0])
        snprintf(d->state_dir, sizeof d->state_dir, "%s", c->state_dir);
    else
        file_dir(FILE_DIR_STATE, d->state_dir, sizeof d->state_dir);
    snprintf(d->history_path, sizeof d->history_path, "%s/history.db", d->state_dir);
    if (c->kv_dir[0]) {
        snprintf(d->kv_dir, sizeof d->kv_dir, "%s", c->kv_dir);
    } else {
        char cache[4096];
        file_dir(FILE_DIR_CACHE, cache, sizeof cache);
        snprintf(d->kv_dir, sizeof d->kv_dir, "%s/kv", c->state_dir[0] ? d->state_dir : cache);
    }
    char runtime[480];
    if (c->socket[0]) {
        snprintf(d->socket, sizeof d->socket, "%s", c->socket);
    } else {
        file_dir(FILE_DIR_RUNTIME, runtime, sizeof runtime);
        snprintf(d->socket, sizeof d->socket, "%s/arriero.sock", runtime);
    }
}

static void find_log_dir(struct daemon *d)
{
    struct err err;
    snprintf(d->log_dir, sizeof d->log_dir, "%s/logs", d->state_dir);
    if (d->lock_fd >= 0 && file_mkdirs(d->log_dir, 0700, &err) == RC_OK)
        return;
    if (d->lock_fd >= 0)
        log_err(LOG_WARN, "instances' logs are kept in memory only", &err);
    d->log_dir[0] = '\0';
}

/* Instances outlive the daemon only where the next one finds them, and can see their end. */
static void find_roster_dir(struct daemon *d)
{
    struct err err;
    enum config_switch wanted = d->config->detach;
    bool wish = wanted == CONFIG_SWITCH_ON || (wanted == CONFIG_SWITCH_AUTO && notify_unit_spares_children());
    if (d->lock_fd < 0)
        (void)err_set(&err, RC_DENIED, "the state directory %s cannot be used", d->state_dir);
    else if (!process_can_hold())
        (void)err_set(&err, RC_UNSUPPORTED, "this kernel has no pidfd_open (Linux 5.3)");
    else if (!d->log_dir[0])
        (void)err_set(&err, RC_DENIED, "there is no directory for their logs");
    else
        snprintf(d->roster_dir, sizeof d->roster_dir, "%s/instances", d->state_dir);
    if (d->roster_dir[0] && wish && file_mkdirs(d->roster_dir, 0700, &err) == RC_OK)
        d->detaches = true;
    else if (wish)
        log_err(LOG_WARN, "instances will end with the daemon, though detach is wanted", &err);
}

/* The fallback lies in /tmp, where anybody may have made the directory first: a socket in another's directory
 * could be replaced by them. */
static enum rc make_socket_dir(const struct daemon *d, struct err *err)
{
    char dir[512];
    struct stat st;
    snprintf(dir, sizeof dir, "%s", d->socket);
    char *slash = strrchr(dir, '/');
    if (!slash || slash == dir)
        return RC_OK;
    *slash = '\0';
    enum rc rc = file_mkdirs(dir, 0700, err);
    if (rc != RC_OK || d->config->socket[0])
        return rc;
    if (lstat(dir, &st) != 0)
        return err_sys(err, RC_IO, "cannot look at %s", dir);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022)) {
        rc = err_set(err, RC_DENIED, "%s does not belong to this user alone", dir);
        err_hint(err, "choose another place with --socket");
    }
    return rc;
}

/* ---- summary ---- */

static void put_machine(struct daemon *d, struct buf *out)
{
    char a[24], b[24];
    const struct hw_inventory *inv = sampler_latest(d->sampler);
    for (size_t i = 0; i < inv->n_devices; i++) {
        const struct hw_device *g = &inv->devices[i];
        buf_printf(out, "  %-12s%s %s, %s free of %s\n", i ? "" : "GPUs", g->name, g->model,
                   str_human_bytes(g->free_bytes, a, sizeof a), str_human_bytes(g->total_bytes, b, sizeof b));
    }
    if (inv->n_devices == 0)
        buf_printf(out, "  %-12snone: models run on the CPU\n", "GPUs");
    buf_printf(out, "  %-12s%u cores, %s usable of %s\n", "host", inv->host.physical_cores,
               str_human_bytes(inv->host.usable_free_bytes, a, sizeof a),
               str_human_bytes(inv->host.ram_total_bytes, b, sizeof b));
}

static void put_summary(struct daemon *d, struct buf *out)
{
    buf_printf(out, "arriero " ARRIERO_VERSION "\n");
    if (d->config->file[0])
        buf_printf(out, "  %-12s%s\n", "config", d->config->file);
    buf_printf(out, "  %-12s%zu found", "models", d->set->n);
    for (size_t i = 0; i < d->set->n && i < 4; i++)
        buf_printf(out, "%s%s", i ? ", " : ": ", d->set->models[i].id);
    buf_puts(out, d->set->n > 4 ? ", …\n" : "\n");
    put_machine(d, out);
    if (d->runtime_path[0])
        buf_printf(out, "  %-12s%s\n", "runtime", d->runtime_path);
    else
        buf_printf(out, "  %-12sno llama-server: %s\n", "runtime", d->runtime_err.hint);
    struct store_health h;
    store_health(d->store, &h);
    buf_printf(out, "  %-12s%s%s%s\n", "history", h.writable ? d->history_path : "in memory only",
               h.message[0] ? ": " : "", h.message);
    size_t n = 0;
    for (size_t i = 0; http_server_address(d->server, i)[0]; i++)
        if (http_server_scheme(d->server, i)[0])
            buf_printf(out, "  %-12s%s://%s/v1\n", n++ ? "" : "address", http_server_scheme(d->server, i),
                       http_server_address(d->server, i));
    buf_printf(out, "  %-12s%s\n", "socket", d->socket);
    size_t keys = d->given.n + d->ring.n;
    if (keys)
        buf_printf(out, "  %-12s%zu API key%s\n", "keys", keys, keys == 1 ? "" : "s");
}

/* ---- serving ---- */

static bool wants_tls(const struct config *c, const char *address)
{
    struct str s = str_from(address);
    return str_starts(s, "https://") || (c->tls_cert[0] && !str_starts(s, "http://"));
}

static enum rc listen_all(struct daemon *d, struct err *err)
{
    const struct config_list *lists[] = {&d->config->listen, &d->config->control_listen};
    for (size_t l = 0; l < TABLE_COUNT(lists); l++)
        for (size_t i = 0; i < lists[l]->n; i++) {
            const char *address = lists[l]->items[i];
            unsigned flags =
                (l ? HTTP_LISTEN_CONTROL : 0) | (wants_tls(d->config, address) ? HTTP_LISTEN_TLS : 0);
            enum rc rc = http_listen_tcp(d->server, address, flags, err);
            if (rc != RC_OK)
                return rc;
        }
    enum rc rc = make_socket_dir(d, err);
    return rc == RC_OK ? http_listen_unix(d->server, d->socket, true, err) : rc;
}

static void on_teach(void *arg, const struct model *m, const char *runtime, bool flash_attn,
                     struct plan_machine *machine)
{
    const struct daemon *d = arg;
    knowledge_apply(d->knowledge, m, runtime, flash_attn, machine);
}

static void on_lesson(void *arg, const char *model, const struct learn_sample *s)
{
    struct daemon *d = arg;
    (void)knowledge_lesson(d->knowledge, d->store, model, clock_wall_ms(), s);
}

enum rc daemon_begin_serving(struct daemon *d, struct err *err)
{
    struct pool_options pool_opt;
    struct http_options http_opt;
    daemon_pool_options(d, &pool_opt);
    pool_opt.hooks = (struct pool_hooks){.arg = d,
                                         .decision = events_decision,
                                         .transition = events_transition,
                                         .inventory = on_inventory,
                                         .want_sample = on_want_sample,
                                         .why_not = on_why_not,
                                         .line = listeners_line,
                                         .teach = on_teach,
                                         .lesson = on_lesson};
    enum rc rc = pool_new(&pool_opt, &d->pool, err);
    if (rc != RC_OK)
        return rc;
    pool_set_models(d->pool, d->set->models, d->set->n);
    pool_adopt(d->pool, take_ptr(d->roster));
    daemon_http_options(d, &http_opt);
    http_opt.routes = d->routes = routes_make(d, &http_opt.n_routes);
    rc = http_server_new(&http_opt, &d->server, err);
    if (rc == RC_OK)
        rc = listen_all(d, err);
    if (rc != RC_OK)
        return rc;
    d->serving = true;
    if (!d->runtime_path[0])
        log_err(LOG_WARN, "nothing can be loaded", &d->runtime_err);
    struct buf summary = {0};
    put_summary(d, &summary);
    if (d->opt->ready)
        d->opt->ready(d->opt->arg, buf_str(&summary));
    buf_release(&summary);
    notify_send("READY=1\nSTATUS=%zu models", d->set->n);
    preload_begin(d);
    return RC_OK;
}

/* ---- stopping ---- */

static void close_handles(struct daemon *d)
{
    uv_close((uv_handle_t *)&d->on_term, NULL);
    uv_close((uv_handle_t *)&d->on_int, NULL);
    uv_close((uv_handle_t *)&d->on_hup, NULL);
    uv_close((uv_handle_t *)&d->stop_timer, NULL);
    watchdog_stop(d);
    remote_set_stop(d->remotes);
    pressure_stop(take_ptr(d->pressure));
    power_ended(d, sampler_stop(d->sampler));
}

static void end_if_through(struct daemon *d)
{
    if (d->pool_stopped && d->server_closed && !uv_is_closing((uv_handle_t *)&d->on_term))
        close_handles(d);
}

static void on_pool_stopped(void *arg)
{
    struct daemon *d = arg;
    d->pool_stopped = true;
    /* No instance is left to answer from: what still hangs on a connection cannot end well. */
    if (!d->server_closed)
        http_server_abort(d->server);
    end_if_through(d);
}

static void on_server_closed(void *arg)
{
    struct daemon *d = arg;
    d->server_closed = true;
    end_if_through(d);
}

static void on_stop_timer(uv_timer_t *t)
{
    struct daemon *d = t->data;
    log_warn("requests did not end in time: they are cut off");
    daemon_stop(d, true);
}

void daemon_stop(struct daemon *d, bool hurry)
{
    if (d->stopping && (!hurry || d->hurried))
        return;
    bool first = !d->stopping;
    d->stopping = true;
    d->hurried |= hurry;
    if (first) {
        notify_send("STOPPING=1");
        listeners_end(d);
        uint64_t ms = d->config->drain_timeout + 2 * d->config->stop_timeout + 5000;
        uv_timer_start(&d->stop_timer, on_stop_timer, ms, 0);
        d->pool_stopped = !d->pool;
        d->server_closed = !d->server;
        if (d->server)
            http_server_drain(d->server, on_server_closed, d);
    }
    if (hurry && d->server && !d->server_closed)
        http_server_abort(d->server);
    if (d->pool && !d->pool_stopped)
        pool_stop(d->pool, hurry, on_pool_stopped, d);
    end_if_through(d);
}

static void on_signal(uv_signal_t *s, int signo)
{
    struct daemon *d = s->data;
    if (signo == SIGHUP) {
        reload_begin(d, false);
        return;
    }
    log_info(d->stopping ? "%s again: ending at once" : "%s: ending when running requests have ended",
             signo == SIGINT ? "SIGINT" : "SIGTERM");
    if (signo == SIGINT && !d->stopping && d->pool) /* a person at a terminal, or a unit that is stopped */
        pool_keep_none(d->pool);
    daemon_stop(d, d->stopping);
}

static void start_signals(struct daemon *d)
{
    const struct {
        uv_signal_t *handle;
        int signo;
    } rows[] = {{&d->on_term, SIGTERM}, {&d->on_int, SIGINT}, {&d->on_hup, SIGHUP}};
    for (size_t i = 0; i < TABLE_COUNT(rows); i++) {
        uv_signal_init(d->loop, rows[i].handle);
        rows[i].handle->data = d;
        uv_signal_start(rows[i].handle, on_signal, rows[i].signo);
    }
    uv_timer_init(d->loop, &d->stop_timer);
    d->stop_timer.data = d;
}

/* ---- the whole ---- */

/* Thousands of streams need a descriptor each, on both sides. */
static void raise_file_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max < 1048576 ? r.rlim_max : 1048576;
        if (setrlimit(RLIMIT_NOFILE, &r) != 0)
            log_debug("cannot raise the limit of open files: %s", strerror(errno));
    }
}

static enum rc open_store(struct daemon *d, struct err *err)
{
    struct store_options opt;
    store_options_default(&opt);
    opt.max_age_ms = d->config->history_max_age;
    opt.capture_age_ms = d->config->capture_age;
    opt.max_requests = d->config->history_max_requests;
    enum rc rc = store_open_with(d->history_path, &opt, &d->store, err);
    if (rc != RC_OK)
        return rc;
    d->knowledge = knowledge_load(d->history_path);
    if (d->knowledge->note[0])
        log_warn("history: %s", d->knowledge->note);
    struct store_health h;
    store_health(d->store, &h);
    d->store_was_writable = h.writable;
    if (h.message[0])
        log_warn("history: %s", h.message);
    return RC_OK;
}

static enum rc prepare(struct daemon *d, struct err *err)
{
    enum log_level level;
    char keys_path[4300];
    enum rc rc = config_load(&d->opt->config, &d->config, err);
    if (rc != RC_OK)
        return rc;
    if (log_level_from(d->config->log_level, &level))
        log_setup(level, notify_stderr_is_journal());
    rc = keys_load(d->config, &d->given, err);
    keyring_path(d->config, keys_path, sizeof keys_path);
    if (rc == RC_OK)
        rc = keyring_read(keys_path, &d->ring, err);
    if (rc == RC_OK)
        rc = check_open(d->config, d->given.n + d->ring.n, err);
    if (rc == RC_OK)
        rc = daemon_load_tls(d->config, &d->tls, err);
    if (rc != RC_OK)
        return rc;
    find_places(d);
    rc = lock_state_dir(d, err);
    if (rc != RC_OK)
        return rc;
    find_log_dir(d);
    find_roster_dir(d);
    return open_store(d, err);
}

static enum rc run_loop(struct daemon *d, struct err *err)
{
    uv_loop_t loop;
    if (uv_loop_init(&loop) != 0)
        return err_sys(err, RC_IO, "cannot make the event loop");
    uv_loop_configure(&loop, UV_METRICS_IDLE_TIME);
    d->loop = &loop; /* cppcheck-suppress autoVariables ; taken back below */
    struct hw_options options = {.nvml_path = getenv("ARRIERO_NVML"),
                                 .hwmon_path = getenv("ARRIERO_HWMON"),
                                 .visible_devices = getenv("CUDA_VISIBLE_DEVICES"),
                                 .rpc = d->config->rpc.items,
                                 .n_rpc = d->config->rpc.n};
    power_wishes(d, &options);
    enum rc rc = sampler_start(&loop, &options, d->config->sample_interval, on_fresh, d, &d->sampler, err);
    if (rc == RC_OK) {
        const struct pressure_options pressure = {.loop = &loop,
                                                  .some_pct = d->config->pressure_some,
                                                  .full_pct = d->config->pressure_full,
                                                  .told = on_pressure,
                                                  .arg = d};
        d->pressure = pressure_start(&pressure);
        power_begun(d);
        start_signals(d);
        watchdog_start(d);
        reload_begin(d, true);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    pool_free(d->pool);
    http_server_free(d->server);
    if (uv_loop_close(&loop) != 0)
        log_error("a handle of the loop was left open");
    d->loop = NULL;
    return rc;
}

static void release(struct daemon *d)
{
    store_close(d->store);
    knowledge_free(d->knowledge);
    metrics_free(d->metrics);
    preload_free(d->preload);
    levels_free(d->levels);
    power_ended(d, false);
    model_set_free(d->set);
    remote_set_free(d->remotes);
    roster_free(d->roster);
    catalog_free(d->catalog);
    buf_release(&d->models_json);
    buf_release(&d->host_names);
    tls_context_free(d->tls);
    key_set_release(&d->given);
    key_set_release(&d->ring);
    free(d->key_specs);
    config_free(d->config);
    free((void *)(uintptr_t)d->routes);
    if (d->lock_fd >= 0)
        close(d->lock_fd);
    free(d);
}

enum rc daemon_run(const struct daemon_options *opt, struct err *err)
{
    struct daemon *d = mem_new(struct daemon);
    d->opt = opt;
    d->lock_fd = -1;
    d->start_wall_ms = clock_wall_ms();
    d->start_mono_ms = clock_mono_ms();
    d->metrics = metrics_new();
    d->levels = levels_new();
    signal(SIGPIPE, SIG_IGN);
    raise_file_limit();
    enum rc rc = prepare(d, err);
    if (rc == RC_OK)
        rc = run_loop(d, err);
    if (rc == RC_OK && d->failure != RC_OK) {
        rc = d->failure;
        if (err)
            *err = d->failure_err;
    }
    if (rc == RC_OK)
        log_info("stopped");
    release(d);
    return rc;
}
