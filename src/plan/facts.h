/* What the planner needs of one model, resolved once: architecture row, shape of every layer, every weight
 * with its layer and its role. Layer plan, internal; read-only after facts_init; borrows the model. */
#ifndef PLAN_FACTS_H
#define PLAN_FACTS_H

#include "gguf/model.h"

enum arch_family {
    FAMILY_TRANSFORMER,
    FAMILY_HYBRID,
    FAMILY_RWKV,
    FAMILY_BERT,
    FAMILY_T5,
    FAMILY_GEMMA4,
    FAMILY_GEMMA3N
};

enum arch_flag { /* see architectures.def */
                 SCALES_INPUT = 1 << 0,
                 ROWS_SCALED = 1 << 1,
                 SCALES_Q = 1 << 2,
                 SLIDING = 1 << 3,
                 LOGIT_CAP = 1 << 4,
                 SCORE_CAP = 1 << 5,
                 ROUTER_NORM = 1 << 6,
                 RESIDUAL_FIRST = 1 << 7,
                 LAYER_NORM = 1 << 8,
                 PARALLEL = 1 << 9,
                 JOINED_FIRST = 1 << 10,
                 ROPELESS = 1 << 11,
                 SOFTMAX_LATE = 1 << 12,
                 NORMS_AFTER = 1 << 13,
                 KEEPS_STATE = 1 << 16,
                 SCALES_BY_KEY = 1 << 17,
                 SCALES_ALL = 1 << 18,
                 SQUARES = 1 << 19,
                 ROPE_FIRST = 1 << 20,
                 FOUR_POSITIONS = 1 << 21,
                 SIGMOID = 1 << 22,
                 SCALES_HEAD = 1 << 23,
                 GATE_OPENS = 1 << 26,
                 UNCACHED = 1ull << 32,
                 HEADLESS = 1ull << 33,
                 OUTPUTLESS = 1ull << 37,
                 EARLY_WEIGHTS = 1ull << 34,
                 SCALES_UNTURNED = 1ull << 35,
                 BARE_QK_NORM = 1ull << 36,
                 POSITIONS_BY_KEY = 1ull << 48,
                 IDLE_CACHE = 1ull << 49,
                 BARE_NORMS = 1ull << 50,
                 NORMS_INPUT = 1ull << 51,
                 SCALES_ENDS = 1ull << 52,
                 CAP_BY_KEY = 1ull << 53,
                 ROUTES_INPUT = 1ull << 54,
                 HALVES_SHARED = 1ull << 55,
                 WHOLE_NORM = 1ull << 56,
                 FLASHLESS = 1ull << 57,
                 READS_EMBEDDINGS = 1ull << 59,
                 INDEXED = 1ull << 60,
                 MID_RESIDUAL_FIRST = 1ull << 58,
                 EXACT_EXPERTS = 1ull << 61,
                 EVEN_SLOTS = 1ull << 62,
                 CENTERED_QK = 1ull << 38,
                 HIDES_PICTURES = 1ull << 39,
                 ALL_ROWS = 1ull << 40,
                 CHUNKED = 1ull << 41,
                 IDS_ONLY = 1ull << 42,
                 NORMED_RESIDUAL = 1ull << 43,
                 LOOPS = 1ull << 44,
                 STATES_ONLY = 1ull << 45,
};

struct arch {
    const char *name;
    enum arch_family family;
    uint64_t flags; /* enum arch_flag */
};
/* NULL for an architecture without a row. */
const struct arch *arch_find(const char *name);

enum role {
#define ROLE(id, name, kind) ROLE_##id,
#include "plan/roles.def"
#undef ROLE
    ROLE_COUNT
};
#define ROLE_NONE ROLE_COUNT

enum role_kind { KIND_ELEMENT, KIND_PRODUCT, KIND_EXPERTS, KIND_LOOKUP };
enum role_kind role_kind(enum role r);

/* How a layer of a recurrent or hybrid model mixes tokens, as its tensors tell. */
enum mixer {
    MIXER_ATTENTION,
    MIXER_MAMBA,       /* a state a channel */
    MIXER_MAMBA2,      /* heads and groups; beside attention if the layer has both */
    MIXER_MAMBA_STEPS, /* heads, whose steps and vectors come from the convolved input (PLaMo 2) */
    MIXER_CONV,        /* short convolution, no second state */
    MIXER_DELTA,       /* gated delta net */
    MIXER_KDA,         /* … that forgets each value at a rate of its own (Kimi) */
    MIXER_LIGHTNING,   /* attention without softmax: a square a head, forgotten at a rate a head */
    MIXER_RWKV6,
    MIXER_RWKV7,
    MIXER_NONE, /* a feed-forward block alone */
};

struct layer_facts {
    uint32_t n_head, n_head_kv, d_k, d_v;
    bool sliding;
    bool plain_rope;      /* without factors, though the model has some */
    bool sparse;          /* most gates of the feed-forward block are cut to zero */
    bool rotated;         /* queries and keys carry rotary positions */
    uint16_t cache_layer; /* whose keys and values it reads: its own, or those of a layer before */
    bool cached;          /* keys and values are kept */
    bool recurrent;       /* states are kept */
    uint8_t mixer;
    uint16_t cls;               /* index into facts.classes */
    uint64_t form;              /* equal for layers with the same operations on results of the same sizes */
    uint32_t first_own, n_own;  /* its weights in facts.by_layer */
    int32_t tensor[ROLE_COUNT]; /* index into weights, -1 = the layer has none */
};

/* Where weights may be stored: on each kind of device (enum plan_backend), or on the host in memory of one
 * alignment or the other. */
enum { FACTS_HOST_32 = 6, FACTS_HOST_64, FACTS_STORES };

struct class_bytes {
    uint64_t plain, experts; /* experts: of what --n-cpu-moe moves */
    bool some_refused;       /* the device cannot compute with one of them, which stays on the host */
};

/* Layers with equal weights and equal operations. */
struct layer_class {
    uint64_t id;
    uint32_t layer; /* the first of them */
    struct class_bytes in[FACTS_STORES];
};

/* How a token chooses its experts. */
struct router_facts {
    bool sigmoid; /* probabilities one by one, not over all */
    bool late;    /* only the chosen are weighed */
    bool early;   /* chosen by what is no probability yet; weights are multiplied before the experts */
    bool gates;   /* chosen by probabilities one by one, weighed by those over all */
    bool norm;    /* weights are divided by their sum */
    bool scaled;  /* … and multiplied by a constant */
    uint32_t groups, groups_used; /* 0: not chosen by groups first */
};

/* Attention whose keys and values are made from one narrow row. */
struct latent_facts {
    uint32_t rank; /* width of that row without its rotated part; 0: plain attention */
    uint32_t rope; /* width of the rotated part */
    uint32_t nope; /* … and of the rest of a head's query */
    uint32_t v;    /* width of a head's value */
    bool cached;   /* the row itself is cached, as the keys of a single head; else full keys and values */
};

/* A small attention that chooses the keys of the large one. */
struct indexer_facts {
    uint32_t heads, width, top_k; /* heads 0: none */
};

#define LAYER_INPUT    (-2) /* stays on the host */
#define LAYER_UNLOADED (-3) /* of a layer that only drafts */
struct weight_facts {
    const struct tensor *t;
    int32_t layer;            /* 0 … n_layer-1; n_layer = with the output; LAYER_INPUT */
    uint16_t role;            /* enum role */
    int32_t scale;            /* the weight by which its product is multiplied; -1 = none */
    bool offloadable_experts; /* what --n-cpu-moe moves */
    bool per_layer_copy;      /* rope factors: one copy a buffer that has layers */
};

#define FACTS_MAX_LAYERS 512 /* the runtime's own bound */
struct facts {
    const struct model *m;
    const struct arch *arch;
    uint32_t n_layer, n_embd, n_vocab;
    uint32_t n_expert, n_expert_used;
    uint32_t n_chunk;     /* small experts that groups of experts share; 0 = none */
    uint32_t window;      /* sliding attention: cells back; 0 = none */
    uint32_t n_layer_run; /* without the layers that draft further tokens, which are not loaded */
    uint32_t n_stored;    /* layers in the file; more than that run if each serves several times */
    bool norms_turns;     /* … with the last norm behind every turn */
    uint32_t ctx_short;   /* longest context of a model's first set of rope factors */
    uint32_t positions;   /* numbers that place a token: 1, or 4 */
    uint32_t deepstack;   /* first layers whose results get a part of the input, which is so much wider */
    bool scales_input, scales_residual, scales_head, scales_logits; /* by a constant */
    bool scales_by_position;                                        /* queries, one factor a token */
    bool clamps_qkv;
    bool flashless;      /* scores are always made in full */
    bool caps_logits;    /* they pass a soft cap */
    bool scales_attends; /* what attention gives, by a constant */
    bool norms_results;  /* what blocks give passes the norm that elsewhere stands before them (swin) */
    uint32_t layer_embd; /* width of the embeddings that each layer has of its own; 0 = none */
    bool bare_qk_norm;   /* heads that are rotated are normed, without weights */
    struct router_facts router;
    struct latent_facts latent;
    struct indexer_facts indexer;
    uint32_t ssm_conv, ssm_inner, ssm_state, ssm_rank, ssm_group;
    uint64_t state_r, state_s; /* a recurrent layer's two states, values a sequence; state_s may be 0 */
    uint32_t rescale_every;    /* RWKV: each so many layers the state is halved; 0 = never */
    bool ssm_normed;           /* scans of the first kind: steps and vectors are normed without weights */
    bool causal;               /* tokens attend only backwards, and a batch fits the context */
    bool caches;               /* some layer keeps keys and values */
    uint32_t pooling;          /* of an embedding model: 0 none, 1 mean, 2 first, 3 last, 4 rank */
    uint32_t v_width_max;      /* widest V of all layers, elements */
    struct layer_facts *layers;
    struct weight_facts *weights;
    uint32_t n_weights;
    uint32_t *by_layer;     /* indices of the weights, sorted by layer; from first_outside on: in no layer */
    uint32_t first_outside; /* … up to n_weights */
    struct layer_class *classes;
    uint32_t n_classes;
    int32_t global[ROLE_COUNT]; /* weights outside the layers */
    bool parallel;              /* attention and feed-forward read the same state */
    bool headless;              /* no logits */
    bool copies_tied;           /* … from a copy of their own, even beside the first */
    bool tied;                  /* no output matrix of its own: token_embd serves */
};

/* The norm before a layer's feed-forward block, which may bear the name of one behind attention; ROLE_NONE.
 */
enum role facts_ffn_norm(const struct layer_facts *l);
/* facts_keys.c: what keys and the architecture's row say about the order of operations. RC_INVALID: keys that
 * make no sense together. */
enum rc facts_keys(struct facts *f, struct err *err);
/* RC_UNSUPPORTED: no row for the architecture; RC_INVALID: a key is missing or makes no sense. */
enum rc facts_init(struct facts *f, const struct model *m, struct err *err);
void facts_release(struct facts *f);

/* Has a layer with these tensors every matrix that the model's latent attention needs? */
bool facts_latent_complete(const struct facts *f, const int32_t *t);
/* facts_recurrent.c: mixers, states and needed weights of a hybrid model's layers. After the weights. */
enum rc facts_recurrent(struct facts *f, struct err *err);
/* classes.c: fills by_layer, classes, and each layer's form and class. Last of all. RC_NOMEM. */
enum rc facts_classes(struct facts *f, struct err *err);
/* A weight named blk.N., of a layer that the model has. */
static inline bool facts_in_layer(const struct facts *f, uint32_t weight)
{
    int32_t il = f->weights[weight].t->layer;
    return il >= 0 && (uint32_t)il < f->n_layer;
}
/* A device holds only what it can compute with. */
struct backend_traits;
bool facts_device_takes(const struct facts *f, const struct weight_facts *w, const struct backend_traits *b);
uint64_t facts_mix(uint64_t h, uint64_t v); /* a hash of what was mixed before and v */
/* A number of the architecture, 1 to max; RC_INVALID if it is missing or outside. */
enum rc arch_need_u32(const struct model *m, const char *suffix, uint32_t max, uint32_t *ret,
                      struct err *err);
uint32_t arch_u32(const struct model *m, const char *suffix, uint32_t fallback);
/* RC_INVALID if layer il lacks one of the n weights. */
enum rc facts_need_weights(const struct facts *f, uint32_t il, const enum role *need, size_t n,
                           struct err *err);

#endif
