/* What is kept of a graph that was scheduled and traced, for the next question alike. Layer plan, internal;
 * pure; a record belongs to one estimator.
 *
 * Where every operation runs, which tensors are copied, which takes over whose memory and who dies when
 * follows from what reads what and from the answers to a few questions about sizes (graph.h). Most questions
 * about a model differ in sizes only. So only the tensors are made anew, and of those only the layers that no
 * other built layer is like: if they consist of the same operations and every question has the same answer,
 * the recorded trace is that of the new graph, with other sizes. Nothing is taken for granted: a difference
 * means that all is built again, and recorded in its place. */
#ifndef PLAN_RECORD_H
#define PLAN_RECORD_H

#include "plan/build.h"

struct record {
    uint64_t *words; /* which layers of which kind lie where, and what else decides the structure */
    size_t n_words, cap_words;
    uint16_t place[FACTS_MAX_LAYERS]; /* in emit, of the layers that are made anew */
    uint32_t n_places;                /* 0 = nothing is recorded */
    struct graph sizes;               /* these, as they were built last */
    struct trace trace;
    int32_t *size_of; /* of each cell of the trace: tensor in `sizes`; ~tensor: a copy of that */
    int32_t cap_size_of;
    struct graph_asked *asked; /* about tensors in `sizes`, each once */
    int32_t n_asked, cap_asked;
    uint64_t used; /* turn in which it served last */
};

#define RECORDS     32
#define RECORDS_MET 256
struct records {
    struct record kept[RECORDS];
    uint64_t met[RECORDS_MET]; /* hashes of structures that were asked about last; a hint only */
    uint32_t n_met;
    uint64_t *words; /* of the question at hand */
    size_t n_words, cap_words;
    int32_t *map, cap_map; /* tensors of a graph → those in `sizes` */
    uint64_t *seen;        /* set of questions asked already */
    size_t cap_seen;
    uint64_t turn, served; /* served: questions that a record answered */
};

/* The record of the structure that build_choose chose, or NULL. */
struct record *records_find(struct records *rs, const struct build *b, enum build_choice choice);
/* Makes the record's trace that of the layout's sizes, with g as scratch. False: the graph must be built. */
bool record_apply(struct record *r, struct build *b, struct graph *g, const struct graph_backend *backends);
/* Was this structure asked about before? Most of those that a search tries are not asked about again. */
bool records_met(struct records *rs, const struct build *b, enum build_choice choice);
/* Keeps g, which was built by b, scheduled and traced; takes its trace. */
void records_keep(struct records *rs, struct build *b, enum build_choice choice, struct graph *g,
                  const struct graph_backend *backends);
void records_release(struct records *rs);

#endif
