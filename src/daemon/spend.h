/* What was spent at a server elsewhere, by day and by month (UTC), and whether more may be. Layer daemon;
 * pure; one owner; the clock is passed in. Amounts are in the currency of the user's prices. */
#ifndef DAEMON_SPEND_H
#define DAEMON_SPEND_H

#include <stdbool.h>
#include <stdint.h>

struct spend {          /* all zero: nothing was spent */
    int64_t day, month; /* of the sums: days since 1970, months since year 0 */
    double in_day, in_month;
};

struct spend_limits { /* 0 = no limit */
    double per_day, per_month;
};

/* Begins new sums where the day or the month is over. */
void spend_turn(struct spend *s, int64_t wall_ms);
void spend_add(struct spend *s, double amount, int64_t wall_ms);
/* Whether a limit is reached; then *ret_what ("day", "month"), the limit, and when the sum begins anew. */
bool spend_is_over(struct spend *s, const struct spend_limits *limits, int64_t wall_ms, const char **ret_what,
                   double *ret_limit, int64_t *ret_reset_ms);
/* Price of tokens, from prices of a million. */
double spend_cost(uint64_t prompt_tokens, uint64_t completion_tokens, double price_input,
                  double price_output);

#endif
