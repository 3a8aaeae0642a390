/* The tests' world: see fake.h. */
#include "fake.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct fake *world; /* callbacks of the runtime carry no argument */
static uint64_t now_ms;

/* ---- clock ---- */

static uint64_t fake_now(void)
{
    return now_ms;
}

static int64_t fake_wall(void)
{
    return (int64_t)now_ms + world->wall_shift;
}

void fake_sample(struct fake *f)
{
    f->inventory.wall_ms = fake_wall();
    f->inventory.begun_ms = f->inventory.ended_ms = now_ms;
}

void fake_advance_ms(uint64_t ms)
{
    now_ms += ms;
}

/* ---- models ---- */

struct fake_model *fake_model(struct fake *f, const char *id)
{
    for (size_t i = 0; i < f->n_models; i++)
        if (strcmp(f->models[i].id, id) == 0)
            return &f->models[i];
    return NULL;
}

static enum rc facts(const char *path, struct model **ret_model, struct err *err)
{
    if (world->bad_facts)
        return err_set(err, RC_TRUNCATED, "%s is shorter than its tensors", path);
    struct fake_model *m = fake_model(world, path + strlen("/m/"));
    if (!m)
        return err_set(err, RC_NOT_FOUND, "%s is not there", path);
    m->facts.path = m->path;
    __atomic_add_fetch(&m->references, 1, __ATOMIC_SEQ_CST);
    *ret_model = &m->facts;
    return RC_OK;
}

static void facts_unref(struct model *m)
{
    struct fake_model *owner = container_of(m, struct fake_model, facts);
    __atomic_sub_fetch(&owner->references, 1, __ATOMIC_SEQ_CST);
}

/* "projector P, adapter A*0.5, draft D 3 0" */
static void describe(const struct plan_extras *x, char *out, size_t cap)
{
    struct buf b = {0};
    buf_puts(&b, "");
    if (x && x->projector)
        buf_printf(&b, "projector %s, ", x->projector->path);
    for (uint32_t i = 0; x && i < x->n_adapters; i++)
        buf_printf(&b, "adapter %s*%.2g, ", x->adapters[i]->path, (double)x->adapter_scale[i]);
    if (x && x->draft)
        buf_printf(&b, "draft %s %u %u %d %s", x->draft->path, x->draft_tokens, x->draft_least,
                   x->draft_gpu_layers, x->draft_device ? x->draft_device : "-");
    snprintf(out, cap, "%.*s", STR_ARG(buf_str(&b)));
    buf_release(&b);
}

/* ---- planner: everything on the host, oldest idle residents leave ---- */

static enum rc pack_file(const struct model *m, uint32_t ladder, const struct plan_machine *machine,
                         const struct plan_resident *residents, size_t n_residents, struct plan *plan,
                         struct plan_victims *victims, struct err *err)
{
    struct fake_model *owner = container_of((struct model *)(uintptr_t)m, struct fake_model, facts);
    uint64_t need = owner->bytes >> ladder, have = machine->host.free_bytes;
    bool taken[PLAN_MAX_RESIDENTS] = {false};
    victims->n = 0;
    if (owner->least && have >= owner->least && have < need)
        need = have;
    while (have < need) {
        size_t best = n_residents;
        for (size_t i = 0; i < n_residents; i++)
            if (residents[i].evictable && !taken[i] && residents[i].host_bytes > 0 &&
                (best == n_residents || residents[i].idle_ms > residents[best].idle_ms))
                best = i;
        if (best == n_residents)
            return err_set(err, RC_NO_FIT, "%s needs %llu MiB", owner->id, (unsigned long long)(need / MIB));
        taken[best] = true;
        have += residents[best].host_bytes;
        victims->index[victims->n++] = (uint32_t)best;
    }
    *plan = (struct plan){.fits = true, .n_reasons = 1, .smaller = PLAN_AS_ASKED};
    reason_set(&plan->reasons[0], "cpu_no_gpu", "no GPU");
    plan->estimate.n_parts = world->n_parts ? world->n_parts : 1;
    for (size_t i = 0; i < plan->estimate.n_parts; i++)
        plan->estimate.parts[i] = (struct plan_part){.name = "Host", .kind = PLAN_HOST};
    plan->estimate.parts[0].model_bytes = need;
    plan->estimate.parts[plan->estimate.n_parts - 1].checkpoint_bytes = world->checkpoint_bytes;
    plan->speed.load_seconds = 2;
    return RC_OK;
}

/* A smaller file takes the place of one that does not fit, or has no rung left. */
static enum rc pack(const struct model *m, const struct plan_policy *policy,
                    const struct plan_machine *machine, const struct plan_resident *residents,
                    size_t n_residents, struct plan *plan, struct plan_victims *victims, struct err *err)
{
    uint32_t ladder = policy->ladder;
    describe(policy->base ? policy->base->extras : NULL, world->planned_beside, sizeof world->planned_beside);
    if (world->n_asked < TABLE_COUNT(world->ladders_asked))
        world->ladders_asked[world->n_asked] = ladder;
    world->n_asked++;
    enum rc rc = RC_NO_FIT;
    if (policy->n_smaller == 0 || ladder <= world->rungs)
        rc = pack_file(m, ladder, machine, residents, n_residents, plan, victims, err);
    for (uint32_t i = 0; i < policy->n_smaller && rc == RC_NO_FIT; i++) {
        ladder -= ladder <= world->rungs ? 0 : world->rungs + 1;
        rc = pack_file(policy->smaller[i], ladder, machine, residents, n_residents, plan, victims, err);
        if (rc == RC_OK) {
            plan->smaller = (int32_t)i;
            reason_set(&plan->reasons[plan->n_reasons++], "smaller_quantization", "it takes its place");
        }
    }
    if (rc == RC_OK)
        plan->estimate.params =
            (struct plan_params){.ctx = policy->ctx_min ? policy->ctx_min : 4096, .parallel = world->slots};
    return rc;
}

static void rebalance(const struct plan_machine *machine, const struct plan_loaded *loaded, size_t n,
                      struct plan_delta *ret_delta)
{
    *ret_delta = (struct plan_delta){0};
    if (world->on_rebalance)
        world->on_rebalance(machine, loaded, n, ret_delta);
}

/* ---- runtime ---- */

static enum rc find_runtime(const char *explicit_path, char *ret_path, size_t cap, struct err *err)
{
    if (world->no_runtime) {
        enum rc rc = err_set(err, RC_NOT_FOUND, "no llama-server");
        err_hint(err, "install it");
        return rc;
    }
    snprintf(ret_path, cap, "%s", explicit_path ? explicit_path : "/bin/true");
    return RC_OK;
}

static enum rc probe(const char *binary, struct runtime_caps *ret_caps, struct err *err)
{
    __atomic_add_fetch(&world->probes, 1, __ATOMIC_SEQ_CST);
    if (world->probe_gate)
        uv_sem_wait(world->probe_gate);
    if (world->bad_probe)
        return err_set(err, RC_TIMEOUT, "%s did not end within 5000 ms", binary);
    *ret_caps = world->caps;
    snprintf(ret_caps->binary, sizeof ret_caps->binary, "%s", binary);
    return RC_OK;
}

static enum rc command(const struct runtime_caps *caps, const struct runtime_job *job, struct arena *arena,
                       struct runtime_command *ret_command, struct err *err)
{
    static const char *env[] = {NULL};
    if (world->bad_command)
        return err_set(err, RC_UNSUPPORTED, "no command line for %s", job->model_path);
    snprintf(world->launched, sizeof world->launched, "%s", job->model_path);
    describe(job->extras, world->launched_beside, sizeof world->launched_beside);
    const char **argv = arena_array(arena, 5, sizeof *argv);
    argv[0] = arena_printf(arena, "%s", caps->binary);
    argv[1] = arena_printf(arena, "%s", job->served_name);
    argv[2] = arena_printf(arena, "%u", job->port);
    argv[3] = job->n_extra_args ? arena_printf(arena, "%s", job->extra_args[0]) : NULL;
    *ret_command = (struct runtime_command){.argv = argv, .env = env};
    return RC_OK;
}

static double log_line(struct str line, struct runtime_measured *measured)
{
    measured->n_parts = world->n_parts ? world->n_parts : 1;
    for (size_t i = 0; i < measured->n_parts; i++)
        measured->parts[i] = (struct plan_part){.name = "Host", .kind = PLAN_HOST, .model_bytes = 399 * MIB};
    return str_eq_c(line, "listening") ? 1 : -1;
}

static enum runtime_failure classify(int wait_status, struct str tail, struct err *cause)
{
    (void)err_set(cause, RC_BACKEND, "child ended with %d: %.*s", wait_status, STR_ARG(tail));
    if (str_find(tail, STR("out of memory")) >= 0)
        return RUNTIME_FAIL_MEMORY;
    return str_find(tail, STR("port taken")) >= 0 ? RUNTIME_FAIL_PORT : RUNTIME_FAIL_EXIT;
}

/* "ID BUSY REQUEST TOKENS" a line; "TOKENS BYTES" */
static bool read_slots(struct str answer, struct runtime_slot *out, size_t cap, size_t *ret_n)
{
    size_t n = 0;
    while (answer.n > 0 && n < cap) {
        struct str line = str_cut(&answer, '\n');
        uint64_t v[4];
        for (int i = 0; i < 4; i++)
            if (!str_u64(str_cut(&line, ' '), &v[i]))
                return false;
        out[n++] = (struct runtime_slot){(uint32_t)v[0], v[1] != 0, v[2], (uint32_t)v[3]};
    }
    *ret_n = n;
    return true;
}

static bool ask_slot(bool save, uint32_t slot, const char *file, char *path, size_t path_cap, char *body,
                     size_t body_cap)
{
    snprintf(path, path_cap, "/%s/%u", save ? "save" : "restore", slot);
    snprintf(body, body_cap, "%s", file);
    return true;
}

static bool read_done(struct str answer, uint32_t *ret_tokens, uint64_t *ret_bytes)
{
    uint64_t tokens;
    if (!str_u64(str_cut(&answer, ' '), &tokens) || !str_u64(answer, ret_bytes))
        return false;
    *ret_tokens = (uint32_t)tokens;
    return true;
}

static const struct runtime_slots slots = {
    .list_path = "/list", .read_list = read_slots, .ask = ask_slot, .read_done = read_done};

static const struct runtime_ops runtime = {.name = "fake",
                                           .slots = &slots,
                                           .probe = probe,
                                           .command = command,
                                           .health_path = "/health",
                                           .log_line = log_line,
                                           .classify = classify};

/* ---- launcher ---- */

struct launch_job {
    struct launch_job *next;
    struct fake *fake;
    struct fake_model *model;
    struct launch_events events;
    void *arg;
    enum behaviour behaviour;
    uv_tcp_t listener;
    uv_timer_t timer;
    unsigned handles;
    bool mute, over, closing;
    int status;
    char tail[64];
    void (*closed)(void *arg);
    void *closed_arg;
};

struct peer {
    uv_tcp_t tcp;
    uv_write_t write;
    char in[512];
    struct buf out;
};

static void on_peer_closed(uv_handle_t *h)
{
    struct peer *p = h->data;
    buf_release(&p->out);
    free(p);
}

static void on_peer_written(uv_write_t *w, int status)
{
    (void)status;
    uv_close((uv_handle_t *)w->handle, on_peer_closed);
}

static void on_peer_alloc(uv_handle_t *h, size_t n, uv_buf_t *b)
{
    (void)n;
    struct peer *p = h->data;
    *b = uv_buf_init(p->in, sizeof p->in);
}

static void on_peer_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct peer *p = s->data;
    struct str request = {p->in, n > 0 ? (size_t)n : 0};
    (void)b;
    if (n <= 0) {
        uv_close((uv_handle_t *)s, on_peer_closed);
        return;
    }
    if (str_starts(request, "GET /health "))
        buf_puts(&p->out, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    else
        assert_true(world->serve && world->serve(world, request, &p->out));
    if (p->out.n == 0) /* no answer: until the other side has enough */
        return;
    uv_read_stop(s);
    uv_buf_t out = uv_buf_init(p->out.data, (unsigned)p->out.n);
    uv_write(&p->write, s, &out, 1, on_peer_written);
}

static void on_connection(uv_stream_t *s, int status)
{
    struct launch_job *j = s->data;
    struct peer *p = mem_new(struct peer);
    assert_int_equal(status, 0);
    uv_tcp_init(s->loop, &p->tcp);
    p->tcp.data = p;
    assert_int_equal(uv_accept(s, (uv_stream_t *)&p->tcp), 0);
    if (j->mute || j->behaviour == CHILD_HANG)
        uv_close((uv_handle_t *)&p->tcp, on_peer_closed);
    else
        uv_read_start((uv_stream_t *)&p->tcp, on_peer_alloc, on_peer_read);
}

static void on_job_handle_closed(uv_handle_t *h)
{
    struct launch_job *j = h->data;
    if (--j->handles > 0)
        return;
    for (struct launch_job **at = &j->fake->jobs; *at; at = &(*at)->next)
        if (*at == j) {
            *at = j->next;
            break;
        }
    j->fake->n_jobs--;
    void (*closed)(void *) = j->closed;
    void *arg = j->closed_arg;
    free(j);
    if (closed)
        closed(arg);
}

static void job_over(struct launch_job *j, int status)
{
    j->over = true;
    j->status = status;
    j->fake->n_alive--;
}

static void on_job_timer(uv_timer_t *t)
{
    struct launch_job *j = t->data;
    if (j->behaviour == CHILD_DIES_MEMORY || j->behaviour == CHILD_DIES_PORT || j->behaviour == CHILD_DIES) {
        job_over(j, 1 << 8);
        j->behaviour = CHILD_READY;
    }
    if (j->over) {
        if (j->events.exited)
            j->events.exited(j->arg, j->status);
    } else if (j->behaviour != CHILD_HANG) {
        j->events.line(j->arg, STR("listening"));
    }
}

static struct launch_job *job_new(uv_loop_t *loop, struct fake_model *m, uint16_t port,
                                  const struct launch_events *events, void *arg, enum behaviour behaviour)
{
    struct launch_job *j = mem_new(struct launch_job);
    struct sockaddr_in at;
    j->fake = world;
    j->model = m;
    j->events = *events;
    j->arg = arg;
    j->behaviour = behaviour;
    snprintf(j->tail, sizeof j->tail, "%s",
             j->behaviour == CHILD_DIES_MEMORY ? "out of memory"
             : j->behaviour == CHILD_DIES_PORT ? "port taken"
                                               : "log");
    uv_tcp_init(loop, &j->listener);
    uv_timer_init(loop, &j->timer);
    j->listener.data = j->timer.data = j;
    j->handles = 2;
    uv_ip4_addr("127.0.0.1", port, &at);
    assert_int_equal(uv_tcp_bind(&j->listener, (struct sockaddr *)&at, 0), 0);
    assert_int_equal(uv_listen((uv_stream_t *)&j->listener, 16, on_connection), 0);
    uv_timer_start(&j->timer, on_job_timer, 0, 0);
    j->next = world->jobs;
    world->jobs = j;
    world->n_jobs++;
    world->n_alive++;
    world->max_alive = world->n_alive > world->max_alive ? world->n_alive : world->max_alive;
    return j;
}

/* A detached one is this very process to whoever writes it down. */
static enum rc job_start(uv_loop_t *loop, const struct launch_spec *spec, const struct launch_events *events,
                         void *arg, struct launch_job **ret_job, struct err *err)
{
    struct fake_model *m = fake_model(world, spec->argv[1]);
    uint64_t port = 0;
    assert_true(str_u64(str_from(spec->argv[2]), &port) && port > 0 && port < 65536);
    assert_true(!spec->detach || (spec->log_path && spec->known));
    enum rc rc = spec->detach ? spec->known(arg, getpid(), err) : RC_OK;
    if (rc != RC_OK)
        return rc;
    m->ports[m->started++ % 16] = (uint16_t)port;
    *ret_job = job_new(loop, m, (uint16_t)port, events, arg,
                       m->at < m->n_script ? m->script[m->at++]
                       : world->slow       ? CHILD_HANG
                                           : CHILD_READY);
    return RC_OK;
}

static enum rc job_adopt(uv_loop_t *loop, const struct launch_found *found,
                         const struct launch_events *events, void *arg, struct launch_job **ret_job,
                         struct err *err)
{
    struct fake_model *m = world->left.model ? fake_model(world, world->left.model) : NULL;
    assert_int_equal(found->pid, getpid());
    assert_true(found->start_ticks > 0);
    if (world->left.gone)
        return err_set(err, RC_NOT_FOUND, "it is gone");
    assert_non_null(m);
    world->n_adopted++;
    *ret_job = job_new(loop, m, world->left.port, events, arg, world->left.behaviour);
    return RC_OK;
}

static void job_end(struct launch_job *j, int status)
{
    if (j->over)
        return;
    job_over(j, status);
    if (!j->closing)
        uv_timer_start(&j->timer, on_job_timer, 0, 0);
}

static void job_signal(struct launch_job *j, int signo)
{
    if (signo == SIGKILL || j->behaviour != CHILD_STUBBORN)
        job_end(j, signo);
}

static pid_t job_pid(const struct launch_job *j)
{
    return j->over ? 0 : 4242;
}

static struct str job_tail(const struct launch_job *j)
{
    return str_from(j->tail);
}

static void job_close(struct launch_job *j, void (*closed)(void *arg), void *arg)
{
    assert_false(j->closing);
    j->closing = true;
    j->closed = closed;
    j->closed_arg = arg;
    if (!j->over)
        job_over(j, SIGKILL);
    uv_close((uv_handle_t *)&j->listener, on_job_handle_closed);
    uv_close((uv_handle_t *)&j->timer, on_job_handle_closed);
}

static void job_leave(struct launch_job *j, void (*closed)(void *arg), void *arg)
{
    assert_false(j->over);
    world->n_left++;
    world->left.model = j->model->id;
    world->left.port = j->model->ports[(j->model->started - 1) % 16];
    job_close(j, closed, arg);
}

static const struct launch_ops launcher = {.name = "fake",
                                           .start = job_start,
                                           .adopt = job_adopt,
                                           .leave = job_leave,
                                           .signal = job_signal,
                                           .pid = job_pid,
                                           .log_tail = job_tail,
                                           .close = job_close};

static struct launch_job *job_of(struct fake *f, const char *id)
{
    for (struct launch_job *j = f->jobs; j; j = j->next)
        if (strcmp(j->model->id, id) == 0 && !j->over)
            return j;
    return NULL;
}

void fake_kill(struct fake *f, const char *id, int signo)
{
    struct launch_job *j = job_of(f, id);
    assert_non_null(j);
    job_end(j, signo);
}

void fake_wake(struct fake *f, const char *id)
{
    struct launch_job *j = job_of(f, id);
    assert_non_null(j);
    j->behaviour = CHILD_READY;
    uv_timer_start(&j->timer, on_job_timer, 0, 0);
}

void fake_mute(struct fake *f, const char *id)
{
    struct launch_job *j = job_of(f, id);
    assert_non_null(j);
    j->mute = true;
}

static bool no_anon(pid_t pid, uint64_t *ret_bytes)
{
    (void)pid;
    (void)ret_bytes;
    return false;
}

static bool ticks(pid_t pid, uint64_t *ret_ticks)
{
    (void)pid;
    world->ticks += world->computes;
    *ret_ticks = world->ticks;
    return true;
}

static size_t largest(const pid_t *skip, size_t n_skip, struct proc_use *ret, size_t cap)
{
    size_t n = world->n_others < cap ? world->n_others : cap;
    assert_true(n_skip > 0 && skip[0] == getpid());
    memcpy(ret, world->others, n * sizeof *ret);
    return n;
}

static bool process_name(pid_t pid, char ret_name[32])
{
    snprintf(ret_name, 32, "tenant-%ld", (long)pid);
    return true;
}

/* ---- hooks ---- */

static void on_decision(void *arg, const struct pool_decision *d)
{
    struct fake *f = arg;
    assert_true(d->n_reasons > 0 || strcmp(d->kind, "refuse") == 0);
    for (size_t i = 0; i < d->n_reasons; i++)
        assert_true(d->reasons[i].code && d->reasons[i].text[0]);
    buf_printf(&f->decisions, "%s %s\n", d->kind, d->model);
    for (size_t i = 0; i < d->n_reasons; i++)
        buf_printf(&f->reasons, "%s %s %s\n", d->kind, d->model, d->reasons[i].code);
}

static void on_transition(void *arg, const struct pool_transition *t)
{
    struct fake *f = arg;
    assert_true(t->why.code && strcmp(t->why.code, "untold") != 0 && t->why.text[0]);
    assert_true(t->from == POOL_STATES || state_may_follow(t->from, t->to));
    f->seen[t->from][t->to] = true;
    buf_printf(&f->changes, "%s %s %s\n", t->model, pool_state_word(t->to), t->why.code);
}

static void oom_now(struct oom_count *ret)
{
    *ret = world->oom;
}

static bool oom_names(pid_t pid)
{
    return pid == 4242 && world->oom_named;
}

static const struct hw_inventory *on_inventory(void *arg)
{
    return &((struct fake *)arg)->inventory;
}

static void on_want_sample(void *arg)
{
    struct fake *f = arg;
    f->samples_wanted++;
    if (f->fresh)
        fake_sample(f);
}

static unsigned times(const struct buf *list, const char *line)
{
    unsigned n = 0;
    struct str rest = buf_str(list);
    while (rest.n > 0)
        n += str_eq_c(str_cut(&rest, '\n'), line);
    return n;
}

unsigned times_decided(const struct fake *f, const char *line)
{
    return times(&f->decisions, line);
}

bool reasoned(const struct fake *f, const char *line)
{
    return times(&f->reasons, line) > 0;
}

bool decided(const struct fake *f, const char *line)
{
    return times_decided(f, line) > 0;
}

/* ---- the world ---- */

static void add_model(struct fake *f, const char *id, const char *path, uint64_t bytes)
{
    struct fake_model *m = &f->models[f->n_models];
    f->settings[f->n_models++] = (struct pool_model){.id = id, .path = path, .settings_hash = 1};
    *m = (struct fake_model){.id = id, .path = path, .bytes = bytes};
}

static void on_guard(uv_timer_t *t)
{
    (void)t;
}

void fake_new_pool(struct fake *f)
{
    struct err err;
    struct pool_deps deps = {.launch = &launcher,
                             .runtime = &runtime,
                             .facts = facts,
                             .facts_unref = facts_unref,
                             .pack = pack,
                             .rebalance = rebalance,
                             .find_runtime = find_runtime,
                             .anon_bytes = no_anon,
                             .liveness = no_anon,
                             .cpu_ticks = ticks,
                             .oom_count = oom_now,
                             .oom_named = oom_names,
                             .largest = largest,
                             .process_name = process_name,
                             .now_ms = fake_now,
                             .wall_ms = fake_wall};
    f->opt.kv_dir = f->kv_dir[0] ? f->kv_dir : NULL;
    assert_int_equal(pool_new_with(&f->opt, &deps, &f->pool, &err), RC_OK);
    f->stopped = false;
    fake_set_models(f, f->n_models);
}

static int setup(void **state, bool kv)
{
    struct fake *f = mem_new(struct fake);
    world = f;
    if (kv) {
        snprintf(f->kv_dir, sizeof f->kv_dir, "/tmp/arriero-kv-XXXXXX");
        assert_non_null(mkdtemp(f->kv_dir));
    }
    now_ms = 1000000;
    uv_loop_init(&f->loop);
    uv_timer_init(&f->loop, &f->guard);
    uv_timer_start(&f->guard, on_guard, 20, 20);
    add_model(f, "a", "/m/a", 400 * MIB);
    add_model(f, "b", "/m/b", 400 * MIB);
    add_model(f, "c", "/m/c", 400 * MIB);
    add_model(f, "huge", "/m/huge", 4000000 * MIB);
    f->inventory.host = (struct hw_host){
        .physical_cores = 2, .usable_total_bytes = 1000 * MIB, .usable_free_bytes = 1000 * MIB};
    pool_options_default(&f->opt);
    f->opt.loop = &f->loop;
    f->opt.host_reserve_bytes = 0;
    f->opt.hooks = (struct pool_hooks){.arg = f,
                                       .decision = on_decision,
                                       .transition = on_transition,
                                       .inventory = on_inventory,
                                       .want_sample = on_want_sample};
    fake_new_pool(f);
    *state = f;
    return 0;
}

int fake_setup(void **state)
{
    return setup(state, false);
}

int fake_setup_kv(void **state)
{
    return setup(state, true);
}

void fake_set_models(struct fake *f, size_t n)
{
    pool_set_models(f->pool, f->settings, n);
}

void fake_options(struct fake *f)
{
    pool_set_options(f->pool, &f->opt);
}

void fake_script(struct fake *f, const char *id, const enum behaviour *script, size_t n)
{
    struct fake_model *m = fake_model(f, id);
    memcpy(m->script, script, n * sizeof *script);
    m->n_script = n;
    m->at = 0;
}

void fake_run_until(struct fake *f, bool (*condition)(struct fake *f, void *arg), void *arg)
{
    uint64_t start = clock_mono_ms(); /* only so that a failing test ends */
    while (!condition(f, arg)) {
        uv_run(&f->loop, UV_RUN_ONCE);
        if (clock_mono_ms() - start > 20000)
            fail_msg("what the test waits for never came; decisions:\n%s", f->decisions.data);
    }
}

static bool is_settled(struct fake *f, void *arg)
{
    (void)arg;
    if (f->pool->idle_on || f->pool->n_work > 0)
        return false;
    for (const struct pool_instance *i = f->pool->instances; i; i = i->next)
        if (i->jobs_closing > 0 || (i->job && i->job->over))
            return false;
    return true;
}

void fake_settle(struct fake *f)
{
    for (int i = 0; i < 3; i++) { /* closing handles take a turn each */
        uv_run(&f->loop, UV_RUN_NOWAIT);
        fake_run_until(f, is_settled, NULL);
    }
}

static void on_stopped(void *arg)
{
    ((struct fake *)arg)->stopped = true;
}

static bool is_stopped(struct fake *f, void *arg)
{
    (void)arg;
    return f->stopped;
}

static void end_pool(struct fake *f, bool hurry)
{
    if (f->pool && !f->stopped) {
        pool_stop(f->pool, hurry, on_stopped, f);
        fake_run_until(f, is_stopped, NULL);
    }
    pool_free(take_ptr(f->pool));
    f->stopped = false;
}

void fake_restart(struct fake *f)
{
    end_pool(f, false);
    fake_new_pool(f);
}

void fake_stop(struct fake *f)
{
    end_pool(f, false);
}

static void remove_folder(const char *dir)
{
    DIR *d = dir[0] ? opendir(dir) : NULL;
    if (!d)
        return;
    for (const struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    rmdir(dir);
}

int fake_teardown(void **state)
{
    struct fake *f = *state;
    f->ended = true;
    end_pool(f, true);
    uv_close((uv_handle_t *)&f->guard, NULL);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    assert_int_equal(f->n_jobs, 0);
    for (size_t i = 0; i < f->n_models; i++)
        assert_int_equal(f->models[i].references, 0);
    buf_release(&f->decisions);
    buf_release(&f->reasons);
    buf_release(&f->changes);
    remove_folder(f->kv_dir);
    free(f);
    return 0;
}

/* ---- callers ---- */

static void on_answer(void *arg, enum rc rc, const struct pool_lease *lease, const struct err *err,
                      uint32_t retry_after_s)
{
    struct answer *a = arg;
    if (world->ended)
        return;
    assert_false(a->told);
    a->told = true;
    a->wait = NULL;
    a->rc = rc;
    a->order = ++a->fake->order;
    a->retry_after_s = retry_after_s;
    if (rc == RC_OK)
        a->lease = *lease;
    else
        a->err = *err;
}

void ask(struct fake *f, const char *id, struct answer *a)
{
    const struct pool_request r = {.model = str_from(id), .band = LINE_NORMAL};
    ask_as(f, &r, a);
}

void ask_as(struct fake *f, const struct pool_request *r, struct answer *a)
{
    *a = (struct answer){.fake = f};
    a->first = pool_acquire(f->pool, r, on_answer, a, &a->lease, &a->wait, &a->retry_after_s, &a->err);
    if (a->first == POOL_WAITING) {
        assert_false(a->told); /* never inside the call */
        return;
    }
    a->told = true;
    a->rc = a->first == POOL_GRANTED ? RC_OK : a->err.code;
}

static bool is_told(struct fake *f, void *arg)
{
    (void)f;
    return ((struct answer *)arg)->told;
}

void until_told(struct answer *a)
{
    fake_run_until(a->fake, is_told, a);
}

void must_get(struct answer *a)
{
    until_told(a);
    if (a->rc != RC_OK)
        fail_msg("%s: %s", rc_word(a->rc), a->err.message);
    assert_true(a->lease.port > 0);
}

void give_back(struct answer *a, bool broken)
{
    end(a, broken ? POOL_END_BROKEN : POOL_END_FINE);
}

void end(struct answer *a, enum pool_end how)
{
    pool_release(a->fake->pool, &a->lease, how);
}

struct pool_instance *instance_of(struct fake *f, const char *id)
{
    for (struct pool_instance *i = f->pool->instances; i; i = i->next)
        if (strcmp(i->model, id) == 0 && i->state != POOL_FAILED && i->state != POOL_STOPPED)
            return i;
    return NULL;
}
