/* Unit tests of the metrics: the text form, escaping, histograms, bounded series. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "watch/metrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *text_of(const struct metrics *m)
{
    struct buf out = {0};
    metrics_text(m, &out);
    return buf_take(&out);
}

static void has(const struct metrics *m, const char *line)
{
    char *text = text_of(m);
    if (!strstr(text, line))
        fail_msg("\"%s\" is not in:\n%s", line, text);
    free(text);
}

static void nothing_is_told_of_empty_families(void **state)
{
    (void)state;
    struct metrics *m = metrics_new();
    char *text = text_of(m);
    assert_string_equal(text, "");
    free(text);
    metrics_free(m);
    metrics_free(NULL);
}

static void counters_and_gauges_have_help_type_and_value(void **state)
{
    (void)state;
    struct metrics *m = metrics_new();
    metrics_add(m, METRIC_LOADS, NULL, 1);
    metrics_add(m, METRIC_LOADS, NULL, 2);
    metrics_add(m, METRIC_LOADS, NULL, -5);
    metrics_add(m, METRIC_LOADS, NULL, NAN);
    has(m, "# HELP arriero_loads_total Loads that became ready.\n# TYPE arriero_loads_total counter\n"
           "arriero_loads_total 3\n");
    metrics_set(m, METRIC_GPU_POWER, (const char *[]){"GPU-1"}, 12.5);
    metrics_set(m, METRIC_GPU_POWER, (const char *[]){"GPU-2"}, 0);
    has(m, "# TYPE arriero_gpu_power_watts gauge\narriero_gpu_power_watts{uuid=\"GPU-1\"} 12.5\n"
           "arriero_gpu_power_watts{uuid=\"GPU-2\"} 0\n");
    assert_true(metrics_value(m, METRIC_GPU_POWER, (const char *[]){"GPU-1"}) == 12.5);
    assert_true(metrics_value(m, METRIC_GPU_POWER, (const char *[]){"GPU-3"}) == 0);
    metrics_clear(m, METRIC_GPU_POWER);
    char *text = text_of(m);
    assert_null(strstr(text, "arriero_gpu_power_watts"));
    free(text);
    metrics_set(m, METRIC_START_TIME, NULL, 1795237216.125);
    has(m, "arriero_start_time_seconds 1795237216.125\n");
    metrics_free(m);
}

static void label_values_are_escaped(void **state)
{
    (void)state;
    struct metrics *m = metrics_new();
    metrics_add(m, METRIC_REQUESTS, (const char *[]){"a\\b\"c\nd", NULL}, 1);
    has(m, "arriero_requests_total{model=\"a\\\\b\\\"c\\nd\",outcome=\"\"} 1\n");
    metrics_free(m);
}

static void histograms_are_cumulative(void **state)
{
    (void)state;
    struct metrics *m = metrics_new();
    const char *label[] = {"m"};
    metrics_observe(m, METRIC_TTFT, label, 0.003);
    metrics_observe(m, METRIC_TTFT, label, 0.005); /* a bound belongs to its bucket */
    metrics_observe(m, METRIC_TTFT, label, 0.3);
    metrics_observe(m, METRIC_TTFT, label, 1e9);
    metrics_observe(m, METRIC_TTFT, label, -1);
    metrics_observe(m, METRIC_LOADS, NULL, 1); /* no histogram: ignored */
    has(m, "# TYPE arriero_ttft_seconds histogram\n");
    has(m, "arriero_ttft_seconds_bucket{model=\"m\",le=\"0.005\"} 2\n");
    has(m, "arriero_ttft_seconds_bucket{model=\"m\",le=\"0.25\"} 2\n");
    has(m, "arriero_ttft_seconds_bucket{model=\"m\",le=\"0.5\"} 3\n");
    has(m, "arriero_ttft_seconds_bucket{model=\"m\",le=\"600\"} 3\n");
    has(m, "arriero_ttft_seconds_bucket{model=\"m\",le=\"+Inf\"} 4\n");
    has(m, "arriero_ttft_seconds_count{model=\"m\"} 4\n");
    metrics_observe(m, METRIC_OVERHEAD, NULL, 0.00003);
    has(m, "arriero_overhead_seconds_bucket{le=\"5e-05\"} 1\n");
    has(m, "arriero_overhead_seconds_sum 3e-05\n");
    char *text = text_of(m);
    assert_null(strstr(text, "arriero_loads_total"));
    free(text);
    metrics_free(m);
}

static void series_are_bounded(void **state)
{
    (void)state;
    struct metrics *m = metrics_new();
    for (int i = 0; i < 10000; i++) {
        char model[32];
        snprintf(model, sizeof model, "m%d", i);
        metrics_add(m, METRIC_REQUESTS, (const char *[]){model, "ok"}, 1);
    }
    char *text = text_of(m);
    size_t lines = 0;
    for (const char *p = text; (p = strstr(p, "arriero_requests_total{")); p++)
        lines++;
    free(text);
    assert_int_equal(lines, METRICS_MAX_SERIES);
    const char *other[] = {"other", "other"};
    assert_true(metrics_value(m, METRIC_REQUESTS, other) == 10000 - (METRICS_MAX_SERIES - 1));
    /* a series that exists is still found */
    metrics_add(m, METRIC_REQUESTS, (const char *[]){"m0", "ok"}, 1);
    assert_true(metrics_value(m, METRIC_REQUESTS, (const char *[]){"m0", "ok"}) == 2);
    metrics_free(m);
}

static void names_follow_the_rules(void **state)
{
    (void)state;
    static const struct {
        const char *name, *type, *labels;
    } all[] = {
#define METRIC(id, name, type, labels, help) {name, #type, labels},
#include "watch/metrics.def"
#undef METRIC
    };
    for (size_t i = 0; i < METRIC_COUNT; i++) {
        assert_int_equal(strncmp(all[i].name, "arriero_", 8), 0);
        assert_int_equal(strspn(all[i].name, "abcdefghijklmnopqrstuvwxyz_"), strlen(all[i].name));
        size_t n = strlen(all[i].name);
        bool total = n > 6 && strcmp(all[i].name + n - 6, "_total") == 0;
        assert_int_equal(total, strcmp(all[i].type, "COUNTER") == 0);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(all[i].name, all[k].name);
    }
    struct buf out = {0};
    metrics_reference(&out);
    assert_non_null(strstr(out.data, "| `arriero_evictions_total` | counter |"));
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_told_of_empty_families),
        cmocka_unit_test(counters_and_gauges_have_help_type_and_value),
        cmocka_unit_test(label_values_are_escaped),
        cmocka_unit_test(histograms_are_cumulative),
        cmocka_unit_test(series_are_bounded),
        cmocka_unit_test(names_follow_the_rules),
    };
    return cmocka_run_group_tests_name("watch_metrics", tests, NULL, NULL);
}
