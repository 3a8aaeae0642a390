/* Streams of requests for the simulation: who asks which model when, and how many tokens go in and out. Tests
 * only; deterministic in their seed.
 *
 * Two kinds. Made up (mix_household): twelve people with their habits over two weeks, a job every hour and
 * one every night; every figure is stated in mix.c. Recorded (mix_trace): sizes and arrivals of a file with
 * the columns TIMESTAMP,ContextTokens,GeneratedTokens, such as the Azure LLM inference dataset 2023 (CC-BY;
 * P. Patel et al., "Splitwise", ISCA 2024), whose requests are handed to models by a chain that mostly stays
 * with one. */
#ifndef BENCH_MIX_H
#define BENCH_MIX_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MIX_MODELS 12

struct mix_request {
    double at; /* seconds from the start */
    uint32_t model;
    uint32_t in, out; /* tokens */
};

struct stream { /* sorted by time; list is owned */
    struct mix_request *list;
    size_t n, cap;
    double end;
};

/* What the models are in the table of the caller: places that the habits refer to. */
enum mix_role { MIX_EMBED, MIX_SMALL, MIX_CODE, MIX_LARGE, MIX_CHAT }; /* MIX_CHAT and after: by popularity */

void mix_household(uint64_t seed, double days, struct stream *ret);
/* stretch: seconds of the simulation for one of the file. RC_IO, RC_INVALID. */
enum rc mix_trace(const char *path, uint64_t seed, double stretch, struct stream *ret, struct err *err);
void mix_release(struct stream *m);

#endif
