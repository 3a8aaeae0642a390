/* Sums of what was spent: see spend.h. Layer daemon; pure. */
#include "daemon/spend.h"

#include <time.h>

#define DAY_MS 86400000

static int64_t day_of(int64_t wall_ms)
{
    return wall_ms / DAY_MS;
}

static int64_t month_of(int64_t wall_ms)
{
    const time_t at = (time_t)(wall_ms / 1000);
    struct tm tm = {0};
    (void)gmtime_r(&at, &tm);
    return ((int64_t)tm.tm_year + 1900) * 12 + tm.tm_mon;
}

static int64_t start_of_month_ms(int64_t month)
{
    struct tm tm = {.tm_year = (int)(month / 12) - 1900, .tm_mon = (int)(month % 12), .tm_mday = 1};
    return (int64_t)timegm(&tm) * 1000;
}

void spend_turn(struct spend *s, int64_t wall_ms)
{
    int64_t day = day_of(wall_ms), month = month_of(wall_ms);
    if (day != s->day)
        s->in_day = 0;
    if (month != s->month)
        s->in_month = 0;
    s->day = day;
    s->month = month;
}

void spend_add(struct spend *s, double amount, int64_t wall_ms)
{
    spend_turn(s, wall_ms);
    s->in_day += amount;
    s->in_month += amount;
}

bool spend_is_over(struct spend *s, const struct spend_limits *limits, int64_t wall_ms, const char **ret_what,
                   double *ret_limit, int64_t *ret_reset_ms)
{
    spend_turn(s, wall_ms);
    if (limits->per_month > 0 && s->in_month >= limits->per_month) {
        *ret_what = "month";
        *ret_limit = limits->per_month;
        *ret_reset_ms = start_of_month_ms(s->month + 1);
        return true;
    }
    if (limits->per_day > 0 && s->in_day >= limits->per_day) {
        *ret_what = "day";
        *ret_limit = limits->per_day;
        *ret_reset_ms = (s->day + 1) * DAY_MS;
        return true;
    }
    return false;
}

double spend_cost(uint64_t prompt_tokens, uint64_t completion_tokens, double price_input, double price_output)
{
    return ((double)prompt_tokens * price_input + (double)completion_tokens * price_output) / 1e6;
}
