/* What loads teach: the driver's figure of a process, the difference of a device's memory, the kernel's
 * figure of the host, the time a load took; and what is no lesson. */
#include "fake.h"

#include <stdio.h>
#include <string.h>

#define MAX_LESSONS 16

struct school {
    struct learn_sample lessons[MAX_LESSONS];
    unsigned n, taught;
    char runtime[96];
    bool flash_attn;
};
static struct school school;

static void on_lesson(void *arg, const char *model, const struct learn_sample *s)
{
    (void)arg;
    assert_true(model[0] == 'a' || model[0] == 'b');
    assert_true(school.n < MAX_LESSONS);
    school.lessons[school.n++] = *s;
}

static void on_teach(void *arg, const struct model *m, const char *runtime, bool flash_attn,
                     struct plan_machine *machine)
{
    (void)arg;
    assert_non_null(m);
    school.taught++;
    snprintf(school.runtime, sizeof school.runtime, "%s", runtime);
    school.flash_attn = flash_attn;
    machine->host.overhead_bytes = 7 * MIB;
}

static const struct learn_sample *lesson(enum learn_kind kind)
{
    for (unsigned k = 0; k < school.n; k++)
        if (school.lessons[k].kind == kind)
            return &school.lessons[k];
    return NULL;
}

static bool anon(pid_t pid, uint64_t *ret_bytes)
{
    (void)pid;
    *ret_bytes = 30 * MIB;
    return true;
}

static int setup(void **state)
{
    if (fake_setup(state) != 0)
        return -1;
    struct fake *f = *state;
    school = (struct school){0};
    f->pool->opt.hooks.lesson = on_lesson;
    f->pool->opt.hooks.teach = on_teach;
    f->pool->deps.anon_bytes = anon;
    snprintf(f->caps.version, sizeof f->caps.version, "0.7.0 (build 1)");
    snprintf(f->inventory.host.model, sizeof f->inventory.host.model, "Toy CPU");
    for (size_t k = 0; k < f->n_models; k++) {
        f->models[k].facts.architecture = "llama";
        f->models[k].facts.quantization = "Q4_0";
        f->models[k].facts.tensor_bytes = 1000;
    }
    f->inventory.n_devices = 1;
    f->inventory.devices[0] = (struct hw_device){.name = "CUDA0",
                                                 .model = "Toy card",
                                                 .valid = HW_MEMORY,
                                                 .total_bytes = 8000 * MIB,
                                                 .used_bytes = 500 * MIB,
                                                 .free_bytes = 7500 * MIB};
    return 0;
}

/* As if the planner had put 1000 MiB on the card: the fake one knows the host only. */
static void put_on_card(struct pool_instance *i)
{
    i->plan.n_used = 1;
    i->plan.used[0] = 0;
    i->machine.n_devices = 1;
    plan_device_named(&i->machine.devices[0], STR("CUDA0"), 8000 * MIB, 7500 * MIB);
    snprintf(i->machine.devices[0].model, sizeof i->machine.devices[0].model, "Toy card");
    i->plan.estimate.n_parts = 2;
    i->plan.estimate.parts[1] = i->plan.estimate.parts[0];
    i->plan.estimate.parts[0] =
        (struct plan_part){.name = "CUDA0", .kind = PLAN_GPU, .model_bytes = 1000 * MIB};
    lesson_launched(i);
}

static struct pool_instance *load_on_card(struct fake *f, const char *id, struct answer *a)
{
    ask(f, id, a);
    must_get(a);
    struct pool_instance *i = instance_of(f, id);
    put_on_card(i);
    return i;
}

static void test_host_and_time_are_learned_when_ready(void **state)
{
    struct fake *f = *state;
    struct answer a;
    ask(f, "a", &a);
    must_get(&a);
    assert_int_equal(school.taught, 1);
    assert_string_equal(school.runtime, "0.7.0 (build 1)");
    assert_true(school.flash_attn);
    assert_true(instance_of(f, "a")->machine.host.overhead_bytes == 7 * MIB);
    const struct learn_sample *s = lesson(LEARN_OVERHEAD);
    assert_non_null(s);
    assert_string_equal(s->key.device, "Toy CPU");
    assert_string_equal(s->key.architecture, "llama");
    assert_true(s->value >= 0);
    give_back(&a, false);
}

static void test_a_process_has_its_own_figure(void **state)
{
    struct fake *f = *state;
    struct answer a;
    struct pool_instance *i = load_on_card(f, "a", &a);
    school.n = 0;
    struct hw_device *d = &f->inventory.devices[0];
    d->valid |= HW_PROCESSES;
    d->n_processes = 2;
    d->processes[0] = (struct hw_process){.pid = 1, .bytes = 99 * MIB, .bytes_valid = true};
    d->processes[1] = (struct hw_process){
        .pid = f->pool->deps.launch->pid(i->job), .bytes = 1321 * MIB, .bytes_valid = true};
    pool_inventory_changed(f->pool); /* a sample of before it was ready tells nothing */
    assert_int_equal(school.n, 0);
    fake_advance_ms(10);
    fake_sample(f);
    pool_inventory_changed(f->pool);
    assert_int_equal(school.n, 1);
    assert_string_equal(school.lessons[0].key.device, "Toy card");
    assert_true(school.lessons[0].value == 321.0 * MIB);
    assert_int_equal(i->driver_bytes[0], 1321 * MIB);
    fake_advance_ms(10);
    fake_sample(f);
    pool_inventory_changed(f->pool); /* once a load */
    assert_int_equal(school.n, 1);
    give_back(&a, false);
}

static void test_the_difference_counts_when_nothing_else_changed(void **state)
{
    struct fake *f = *state;
    struct answer a;
    (void)load_on_card(f, "a", &a);
    school.n = 0;
    f->inventory.devices[0].used_bytes = 1900 * MIB;
    fake_advance_ms(10);
    fake_sample(f);
    pool_inventory_changed(f->pool);
    assert_int_equal(school.n, 1);
    assert_true(school.lessons[0].value == 400.0 * MIB);
    give_back(&a, false);
}

static void test_another_start_spoils_the_difference(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    (void)load_on_card(f, "a", &a);
    ask(f, "b", &b);
    must_get(&b);
    school.n = 0;
    f->inventory.devices[0].used_bytes = 1900 * MIB;
    fake_advance_ms(10);
    fake_sample(f);
    pool_inventory_changed(f->pool);
    assert_int_equal(school.n, 0);
    give_back(&a, false);
    give_back(&b, false);
}

static void test_a_card_without_figures_teaches_nothing(void **state)
{
    struct fake *f = *state;
    struct answer a;
    (void)load_on_card(f, "a", &a);
    school.n = 0;
    f->inventory.devices[0].valid = 0;
    fake_advance_ms(10);
    fake_sample(f);
    pool_inventory_changed(f->pool);
    assert_int_equal(school.n, 0);
    give_back(&a, false);
}

static void test_company_is_noticed(void **state)
{
    struct fake *f = *state;
    struct answer a, b;
    ask(f, "a", &a);
    must_get(&a);
    struct pool_instance *i = instance_of(f, "a");
    assert_int_equal(i->crowded_ms, 0);
    fake_advance_ms(100);
    ask(f, "a", &b);
    assert_int_equal(b.first, POOL_GRANTED);
    assert_true(i->crowded_ms > 0);
    uint64_t then = i->crowded_ms;
    fake_advance_ms(100);
    give_back(&b, false);
    assert_int_equal(i->crowded_ms, then + 100);
    fake_advance_ms(50);
    const struct plan_timing t = {
        .prompt_tokens = 100, .prompt_seconds = 1, .decode_tokens = 100, .decode_seconds = 1};
    school.n = 0;
    pool_timing(f->pool, i->id, &t, 60); /* it ran beside the other */
    pool_timing(f->pool, "none#1", &t, 1);
    pool_timing(f->pool, i->id, &t, 10); /* alone, but of a model that the planner does not know */
    assert_int_equal(school.n, 0);
    assert_int_equal(i->timings, 0);
    give_back(&a, false);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, fake_teardown)
    const struct CMUnitTest tests[] = {
        T(test_host_and_time_are_learned_when_ready),
        T(test_a_process_has_its_own_figure),
        T(test_the_difference_counts_when_nothing_else_changed),
        T(test_another_start_spoils_the_difference),
        T(test_a_card_without_figures_teaches_nothing),
        T(test_company_is_noticed),
    };
    return cmocka_run_group_tests_name("lesson", tests, NULL, NULL);
}
