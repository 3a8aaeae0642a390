/* Loads side by side, and whose turn it is: what may load at once, how long an instance keeps its place, how
 * long a model that waits has to, and how often models change places. */
#include "fake.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define GB (1000ull * 1000 * 1000)

static void look(struct fake *f)
{
    pool_inventory_changed(f->pool); /* as the timer of the pool, which counts real time, does */
    fake_settle(f);
}

static bool is_ready(struct fake *f, void *id)
{
    const struct pool_instance *i = instance_of(f, id);
    return i && i->state == POOL_READY;
}

static void wake(struct fake *f, const char *id)
{
    fake_wake(f, id);
    fake_run_until(f, is_ready, (void *)(uintptr_t)id);
    fake_settle(f);
}

static void use_once(struct fake *f, const char *id)
{
    struct answer a;
    ask(f, id, &a);
    must_get(&a);
    give_back(&a, false);
    fake_advance_ms(10);
}

static void room_for_one(struct fake *f)
{
    snprintf(f->opt.budgets[0].device, sizeof f->opt.budgets[0].device, "Host");
    f->opt.budgets[0].bytes = 500 * MIB;
    f->opt.n_budgets = 1;
    fake_options(f);
}

static bool has_reason(const struct fake *f, const char *line)
{
    return f->reasons.data && strstr(f->reasons.data, line);
}

/* ---- room ---- */

/* a and b hold 800 of 1000 MiB; a does not end when it is asked to. */
static void two_idle_ones(struct fake *f)
{
    fake_script(f, "a", (enum behaviour[]){CHILD_STUBBORN}, 1);
    use_once(f, "a");
    use_once(f, "b");
}

static void test_two_loads_make_room_at_once(void **state)
{
    struct fake *f = *state;
    struct answer c, d;
    f->models[3].bytes = 500 * MIB; /* what b holds, and most of what is free */
    two_idle_ones(f);
    ask(f, "c", &c);
    fake_settle(f);
    assert_true(decided(f, "evict a"));
    ask(f, "huge", &d);
    must_get(&d);
    assert_true(decided(f, "evict b"));
    assert_false(c.told);
    assert_int_equal(fake_model(f, "c")->started, 0);
    fake_kill(f, "a", SIGKILL);
    must_get(&c);
}

static void test_what_is_promised_is_not_given_twice(void **state)
{
    struct fake *f = *state;
    struct answer c, d;
    f->models[3].bytes = 700 * MIB; /* more than what b holds and what is free */
    two_idle_ones(f);
    ask(f, "c", &c);
    fake_settle(f);
    ask(f, "huge", &d);
    fake_settle(f);
    assert_true(decided(f, "wait huge"));
    assert_false(decided(f, "evict b"));
    fake_kill(f, "a", SIGKILL);
    must_get(&c);
    fake_settle(f);
    assert_false(d.told);
    give_back(&c, false);
    must_get(&d);
}

/* ---- the disk ---- */

static void three_small_ones(struct fake *f)
{
    f->slow = true;
    for (size_t i = 0; i < 4; i++) {
        f->models[i].bytes = 200 * MIB;
        f->models[i].facts.tensor_bytes = i < 3 ? 3 * GB : 0; /* 2 s at 1.5 GB/s: all that the load takes */
    }
}

static void test_the_disk_serves_two_loads_that_read_all_the_time(void **state)
{
    struct fake *f = *state;
    struct answer a, b, c, cached;
    three_small_ones(f);
    ask(f, "a", &a);
    ask(f, "b", &b);
    ask(f, "c", &c);
    ask(f, "huge", &cached);
    fake_settle(f);
    assert_int_equal(fake_model(f, "a")->started + fake_model(f, "b")->started + fake_model(f, "c")->started,
                     2);
    assert_int_equal(fake_model(f, "huge")->started, 1); /* in the page cache: it does not read */
    const char *late = fake_model(f, "c")->started ? fake_model(f, "b")->started ? "a" : "b" : "c";
    const char *first = strcmp(late, "a") == 0 ? "b" : "a";
    char line[40];
    snprintf(line, sizeof line, "wait %s waits_for_disk", late);
    assert_true(has_reason(f, line));
    wake(f, first);
    assert_int_equal(fake_model(f, late)->started, 1);
    wake(f, late);
    wake(f, "huge");
    for (struct answer *each[] = {&a, &b, &c, &cached}, **at = each; at < each + 4; at++)
        if (!(*at)->told)
            pool_cancel(f->pool, (*at)->wait);
}

static void test_a_load_that_hangs_gives_the_disk_away(void **state)
{
    struct fake *f = *state;
    struct answer a[3], other;
    static const char *const ids[] = {"a", "b", "c"};
    three_small_ones(f);
    for (size_t i = 0; i < 3; i++) {
        ask(f, ids[i], &a[i]);
        fake_settle(f);
    }
    assert_int_equal(fake_model(f, "c")->started, 0);
    fake_advance_ms(7999);
    assert_true(f->pool->timer_on); /* somebody looks again */
    ask(f, "huge", &other);         /* a turn of the pool */
    fake_settle(f);
    assert_int_equal(fake_model(f, "c")->started, 0);
    fake_advance_ms(1);
    pool_kick(f->pool);
    fake_settle(f);
    assert_int_equal(fake_model(f, "c")->started, 1);
}

static void test_loads_that_read_half_the_time_are_four(void **state)
{
    struct fake *f = *state;
    struct answer a[4];
    static const char *const ids[] = {"a", "b", "c", "huge"};
    three_small_ones(f);
    for (size_t i = 0; i < 4; i++) {
        f->models[i].facts.tensor_bytes = 3 * GB / 2;
        ask(f, ids[i], &a[i]);
    }
    fake_settle(f);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(fake_model(f, ids[i])->started, 1);
        pool_cancel(f->pool, a[i].wait);
    }
}

static void test_loads_at_once_is_a_number(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    three_small_ones(f);
    f->opt.loads_at_once = 1;
    fake_options(f);
    ask(f, "a", &a);
    fake_settle(f);
    ask(f, "huge", &b); /* counts, too */
    fake_settle(f);
    assert_int_equal(fake_model(f, "huge")->started, 0);
    assert_true(has_reason(f, "wait huge waits_for_disk"));
    assert_int_equal(times_decided(f, "wait huge"), 1);
    fake_kill(f, "a", SIGSEGV); /* one that fails makes way as well */
    fake_settle(f);
    until_told(&a);
    assert_int_equal(a.rc, RC_BACKEND);
    assert_int_equal(fake_model(f, "huge")->started, 1);
    wake(f, "huge");
    must_get(&b);
}

/* ---- terms ---- */

static void test_one_in_use_keeps_its_term(void **state)
{
    struct fake *f = *state;
    struct answer a, b, c;
    room_for_one(f);
    ask(f, "a", &a);
    must_get(&a);
    ask(f, "b", &b);
    fake_settle(f);
    fake_advance_ms(5000);
    ask(f, "c", &c);
    fake_settle(f);
    fake_advance_ms(10000); /* b has waited for as long as it should; a's term is over */
    look(f);
    assert_int_equal(instance_of(f, "a")->state, POOL_DRAINING);
    give_back(&a, false);
    must_get(&b);
    fake_advance_ms(9999); /* c has waited too long, and b is at work */
    look(f);
    assert_int_equal(instance_of(f, "b")->state, POOL_READY);
    assert_false(c.told);
    fake_advance_ms(1);
    look(f);
    assert_int_equal(instance_of(f, "b")->state, POOL_DRAINING);
    give_back(&b, false);
    must_get(&c);
}

static void test_a_term_is_never_longer_than_patience(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    f->opt.min_residence_ms = 1000 * 1000;
    f->opt.patience_ms = 3000;
    room_for_one(f);
    use_once(f, "a"); /* idle, and it stays: the term was asked for */
    ask(f, "b", &b);
    fake_settle(f);
    assert_true(decided(f, "wait b"));
    assert_int_equal(residence_term_ms(instance_of(f, "a")), 3000);
    fake_advance_ms(2989);
    look(f);
    assert_false(b.told);
    fake_advance_ms(1);
    look(f);
    must_get(&b);
    ask(f, "a", &a); /* in use it is the same */
    fake_settle(f);
    fake_advance_ms(2999);
    look(f);
    assert_int_equal(instance_of(f, "b")->state, POOL_READY);
    fake_advance_ms(1);
    look(f);
    assert_int_equal(instance_of(f, "b")->state, POOL_DRAINING);
    give_back(&b, false);
    must_get(&a);
}

static void test_a_load_of_a_minute_has_a_term_of_a_minute(void **state)
{
    struct fake *f = *state;
    struct answer a;
    f->slow = true;
    f->opt.patience_ms = 0;
    fake_options(f);
    ask(f, "a", &a);
    fake_settle(f);
    fake_advance_ms(60000);
    wake(f, "a");
    assert_true(a.told);
    assert_int_equal(residence_left_ms(instance_of(f, "a")), 60000);
    fake_advance_ms(59999);
    assert_int_equal(residence_left_ms(instance_of(f, "a")), 1);
    fake_advance_ms(10);
    assert_int_equal(residence_left_ms(instance_of(f, "a")), 0);
}

/* Two that take turns one after the other, as a client does that waits for each answer: no swap waits. */
static void test_turns_without_haste_are_not_held_up(void **state)
{
    struct fake *f = *state;
    room_for_one(f);
    for (int i = 0; i < 6; i++)
        use_once(f, i % 2 ? "b" : "a");
    assert_int_equal(fake_model(f, "a")->started + fake_model(f, "b")->started, 6);
    assert_int_equal(times_decided(f, "wait a") + times_decided(f, "wait b"), 0);
}

/* a is wanted again while b, for which it left, is still loading: next time it stays its term. */
static void come_back_too_soon(struct fake *f)
{
    struct answer a, b;
    room_for_one(f);
    use_once(f, "a");
    f->slow = true;
    ask(f, "b", &b);
    fake_settle(f);
    assert_true(decided(f, "evict a"));
    ask(f, "a", &a);
    fake_settle(f);
    f->slow = false;
    wake(f, "b");
    assert_true(b.told);
    give_back(&b, false);
    must_get(&a);
    give_back(&a, false);
}

static void test_who_came_back_too_soon_stays_its_term(void **state)
{
    struct fake *f = *state;
    struct answer a, b, c;
    come_back_too_soon(f);
    ask(f, "b", &b);
    fake_settle(f);
    assert_false(b.told);
    assert_int_equal(instance_of(f, "a")->state, POOL_READY);
    fake_advance_ms(3000);
    ask(f, "a", &a); /* what it stayed for */
    assert_int_equal(a.first, POOL_GRANTED);
    give_back(&a, false);
    fake_advance_ms(6999);
    look(f);
    assert_false(b.told);
    fake_advance_ms(1);
    look(f);
    must_get(&b);
    give_back(&b, false);
    fake_advance_ms(20000);
    use_once(f, "a"); /* it stayed to some purpose, so it stays again … */
    ask(f, "c", &c);
    fake_settle(f);
    assert_false(c.told);
    fake_advance_ms(10000); /* … but in vain */
    look(f);
    must_get(&c);
    give_back(&c, false);
    fake_advance_ms(20000);
    use_once(f, "a");
    ask(f, "c", &c);
    must_get(&c);
}

static void test_no_term(void **state)
{
    struct fake *f = *state;
    struct answer b;
    f->opt.min_residence_ms = 0;
    fake_options(f);
    come_back_too_soon(f);
    ask(f, "b", &b);
    must_get(&b);
}

/* ---- starvation ---- */

/* Small models come and go, so that huge, which needs the place of all, would never find it free. */
static void test_who_waited_too_long_goes_before_who_comes(void **state)
{
    struct fake *f = *state;
    struct answer a, b, c, huge;
    f->models[3].bytes = 950 * MIB;
    fake_script(f, "a", (enum behaviour[]){CHILD_HANG}, 1);
    ask(f, "b", &b);
    must_get(&b);
    f->models[2].bytes = 100 * MIB;
    ask(f, "a", &a); /* loads for long */
    fake_settle(f);
    ask(f, "huge", &huge);
    fake_settle(f);
    fake_advance_ms(f->opt.patience_ms - 1);
    ask(f, "c", &c); /* there is room */
    must_get(&c);
    give_back(&c, false);
    pool_unload(f->pool, STR("c"), false, NULL, NULL);
    fake_settle(f);
    fake_advance_ms(1);
    ask(f, "c", &c); /* there is room, and it is huge's */
    fake_settle(f);
    assert_false(c.told);
    assert_int_equal(times_decided(f, "load c"), 1);
    assert_int_equal(instance_of(f, "b")->state, POOL_READY); /* no use in it as long as a loads */
    wake(f, "a");
    assert_true(a.told);
    fake_advance_ms(residence_left_ms(instance_of(f, "a")));
    look(f);
    assert_int_equal(instance_of(f, "a")->state, POOL_DRAINING);
    assert_int_equal(instance_of(f, "b")->state, POOL_DRAINING);
    give_back(&a, false);
    give_back(&b, false);
    must_get(&huge);
    assert_false(c.told);
    give_back(&huge, false);
    must_get(&c);
}

/* ---- ABCABC ---- */

#define STEP_MS    100u
#define LOAD_MS    2000u
#define SERVICE_MS 500u

struct call {
    struct answer a;
    const char *id;
    uint64_t come_ms, end_ms;
    bool asked, running, done;
};

static void end_calls(struct fake *f, struct call *calls, size_t n, uint64_t *longest_ms)
{
    uint64_t now = f->pool->deps.now_ms();
    for (size_t k = 0; k < n; k++) {
        struct call *c = &calls[k];
        if (c->asked && !c->running && c->a.told) {
            assert_int_equal(c->a.rc, RC_OK);
            c->running = true;
            c->end_ms = now + SERVICE_MS;
            *longest_ms = now - c->come_ms > *longest_ms ? now - c->come_ms : *longest_ms;
        }
        if (c->running && !c->done && now >= c->end_ms) {
            give_back(&c->a, false);
            c->done = true;
        }
    }
}

static void end_loads(struct fake *f)
{
    static const char *const ids[] = {"a", "b", "c"};
    for (size_t k = 0; k < 3; k++) {
        const struct pool_instance *i = instance_of(f, ids[k]);
        if (i && i->state == POOL_STARTING && f->pool->deps.now_ms() - i->start_ms >= LOAD_MS)
            wake(f, ids[k]);
    }
}

/* So many calls, one every gap_ms, for a, b, c, a …; how many loads that took and the longest wait. */
static unsigned run_calls(struct fake *f, size_t n, uint64_t gap_ms, uint64_t *ret_longest_ms)
{
    static const char *const ids[] = {"a", "b", "c"};
    struct call *calls = mem_calloc(n, sizeof *calls);
    uint64_t begin = f->pool->deps.now_ms();
    size_t done = 0;
    *ret_longest_ms = 0;
    for (size_t k = 0; k < n; k++)
        calls[k] = (struct call){.id = ids[k % 3], .come_ms = begin + k * gap_ms};
    for (unsigned step = 0; done < n; step++) {
        assert_true(step < 100000);
        for (size_t k = 0; k < n; k++)
            if (!calls[k].asked && calls[k].come_ms <= f->pool->deps.now_ms()) {
                ask(f, calls[k].id, &calls[k].a);
                calls[k].asked = true;
            }
        look(f);
        end_loads(f);
        end_calls(f, calls, n, ret_longest_ms);
        fake_advance_ms(STEP_MS);
        done = 0;
        for (size_t k = 0; k < n; k++)
            done += calls[k].done;
    }
    free(calls);
    return fake_model(f, "a")->started + fake_model(f, "b")->started + fake_model(f, "c")->started;
}

/* A model waits until the patience is over, then for the terms and loads of those that waited longer, and for
 * the requests that run then. */
static uint64_t bound_ms(const struct fake *f)
{
    return f->opt.patience_ms + 2 * (10000 + LOAD_MS + SERVICE_MS) + LOAD_MS + 10 * STEP_MS;
}

static void test_calls_at_once_are_served_by_model(void **state)
{
    struct fake *f = *state;
    uint64_t longest;
    room_for_one(f);
    f->slow = true;
    f->slots = 1;
    assert_int_equal(run_calls(f, 6, 0, &longest), 3); /* AABBCC */
    assert_true(longest < bound_ms(f));
}

/* More than swapping with every call could serve: 60 calls, a load and an answer take longer than the three
 * seconds until the next one of the model. */
static void test_steady_calls_are_served_in_batches(void **state)
{
    struct fake *f = *state;
    uint64_t longest;
    room_for_one(f);
    f->slow = true;
    f->slots = 1;
    unsigned loads = run_calls(f, 60, 1000, &longest);
    print_message("60 calls of three models in turn: %u loads, longest wait %.1f s\n", loads,
                  (double)longest / 1000);
    assert_in_range(loads, 3, 15);
    assert_true(longest < bound_ms(f));
}

#define TURN(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TURN(test_two_loads_make_room_at_once),
        TURN(test_what_is_promised_is_not_given_twice),
        TURN(test_the_disk_serves_two_loads_that_read_all_the_time),
        TURN(test_a_load_that_hangs_gives_the_disk_away),
        TURN(test_loads_that_read_half_the_time_are_four),
        TURN(test_loads_at_once_is_a_number),
        TURN(test_one_in_use_keeps_its_term),
        TURN(test_a_term_is_never_longer_than_patience),
        TURN(test_a_load_of_a_minute_has_a_term_of_a_minute),
        TURN(test_turns_without_haste_are_not_held_up),
        TURN(test_who_came_back_too_soon_stays_its_term),
        TURN(test_no_term),
        TURN(test_who_waited_too_long_goes_before_who_comes),
        TURN(test_calls_at_once_are_served_by_model),
        TURN(test_steady_calls_are_served_in_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
