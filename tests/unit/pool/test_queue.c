/* Requests for a model that is busy: slots, order over keys, bounds, broken backends, several instances. */
#include "fake.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static struct pool_request request(const char *model, uint64_t key, enum line_band band)
{
    return (struct pool_request){.model = str_from(model), .key = key, .band = band};
}

static void ask_of(struct fake *f, uint64_t key, enum line_band band, struct answer *a)
{
    const struct pool_request r = request("a", key, band);
    ask_as(f, &r, a);
}

/* Model a, loaded, with so many slots, all of them in use. */
static void fill(struct fake *f, uint32_t slots, struct answer *held)
{
    f->slots = slots;
    for (uint32_t i = 0; i < slots; i++) {
        ask(f, "a", &held[i]);
        must_get(&held[i]);
    }
}

static uint32_t waiting(struct fake *f)
{
    struct pool_counters c;
    pool_counters(f->pool, &c);
    return c.waiting;
}

static void test_slots_bound_what_runs(void **state)
{
    struct fake *f = *state;
    struct answer held[2], a[3];
    fill(f, 2, held);
    for (int i = 0; i < 3; i++) {
        ask(f, "a", &a[i]);
        assert_int_equal(a[i].first, POOL_WAITING);
    }
    assert_int_equal(instance_of(f, "a")->busy, 2);
    assert_int_equal(waiting(f), 3);
    give_back(&held[0], false);
    must_get(&a[0]);
    assert_false(a[1].told);
    assert_int_equal(a[0].lease.position, 1);
    give_back(&a[0], false);
    give_back(&held[1], false);
    must_get(&a[1]);
    must_get(&a[2]);
    assert_int_equal(a[2].lease.position, 3);
    assert_int_equal(instance_of(f, "a")->busy, 2);
    assert_int_equal(fake_model(f, "a")->started, 1);
    give_back(&a[1], false);
    give_back(&a[2], false);
    ask(f, "a", &a[0]);
    assert_int_equal(a[0].first, POOL_GRANTED);
    assert_int_equal(a[0].lease.position, 0);
}

static void test_surplus_is_sent_beyond_the_slots(void **state)
{
    struct fake *f = *state;
    struct answer held[2], a, b;
    f->opt.surplus = 1;
    fake_options(f);
    fill(f, 2, held);
    ask(f, "a", &a);
    assert_int_equal(a.first, POOL_GRANTED);
    ask(f, "a", &b);
    assert_int_equal(b.first, POOL_WAITING);
}

static void test_a_load_serves_no_more_than_its_slots(void **state)
{
    struct fake *f = *state;
    struct answer a[5];
    f->slots = 2;
    for (int i = 0; i < 5; i++)
        ask(f, "a", &a[i]);
    must_get(&a[0]);
    must_get(&a[1]);
    fake_settle(f);
    assert_false(a[2].told);
    give_back(&a[0], false);
    must_get(&a[2]);
}

static void test_a_flood_of_one_key_does_not_keep_another_out(void **state)
{
    struct fake *f = *state;
    struct answer held[1], flood[40], meek;
    fill(f, 1, held);
    for (int i = 0; i < 40; i++)
        ask_of(f, 1, LINE_NORMAL, &flood[i]);
    ask_of(f, 2, LINE_NORMAL, &meek);
    assert_true(meek.first == POOL_WAITING);
    give_back(&held[0], false);
    must_get(&flood[0]);
    give_back(&flood[0], false);
    must_get(&meek);
    assert_int_equal(meek.lease.position, 2);
}

static void test_bands(void **state)
{
    struct fake *f = *state;
    struct answer held[1], low, normal, high;
    fill(f, 1, held);
    ask_of(f, 1, LINE_LOW, &low);
    ask_of(f, 1, LINE_NORMAL, &normal);
    ask_of(f, 1, LINE_HIGH, &high);
    struct pool_counters c;
    pool_counters(f->pool, &c);
    assert_int_equal(c.waiting_in[LINE_LOW] + c.waiting_in[LINE_NORMAL] + c.waiting_in[LINE_HIGH], 3);
    give_back(&held[0], false);
    must_get(&high);
    give_back(&high, false);
    must_get(&normal);
    give_back(&normal, false);
    must_get(&low);
    pool_counters(f->pool, &c);
    assert_int_equal(c.line_grants[LINE_LOW], 1);
    assert_int_equal(c.line_grants[LINE_HIGH], 1);
}

static void test_starvation_is_bounded_by_grants(void **state)
{
    struct fake *f = *state;
    struct answer held[1], low, high[10];
    f->opt.max_overtaken = 3;
    fake_options(f);
    fill(f, 1, held);
    ask_of(f, 1, LINE_LOW, &low);
    for (int i = 0; i < 10; i++)
        ask_of(f, 2, LINE_HIGH, &high[i]);
    give_back(&held[0], false);
    for (int i = 0; i < 3; i++) {
        must_get(&high[i]);
        give_back(&high[i], false);
    }
    must_get(&low);
    assert_false(high[3].told);
}

static void test_cancelling_frees_the_place(void **state)
{
    struct fake *f = *state;
    struct answer held[1], a, b;
    fill(f, 1, held);
    ask(f, "a", &a);
    ask(f, "a", &b);
    pool_cancel(f->pool, a.wait);
    assert_int_equal(waiting(f), 1);
    give_back(&held[0], false);
    must_get(&b);
    assert_false(a.told);
    assert_int_equal(waiting(f), 0);
}

static void test_a_full_line_says_when_to_come_back(void **state)
{
    struct fake *f = *state;
    struct answer held[2], a[4], late[3];
    f->opt.max_waiting = 4;
    fake_options(f);
    fill(f, 2, held);
    fake_advance_ms(6000); /* a request takes 6 s in its slot */
    give_back(&held[0], false);
    give_back(&held[1], false);
    for (int i = 0; i < 2; i++)
        ask(f, "a", &held[i]);
    for (int i = 0; i < 4; i++)
        ask(f, "a", &a[i]);
    struct pool_look now;
    pool_look(a[3].wait, &now);
    assert_int_equal(now.stage, POOL_QUEUED);
    assert_int_equal(now.position, 4);
    assert_in_range(now.expected_ms, 12000, 12010); /* two rounds of 6 s on two slots */
    for (int i = 0; i < 3; i++) {
        ask(f, "a", &late[i]);
        assert_int_equal(late[i].first, POOL_REFUSED);
        assert_int_equal(late[i].rc, RC_TOO_MANY);
        assert_int_equal(rc_http_status(late[i].rc), 429);
        assert_non_null(strstr(late[i].err.hint, "max_waiting"));
    }
    /* a place is free every 3 s, and who was sent away first is first */
    assert_in_range(late[0].retry_after_s, 3, 4);
    assert_in_range(late[1].retry_after_s, 6, 7);
    assert_in_range(late[2].retry_after_s, 9, 10);
    assert_int_equal(times_decided(f, "refuse a"), 1); /* told once, not for each */
    assert_non_null(strstr(f->reasons.data, "refuse a queue_full"));
    give_back(&held[0], false);
    must_get(&a[0]);
}

static bool is_told(struct fake *f, void *arg)
{
    (void)f;
    return ((struct answer *)arg)->told;
}

static void test_waiting_for_a_slot_is_bounded_over_all_attempts(void **state)
{
    struct fake *f = *state;
    struct answer held[1], fresh, again;
    f->opt.queue_wait_ms = 5000;
    fake_options(f);
    fill(f, 1, held);
    ask(f, "a", &fresh);
    struct pool_request r = request("a", 7, LINE_NORMAL);
    r.waited_ms = 4000; /* in an attempt before this one */
    ask_as(f, &r, &again);
    fake_advance_ms(1000);
    fake_run_until(f, is_told, &again);
    assert_int_equal(again.rc, RC_BUSY);
    assert_non_null(strstr(again.err.message, "no free slot within 5 s"));
    assert_false(fresh.told);
    fake_advance_ms(4000);
    fake_run_until(f, is_told, &fresh);
    assert_int_equal(fresh.rc, RC_BUSY);
    assert_true(fresh.retry_after_s >= 1);
}

static void test_light_requests_need_no_slot(void **state)
{
    struct fake *f = *state;
    struct answer held[1], light, a;
    struct pool_request r = request("a", 1, LINE_NORMAL);
    r.light = true;
    f->slots = 1;
    ask_as(f, &r, &light); /* it loads the model as any other does */
    assert_int_equal(light.first, POOL_WAITING);
    must_get(&light);
    give_back(&light, false);
    fill(f, 1, held);
    ask(f, "a", &a);
    ask_as(f, &r, &light);
    assert_int_equal(light.first, POOL_GRANTED);
    assert_int_equal(instance_of(f, "a")->slots, 1);
    give_back(&light, false);
    fake_settle(f);
    assert_false(a.told); /* its end frees no slot */
    give_back(&held[0], false);
    must_get(&a);
}

static bool one_drains(struct fake *f, void *arg)
{
    (void)arg;
    for (const struct pool_instance *i = f->pool->instances; i; i = i->next)
        if (i->state == POOL_DRAINING)
            return true;
    return false;
}

static void test_a_crash_keeps_the_line(void **state)
{
    struct fake *f = *state;
    struct answer held[1], a, b;
    fill(f, 1, held);
    ask(f, "a", &a);
    ask(f, "a", &b);
    fake_kill(f, "a", SIGSEGV);
    must_get(&a); /* loaded again for those who wait */
    assert_int_equal(fake_model(f, "a")->started, 2);
    fake_settle(f);
    assert_false(b.told);
    give_back(&a, false);
    must_get(&b);
}

/* 400 of 1000 MiB are a's, 400 b's: c gets its turn when a's time is up, and a is loaded again for who waits.
 */
static void test_a_line_outlives_an_eviction(void **state)
{
    struct fake *f = *state;
    struct answer held, in_line, b, c;
    f->opt.patience_ms = 1000;
    fake_options(f);
    f->slots = 1;
    ask(f, "b", &b);
    must_get(&b);
    ask(f, "a", &held);
    must_get(&held);
    ask(f, "a", &in_line);
    ask(f, "c", &c);
    fake_settle(f);
    fake_advance_ms(1000);
    fake_run_until(f, one_drains, NULL);
    struct pool_instance *victim = f->pool->instances;
    while (victim->state != POOL_DRAINING)
        victim = victim->next;
    bool a_leaves = strcmp(victim->model, "a") == 0;
    give_back(a_leaves ? &held : &b, false);
    must_get(&c);
    give_back(&c, false);
    give_back(a_leaves ? &b : &held, false);
    fake_run_until(f, is_told, &in_line);
    assert_int_equal(in_line.rc, RC_OK);
}

/* ---- the breaker ---- */

static void trip(struct fake *f)
{
    struct answer a;
    for (unsigned i = 0; i < BREAKER_FAILURES; i++) {
        ask(f, "a", &a);
        must_get(&a);
        end(&a, POOL_END_FAILED);
    }
}

static void test_errors_in_a_row_open_the_breaker(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    trip(f);
    assert_true(decided(f, "breaker a"));
    ask(f, "a", &a);
    assert_int_equal(a.first, POOL_REFUSED);
    assert_int_equal(a.rc, RC_BACKEND);
    assert_true(a.retry_after_s >= 1 && a.retry_after_s <= 2);
    assert_non_null(strstr(a.err.message, "with errors"));
    fake_advance_ms(1300); /* a second, give or take a quarter */
    ask(f, "a", &a);
    assert_int_equal(a.first, POOL_GRANTED);
    ask(f, "a", &b); /* one at a time, until it is known */
    assert_int_equal(b.first, POOL_REFUSED);
    give_back(&a, false);
    ask(f, "a", &b);
    assert_int_equal(b.first, POOL_GRANTED);
    struct pool_counters c;
    pool_counters(f->pool, &c);
    assert_int_equal(c.trips, 1);
}

static void test_clients_that_leave_never_open_it(void **state)
{
    struct fake *f = *state;
    struct answer a;
    for (unsigned i = 0; i < 5 * BREAKER_FAILURES; i++) {
        ask(f, "a", &a);
        must_get(&a);
        end(&a, POOL_END_LEFT);
    }
    assert_false(decided(f, "breaker a"));
}

/* A backend may count tokens well and fail at every completion. */
static void test_light_requests_do_not_close_it(void **state)
{
    struct fake *f = *state;
    struct answer a, light;
    struct pool_request r = request("a", 1, LINE_NORMAL);
    r.light = true;
    for (unsigned i = 0; i < BREAKER_FAILURES; i++) {
        ask(f, "a", &a);
        must_get(&a);
        end(&a, POOL_END_FAILED);
        if (i + 1 == BREAKER_FAILURES)
            break;
        ask_as(f, &r, &light);
        must_get(&light);
        end(&light, POOL_END_FINE);
    }
    assert_true(decided(f, "breaker a"));
}

static void test_those_in_line_wait_for_the_probe(void **state)
{
    struct fake *f = *state;
    struct answer held[2], a, b;
    fill(f, 2, held);
    ask(f, "a", &a);
    ask(f, "a", &b);
    instance_of(f, "a")->breaker.failures = BREAKER_FAILURES - 1;
    end(&held[0], POOL_END_FAILED);
    fake_settle(f);
    assert_false(a.told);
    fake_advance_ms(1300);
    fake_run_until(f, is_told, &a); /* the pool looks again by itself */
    assert_int_equal(a.rc, RC_OK);
    assert_false(b.told);
    give_back(&a, false);
    must_get(&b);
}

/* ---- several instances of a model ---- */

static void two_instances(struct fake *f, uint32_t least)
{
    f->slots = 1;
    f->settings[0].instances_min = least;
    f->settings[0].instances_max = 2;
    f->settings[0].settings_hash = 2;
    fake_set_models(f, f->n_models);
}

static bool two_run(struct fake *f, void *arg)
{
    (void)arg;
    struct pool_counters c;
    pool_counters(f->pool, &c);
    return c.instances[POOL_READY] == 2;
}

static void test_a_second_instance_comes_with_pressure(void **state)
{
    struct fake *f = *state;
    struct answer a[4];
    two_instances(f, 1);
    ask(f, "a", &a[0]);
    must_get(&a[0]);
    fake_settle(f);
    assert_int_equal(fake_model(f, "a")->started, 1);
    ask(f, "a", &a[1]); /* as many wait as run */
    must_get(&a[1]);
    assert_int_equal(fake_model(f, "a")->started, 2);
    assert_int_not_equal(a[0].lease.port, a[1].lease.port);
    assert_string_not_equal(a[0].lease.instance, a[1].lease.instance);
    assert_string_equal(a[0].lease.model, a[1].lease.model);
    ask(f, "a", &a[2]);
    ask(f, "a", &a[3]);
    fake_settle(f);
    assert_false(a[2].told);
    assert_int_equal(fake_model(f, "a")->started, 2); /* no third */
    give_back(&a[1], false);
    must_get(&a[2]);
    assert_int_equal(a[2].lease.port, a[1].lease.port);
}

static void test_all_that_must_run_are_loaded_at_once(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    two_instances(f, 2);
    ask(f, "a", &a);
    must_get(&a);
    fake_run_until(f, two_run, NULL);
    ask(f, "a", &b);
    assert_int_equal(b.first, POOL_GRANTED);
    assert_int_not_equal(a.lease.port, b.lease.port); /* the less busy one */
}

/* 400 of 1000 MiB are a's and 400 b's: a second a has no room, and b, idle as it is, stays. */
static void test_nobody_leaves_for_one_more(void **state)
{
    struct fake *f = *state;
    struct answer a, b, c;
    two_instances(f, 1);
    ask(f, "b", &b);
    must_get(&b);
    give_back(&b, false);
    ask(f, "a", &a);
    must_get(&a);
    ask(f, "a", &c);
    fake_settle(f);
    assert_false(c.told);
    assert_false(decided(f, "evict b"));
    assert_int_equal(fake_model(f, "a")->started, 1);
    give_back(&a, false);
    must_get(&c); /* the refusal of the second is not the request's */
}

static void test_a_failing_second_instance_fails_nobody(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    two_instances(f, 1);
    fake_script(f, "a", (enum behaviour[]){CHILD_READY, CHILD_DIES}, 2);
    ask(f, "a", &a);
    must_get(&a);
    ask(f, "a", &b);
    fake_settle(f);
    assert_int_equal(fake_model(f, "a")->started, 2);
    assert_false(b.told);
    give_back(&a, false);
    must_get(&b);
}

static void test_unload_takes_all_of_them(void **state)
{
    struct fake *f = *state;
    struct answer a;
    two_instances(f, 2);
    ask(f, "a", &a);
    must_get(&a);
    give_back(&a, false);
    fake_run_until(f, two_run, NULL);
    pool_unload(f->pool, STR("a"), false, NULL, NULL);
    fake_settle(f);
    assert_null(instance_of(f, "a"));
    assert_int_equal(f->n_alive, 0);
    ask(f, "a", &a);
    must_get(&a);
}

static void test_settings_take_instances_away(void **state)
{
    struct fake *f = *state;
    struct answer a;
    two_instances(f, 2);
    ask(f, "a", &a);
    must_get(&a);
    fake_run_until(f, two_run, NULL);
    f->settings[0].instances_min = f->settings[0].instances_max = 1;
    f->settings[0].settings_hash = 3;
    fake_set_models(f, f->n_models);
    give_back(&a, false);
    fake_settle(f);
    assert_int_equal(f->n_alive, 0);
    ask(f, "a", &a);
    must_get(&a);
    assert_int_equal(f->n_alive, 1);
}

static void test_broken_instances_are_avoided(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    two_instances(f, 2);
    ask(f, "a", &a);
    must_get(&a);
    fake_run_until(f, two_run, NULL);
    uint16_t bad = a.lease.port;
    end(&a, POOL_END_FAILED);
    for (int i = 0; i < 20; i++) { /* it is idle as the other one, but it failed */
        ask(f, "a", &b);
        assert_int_equal(b.first, POOL_GRANTED);
        assert_int_not_equal(b.lease.port, bad);
        give_back(&b, false);
    }
}

static void test_conversations_return_to_their_instance(void **state)
{
    struct fake *f = *state;
    char text[2][4096];
    uint16_t port[2];
    struct answer a[2], other;
    two_instances(f, 2);
    f->slots = 4;
    ask(f, "a", &other);
    must_get(&other);
    fake_run_until(f, two_run, NULL);
    give_back(&other, false);
    memset(text[0], 'x', sizeof text[0]);
    memset(text[1], 'y', sizeof text[1]);
    for (int turn = 0; turn < 8; turn++) /* each turn the conversation is longer */
        for (int k = 0; k < 2; k++) {
            struct pool_request r = request("a", 0, LINE_NORMAL);
            r.prompt = (struct str){text[k], 512 * (size_t)(turn + 1)};
            ask_as(f, &r, &a[k]);
            assert_int_equal(a[k].first, POOL_GRANTED);
            if (turn == 0)
                port[k] = a[k].lease.port;
            assert_int_equal(a[k].lease.port, port[k]);
            if (k == 1)
                give_back(&a[0], false);
            if (k == 1)
                give_back(&a[1], false);
        }
    assert_int_not_equal(port[0], port[1]);
    struct pool_counters c;
    pool_counters(f->pool, &c);
    assert_int_equal(c.prefix_hits, 14);
}

static void test_a_busy_instance_loses_its_conversations(void **state)
{
    struct fake *f = *state;
    char text[1024];
    struct answer a[4], other;
    two_instances(f, 2);
    f->slots = 8;
    ask(f, "a", &other);
    must_get(&other);
    fake_run_until(f, two_run, NULL);
    give_back(&other, false);
    memset(text, 'x', sizeof text);
    struct pool_request r = request("a", 0, LINE_NORMAL);
    r.prompt = (struct str){text, sizeof text};
    for (int i = 0; i < 4; i++) {
        ask_as(f, &r, &a[i]);
        assert_int_equal(a[i].first, POOL_GRANTED);
    }
    assert_int_equal(a[0].lease.port, a[2].lease.port); /* up to two more than the idle one */
    assert_int_not_equal(a[0].lease.port, a[3].lease.port);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_slots_bound_what_runs),
        TEST(test_surplus_is_sent_beyond_the_slots),
        TEST(test_a_load_serves_no_more_than_its_slots),
        TEST(test_a_flood_of_one_key_does_not_keep_another_out),
        TEST(test_bands),
        TEST(test_starvation_is_bounded_by_grants),
        TEST(test_cancelling_frees_the_place),
        TEST(test_a_full_line_says_when_to_come_back),
        TEST(test_waiting_for_a_slot_is_bounded_over_all_attempts),
        TEST(test_light_requests_need_no_slot),
        TEST(test_a_crash_keeps_the_line),
        TEST(test_a_line_outlives_an_eviction),
        TEST(test_errors_in_a_row_open_the_breaker),
        TEST(test_light_requests_do_not_close_it),
        TEST(test_clients_that_leave_never_open_it),
        TEST(test_those_in_line_wait_for_the_probe),
        TEST(test_a_second_instance_comes_with_pressure),
        TEST(test_all_that_must_run_are_loaded_at_once),
        TEST(test_nobody_leaves_for_one_more),
        TEST(test_a_failing_second_instance_fails_nobody),
        TEST(test_unload_takes_all_of_them),
        TEST(test_settings_take_instances_away),
        TEST(test_broken_instances_are_avoided),
        TEST(test_conversations_return_to_their_instance),
        TEST(test_a_busy_instance_loses_its_conversations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
