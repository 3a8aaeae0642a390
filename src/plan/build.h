/* Builds the graph of one batch as the runtime reserves it: the worst case, a full micro-batch over a full
 * cache. Layer plan, internal. Node order follows the runtime's: sources are created when needed and expanded
 * where it does.
 *
 *   build.c          inputs, weights, norms, products, the head
 *   repeat.c         which layers are built
 *   build_attn.c     attention over the cache, with and without flash attention
 *   build_latent.c   what latent attention attends to
 *   build_indexer.c  the choice of keys in sparse attention
 *   build_ffn.c      feed-forward, experts
 *   build_router.c   the choice of experts
 *   build_models.c   one function a family
 *   build_recurrent.c blocks that keep states
 *   build_lightning.c … of attention without softmax
 *   build_encoder.c  BERT, pooling
 *   build_t5.c       T5: an encoder, or a decoder that reads one's result
 *   build_rwkv.c     RWKV
 *   build_gemma.c    gemma4
 *   build_gemma3n.c  gemma3n
 *   build_hybrid.c   recurrent models and hybrids of them with attention
 *
 * Equal layers repeat the same pattern of births and deaths, so one of each kind is built. */
#ifndef PLAN_BUILD_H
#define PLAN_BUILD_H

#include "plan/graph.h"
#include "plan/layout.h"

struct build {
    struct graph *g;
    const struct layout *l;
    const struct facts *f;
    uint32_t n_tokens, n_seqs;
    uint32_t turn; /* layers that ran before this turn of those in the file */
    /* graph inputs, made when first used; [1] = of the sliding cache, [2] = of what an encoder made */
    int32_t positions, out_rows, position_scale, k_rows[2], v_rows[2], mask[3], k_rot[2], v_rot[2];
    int32_t state_rows, state_main, state_extra; /* recurrent: which state each slot reads */
    int32_t rope_factors[LAYOUT_MAX_BACKENDS];
    int32_t token_embd, wide_input, first_part;
    struct { /* sparse attention: inputs, and the keys that were chosen last */
        int32_t rows, mask, turn, chosen;
    } index;
    int32_t slopes, fading[3];  /* lightning attention: a rate a head; how queries, keys, pairs fade */
    int32_t distances, encoded; /* T5: pairs of tokens as classes of distance; the encoder's result */
    const uint16_t *emit;       /* layers to build, ascending: `chosen`, or some of them in `anew` */
    uint32_t n_emit;
    uint16_t chosen[FACTS_MAX_LAYERS], anew[FACTS_MAX_LAYERS];
    int32_t ends[FACTS_MAX_LAYERS]; /* tensors there were when the layer ended, of each place in emit */
    uint32_t n_ends;
    uint64_t
        sign[FACTS_MAX_LAYERS]; /* of each place in emit: equal ones are the same layer in another place */
    uint16_t segment[FACTS_MAX_LAYERS];      /* of each layer to walk over: the place in emit of the one that
                                              * stands      for it */
    uint32_t n_walk;                         /* without the layers of devices that another one stands for */
    int8_t confined[FACTS_MAX_LAYERS];       /* of each place in emit: see walk.h */
    int8_t like_device[LAYOUT_MAX_BACKENDS]; /* of each device the one whose graph takes as much */
    bool expects_refusals;                   /* layers are chosen for devices that refuse some operations */
    bool trusts;                             /* … for devices that refuse none: void if graph.refused */
};

/* Which layers are built. What one way leaves out too much, the next one does not. */
enum build_choice {
    BUILD_FEW,  /* one of each kind in each surroundings */
    BUILD_LAST, /* … and the last of each kind: there dies what only they read */
    BUILD_ENDS, /* … and the first */
    BUILD_ALL
};
/* repeat.c: fills emit and what is told of its places. refusals: do not trust that devices refuse nothing. */
void build_choose(struct build *b, const struct layout *l, enum build_choice choice, bool refusals);
/* The graph of the emitted layers; whoever built with b before must not count on anything but that. */
void build_graph(struct build *b, struct graph *g);
/* Marks a layer's result. */
static inline void build_layer_end(struct build *b, int32_t t)
{
    b->g->t[t].flags |= GF_MARK;
    if (b->n_ends < FACTS_MAX_LAYERS)
        b->ends[b->n_ends++] = b->g->n_t;
}

/* parts */
int32_t build_weight(struct build *b, int32_t weight);
static inline int32_t layer_weight(const struct build *b, uint32_t il, enum role r)
{
    return b->f->layers[il].tensor[r];
}
/* The weight by which that weight's product is multiplied; -1 = none, or no such weight. */
static inline int32_t build_scale(const struct build *b, int32_t weight)
{
    return weight < 0 ? -1 : b->f->weights[weight].scale;
}
int32_t build_norm(struct build *b, int32_t cur, int32_t weight, int32_t bias);
/* … behind layer il, the last of a turn */
int32_t build_turn_norm(struct build *b, int32_t cur, uint32_t il);
/* … of one head's queries or keys */
int32_t build_head_norm(struct build *b, int32_t cur, int32_t weight, int32_t bias);
int32_t build_product(struct build *b, int32_t weight, int32_t cur);
/* The product `out` of a weight and cur with what adapters add to it; chosen: the experts' ids, -1 = none. */
int32_t build_adapted(struct build *b, int32_t weight, int32_t cur, int32_t chosen, int32_t out);
int32_t build_product_bias(struct build *b, int32_t weight, int32_t bias, int32_t cur);
int32_t build_positions(struct build *b);
int32_t build_embeddings(struct build *b);
int32_t build_input_part(struct build *b, uint32_t part); /* of a deepstack model's wide input */
int32_t build_out_rows(struct build *b);
int32_t build_position_scale(struct build *b); /* one factor a token for queries */
void build_head(struct build *b, int32_t cur);
int32_t build_rope(struct build *b, int32_t cur, uint32_t il);
/* q, k, v are [width, heads, tokens]; returns the output product's result, or what comes before it. */
int32_t build_attention_heads(struct build *b, int32_t q, int32_t k, int32_t v, uint32_t il);
/* … over keys and values that an encoder made, which no cache keeps. */
int32_t build_attention_cross(struct build *b, int32_t q, int32_t k, int32_t v, uint32_t il);
int32_t build_attention(struct build *b, int32_t q, int32_t k, int32_t v, uint32_t il);
/* The keys that each query may read, [top, tokens]. cur: the normed input; narrow: the queries' narrow row.
 */
int32_t build_indexer(struct build *b, int32_t cur, int32_t narrow, uint32_t il);
/* The mask that hides all but those. */
int32_t build_chosen_mask(struct build *b, int32_t mask);
/* Queries, keys and values of latent attention: then build_attention. */
void build_latent(struct build *b, int32_t cur, uint32_t il, int32_t *ret_q, int32_t *ret_k, int32_t *ret_v);
int32_t build_ffn(struct build *b, int32_t cur, uint32_t il);
/* … with the experts' logits made elsewhere; -1: cur's own. */
int32_t build_ffn_routed(struct build *b, int32_t cur, int32_t logits, uint32_t il);
int32_t build_dense(struct build *b, int32_t cur, uint32_t il);
/* What the experts are chosen by, from `routed`. */
int32_t build_router_logits(struct build *b, int32_t routed, uint32_t il);
int32_t build_experts(struct build *b, int32_t cur, int32_t logits, uint32_t il);
/* What a token gets of its experts: their numbers, [used, tokens], and their weights, [1, used, tokens]. */
struct routing {
    int32_t chosen, weights;
};
/* experts: how many there are to choose from: the model's, or the chunks that groups of them share. */
struct routing build_router(struct build *b, int32_t logits, uint32_t il, uint32_t experts);
/* What scores get for the distance of their tokens. cells: of the cache, or as many as a batch is padded to.
 */
int32_t build_position_bias(struct build *b, uint64_t cells, uint32_t il);
/* Projections, norms and positions of q, k, v, then build_attention. */
int32_t build_attend(struct build *b, int32_t cur, uint32_t il);
/* Blocks that keep states: cur is the normed input [embd, tokens], the result has its shape. normed: the norm
 * is made inside, after the states are read. */
/* A layer's stored states of this batch's sequences, [width, sequences]; those of others stay in place. */
int32_t build_states_load(struct build *b, uint32_t il, uint64_t width, int32_t *ret_stored);
void build_states_store(struct build *b, int32_t from, int32_t stored, uint64_t n);
int32_t build_mamba(struct build *b, int32_t cur, uint32_t il);
int32_t build_mamba_steps(struct build *b, int32_t cur, uint32_t il);
int32_t build_mamba2(struct build *b, int32_t cur, uint32_t il);
int32_t build_short_conv(struct build *b, int32_t cur, uint32_t il);
int32_t build_delta_net(struct build *b, int32_t cur, uint32_t il);
int32_t build_kimi_delta(struct build *b, int32_t cur, uint32_t il);
int32_t build_lightning(struct build *b, int32_t cur, uint32_t il);
/* The tokens' rows of the embedding matrix. */
int32_t build_token_rows(struct build *b);
/* Ends a graph without logits: the states are its result, and what they are pooled to. */
void build_embedding(struct build *b, int32_t state);
/* The way of pooling that applies: 0 = none, the server gives no embeddings or a row for every token. */
uint32_t build_pooling(const struct build *b);
void build_bert(struct build *b);
void build_t5(struct build *b);
void build_transformer(struct build *b);
void build_gemma4(struct build *b);
void build_gemma3n(struct build *b);
/* Embeddings that each layer has of its own: rows of the table for this batch, all layers side by side; then
 * what is added to them; then one layer's part. */
int32_t build_layer_rows(struct build *b);
int32_t build_layer_inputs(struct build *b, int32_t selected, int32_t state);
int32_t build_layer_input(struct build *b, int32_t inputs, uint32_t il);
/* Attention of gemma4 and gemma3n: values are normed, too. */
int32_t build_gemma_attention(struct build *b, int32_t cur, uint32_t il);
void build_hybrid(struct build *b);
void build_rwkv(struct build *b);

#endif
