/* Facts of one model for the planner. Layer plan; see facts.h. Keys and defaults are those of the GGUF
 * convention; a missing key that changes memory is an error, never a guess. */
#include "plan/facts.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct arch arches[] = {
#define TRANSFORMER               FAMILY_TRANSFORMER
#define GEMMA4                    FAMILY_GEMMA4
#define GEMMA3N                   FAMILY_GEMMA3N
#define HYBRID                    FAMILY_HYBRID
#define RWKV                      FAMILY_RWKV
#define BERT                      FAMILY_BERT
#define T5                        FAMILY_T5
#define ARCH(name, family, flags) {name, family, flags},
#include "plan/architectures.def"
#undef ARCH
};

const struct arch *arch_find(const char *name)
{
    for (size_t i = 0; i < TABLE_COUNT(arches); i++)
        if (!strcmp(arches[i].name, name))
            return &arches[i];
    return NULL;
}

static const struct {
    const char *name;
    enum role_kind kind;
} roles[ROLE_COUNT] = {
#define ROLE(id, name, kind) [ROLE_##id] = {name, KIND_##kind},
#include "plan/roles.def"
#undef ROLE
};

enum role_kind role_kind(enum role r)
{
    return r < ROLE_COUNT ? roles[r].kind : KIND_ELEMENT;
}

/* Some files leave out the ".weight" of a norm or the ".bias" of what is added. */
static bool same_name(const char *role, const char *name)
{
    size_t n = strlen(name);
    return !strncmp(role, name, n) &&
           (!role[n] || (!strchr(name, '.') && (!strcmp(role + n, ".weight") || !strcmp(role + n, ".bias"))));
}

static enum role role_from(const char *name)
{
    for (unsigned r = 0; r < ROLE_COUNT; r++)
        if (same_name(roles[r].name, name))
            return (enum role)r;
    return ROLE_NONE;
}

/* "ffn_(up|down|gate|gate_up)_(ch|)exps", as the runtime's own option has it. */
static bool is_routed_expert(const char *name)
{
    static const char *const stems[] = {"ffn_up_", "ffn_down_", "ffn_gate_", "ffn_gate_up_"};
    for (size_t i = 0; i < TABLE_COUNT(stems); i++) {
        const char *at = strstr(name, stems[i]);
        if (!at)
            continue;
        at += strlen(stems[i]);
        if (!strncmp(at, "exps", 4) || !strncmp(at, "chexps", 6))
            return true;
    }
    return false;
}

/* Behind "blk.N.", whatever stands before it. */
static const char *block_part(const char *name)
{
    const char *block = strstr(name, "blk."), *dot = block ? strchr(block + 4, '.') : NULL;
    return dot ? dot + 1 : name;
}

/* An encoder's blocks lie beside the decoder's, with no part in the graph that is reserved. */
static bool decodes(const struct facts *f)
{
    return f->arch->family == FAMILY_T5 && !f->headless;
}

static void weigh(struct facts *f, uint32_t i)
{
    const struct tensor *t = &f->m->tensors[i];
    struct weight_facts *w = &f->weights[i];
    *w = (struct weight_facts){.t = t, .role = ROLE_NONE, .scale = -1};
    const char *name = t->name;
    if (t->layer >= 0 && (uint32_t)t->layer < f->n_layer) {
        const char *dot = block_part(name);
        w->layer = (uint32_t)t->layer < f->n_layer_run ? t->layer : LAYER_UNLOADED;
        w->role = (uint16_t)role_from(dot);
        if (w->role == ROLE_O_T5)
            w->role = ROLE_O;
        w->offloadable_experts = is_routed_expert(name);
        if (w->role != ROLE_NONE && !(decodes(f) && !strncmp(name, "enc.", 4)))
            f->layers[t->layer].tensor[w->role] = (int32_t)i;
        return;
    }
    w->role = (uint16_t)role_from(name);
    w->layer = t->cls == TENSOR_INPUT ? LAYER_INPUT : (int32_t)f->n_layer;
    if (w->role == ROLE_EMBD_NORM || w->role == ROLE_EMBD_NORM_B || w->role == ROLE_LAYER_EMBD_PROJ ||
        w->role == ROLE_LAYER_EMBD_NORM)
        w->layer = 0;
    if (w->role == ROLE_ROPE_FREQS || w->role == ROLE_ROPE_LONG || w->role == ROLE_ROPE_SHORT)
        w->per_layer_copy = true;
    if (w->role == ROLE_EMBD_NORM && !strncmp(f->arch->name, "lfm2", 4)) { /* bears the wrong name */
        w->role = ROLE_OUTPUT_NORM;
        w->layer = (int32_t)f->n_layer;
    }
    if (w->role != ROLE_NONE)
        f->global[w->role] = (int32_t)i;
}

/* NAME.scale is multiplied into the product of NAME.weight, unless it has a role of its own. */
static void find_scales(struct facts *f)
{
    char name[80];
    for (uint32_t i = 0; i < f->n_weights; i++) {
        const char *full = f->weights[i].t->name, *dot = full;
        size_t n = strlen(full);
        if (f->weights[i].role != ROLE_NONE || n < 7 || n + 2 > sizeof name || strcmp(full + n - 6, ".scale"))
            continue;
        bool layered = f->weights[i].layer >= 0 && f->weights[i].layer < (int32_t)f->n_layer;
        if (layered)
            dot = block_part(full);
        snprintf(name, sizeof name, "%.*s.weight", (int)(strlen(dot) - 6), dot);
        enum role r = role_from(name);
        int32_t of = r == ROLE_NONE ? -1 : layered ? f->layers[f->weights[i].layer].tensor[r] : f->global[r];
        if (of >= 0)
            f->weights[of].scale = (int32_t)i;
    }
}

enum rc arch_need_u32(const struct model *m, const char *suffix, uint32_t max, uint32_t *ret, struct err *err)
{
    uint64_t v;
    if (!model_arch_u64(m, suffix, &v))
        return err_set(err, RC_INVALID, "%s: the key %s.%s is missing", m->path, m->architecture, suffix);
    if (v == 0 || v > max)
        return err_set(err, RC_INVALID, "%s: %s.%s is %" PRIu64 ", expected 1 to %u", m->path,
                       m->architecture, suffix, v, max);
    *ret = (uint32_t)v;
    return RC_OK;
}

uint32_t arch_u32(const struct model *m, const char *suffix, uint32_t fallback)
{
    uint64_t v;
    return model_arch_u64(m, suffix, &v) && v <= UINT32_MAX ? (uint32_t)v : fallback;
}

#define MAX_HEADS      4096
#define MAX_HEAD_WIDTH 8192
#define MAX_WIDTH      (1u << 20)

static enum rc attention_shape(struct facts *f, struct err *err)
{
    const struct model *m = f->m;
    for (uint32_t il = 0; il < f->n_layer; il++) {
        struct layer_facts *l = &f->layers[il];
        uint64_t heads = 0, kv = 0;
        if (l->tensor[ROLE_O] < 0 || l->mixer == MIXER_KDA || l->mixer == MIXER_LIGHTNING)
            continue;
        if (!model_arch_layer_u64(m, "attention.head_count", il, &heads))
            return err_set(err, RC_INVALID, "%s: the key %s.attention.head_count is missing", m->path,
                           m->architecture);
        if (!model_arch_layer_u64(m, "attention.head_count_kv", il, &kv))
            kv = heads;
        if (heads == 0 || heads > MAX_HEADS || kv == 0 || kv > heads || heads % kv)
            return err_set(err, RC_INVALID, "%s: layer %u has %" PRIu64 " heads over %" PRIu64 " key heads",
                           m->path, il, heads, kv);
        l->n_head = (uint32_t)heads;
        l->n_head_kv = (uint32_t)kv;
        l->d_k = arch_u32(m, "attention.key_length", f->n_embd / (uint32_t)heads);
        l->d_v = arch_u32(m, "attention.value_length", f->n_embd / (uint32_t)heads);
        if (l->sliding) {
            l->d_k = arch_u32(m, "attention.key_length_swa", l->d_k);
            l->d_v = arch_u32(m, "attention.value_length_swa", l->d_v);
        }
        if (!l->d_k || !l->d_v || l->d_k > MAX_HEAD_WIDTH || l->d_v > MAX_HEAD_WIDTH)
            return err_set(err, RC_INVALID, "%s: a head is %u wide for keys and %u for values", m->path,
                           l->d_k, l->d_v);
        if (l->n_head_kv * l->d_v > f->v_width_max)
            f->v_width_max = l->n_head_kv * l->d_v;
    }
    return RC_OK;
}

/* Layers that see only a window: every one but each period-th, the last of a period or the first, as the
 * runtime's code has it for each architecture; 0: only what the file says. */
static const struct sliding_rule {
    const char *arch;
    uint32_t period, window; /* window: where the file has none */
    bool dense_first, fixed; /* fixed: this window, if the file has one at all */
} sliding_rules[] = {{"gemma2", 2, 4096, false, false},     {"gemma3", 6, 0, false, false},
                     {"gpt-oss", 2, 0, false, false},       {"cohere2", 4, 0, false, false},
                     {"exaone4", 4, 0, false, false},       {"olmo2", 4, 0, false, false},
                     {"llama4", 4, 8192, false, false},     {"gemma-embedding", 6, 0, false, false},
                     {"modern-bert", 3, 0, true, false},    {"gemma4", 6, 0, false, false},
                     {"gemma3n", 5, 0, false, false},       {"exaone-moe", 4, 0, false, false},
                     {"smallthinker", 4, 4096, true, true}, {"afmoe", 4, 0, false, false},
                     {"mellum", 4, 0, false, false},        {"plamo3", 8, 0, false, false},
                     {"cohere2moe", 4, 0, true, false},     {"muse-glimmer", 4, 0, false, false},
                     {"laguna", 4, 0, true, false}};

static void sliding_shape(struct facts *f)
{
    struct sliding_rule rule = {0};
    if (!(f->arch->flags & SLIDING))
        return;
    for (size_t i = 0; i < TABLE_COUNT(sliding_rules); i++)
        if (!strcmp(sliding_rules[i].arch, f->arch->name))
            rule = sliding_rules[i];
    f->window = arch_u32(f->m, "attention.sliding_window", rule.fixed ? 0 : rule.window);
    if (f->window && rule.fixed)
        f->window = rule.window;
    uint32_t period = rule.period;
    bool dense_first = rule.dense_first;
    uint64_t given;
    if (model_arch_u64(f->m, "attention.sliding_window_pattern", &given) && given <= f->n_layer)
        period = (uint32_t)given;
    for (uint32_t il = 0; il < f->n_layer && f->window; il++) {
        bool slides = period && (dense_first ? il % period != 0 : il % period < period - 1);
        if (model_arch_layer_u64(f->m, "attention.sliding_window_pattern", il, &given) && period != given)
            slides = given != 0;
        f->layers[il].sliding = slides;
    }
}

/* Layers without keys of their own read those of the last layer of their kind that has some: two such layers
 * stand last, the sliding one first. */
static void share_caches(struct facts *f)
{
    uint32_t own = 0;
    while (own < f->n_layer_run && f->layers[own].cached)
        own++;
    for (uint32_t il = own; il < f->n_layer_run && own >= 2 && f->arch->family != FAMILY_HYBRID; il++)
        f->layers[il].cache_layer = (uint16_t)(own - (f->layers[il].sliding ? 2 : 1));
}

/* Layers whose queries and keys are turned by their positions. */
static void rotary_shape(struct facts *f)
{
    static const struct {
        const char *arch;
        uint32_t period;   /* each period-th layer is not: the last, or with a `first` of 0 the first */
        bool sliding_only; /* if the model has a window */
        uint32_t first;
    } known[] = {{"smollm3", 4, false, 1}, {"llama4", 4, false, 1},    {"cohere2", 0, true, 0},
                 {"exaone4", 0, true, 0},  {"exaone-moe", 0, true, 0}, {"smallthinker", 4, false, 0},
                 {"afmoe", 4, false, 1},   {"cohere2moe", 0, true, 0}, {"muse-glimmer", 0, true, 0}};
    uint64_t turns;
    uint32_t lead = f->arch->flags & HALVES_SHARED ? arch_u32(f->m, "leading_dense_block_count", 0) : 0;
    for (uint32_t il = 0; il < f->n_layer; il++) {
        f->layers[il].rotated = !(f->arch->flags & ROPELESS);
        if (model_arch_layer_u64(f->m, "attention.rope_pattern", il, &turns))
            f->layers[il].rotated = turns != 0;
        f->layers[il].sparse = f->arch->family == FAMILY_GEMMA3N && il < 10;
        f->layers[il].plain_rope =
            f->layers[il].sliding && (f->arch->family == FAMILY_GEMMA4 || !strcmp(f->arch->name, "step35"));
    }
    for (size_t i = 0; i < TABLE_COUNT(known); i++) {
        if (strcmp(known[i].arch, f->arch->name))
            continue;
        for (uint32_t il = 0; il < f->n_layer; il++)
            f->layers[il].rotated = known[i].sliding_only
                                        ? f->layers[il].sliding || !f->window || il < lead
                                        : (il + known[i].first) % known[i].period != 0 ||
                                              (!f->window && (f->arch->flags & ROUTES_INPUT));
    }
}

enum role facts_ffn_norm(const struct layer_facts *l)
{
    static const enum role names[] = {ROLE_FFN_NORM, ROLE_ATTN_OUT_NORM, ROLE_POST_ATTN_NORM};
    for (size_t i = 0; i < TABLE_COUNT(names); i++)
        if (l->tensor[names[i]] >= 0)
            return names[i];
    return ROLE_NONE;
}

enum rc facts_need_weights(const struct facts *f, uint32_t il, const enum role *need, size_t n,
                           struct err *err)
{
    for (size_t i = 0; i < n; i++)
        if (f->layers[il].tensor[need[i]] < 0)
            return err_set(err, RC_INVALID, "%s: blk.%u.%s is missing", f->m->path, il, roles[need[i]].name);
    return RC_OK;
}

static bool gemma_complete(const struct facts *f, const int32_t *t)
{
    static const enum role input[] = {ROLE_LAYER_INPUT_GATE, ROLE_LAYER_INPUT_PROJ, ROLE_LAYER_INPUT_NORM};
    static const enum role altup[] = {ROLE_LAUREL_L,
                                      ROLE_LAUREL_R,
                                      ROLE_ALTUP_CORRECT,
                                      ROLE_ALTUP_PREDICT,
                                      ROLE_ALTUP_CORRECT_SCALE,
                                      ROLE_ALTUP_ROUTER,
                                      ROLE_GATE,
                                      ROLE_UP,
                                      ROLE_DOWN};
    static const enum role outside[] = {ROLE_LAYER_EMBD, ROLE_LAYER_EMBD_PROJ};
    bool gemma3n = f->arch->family == FAMILY_GEMMA3N, ok = true;
    if (!gemma3n && f->arch->family != FAMILY_GEMMA4)
        return true;
    for (size_t i = 0; (gemma3n || f->layer_embd) && i < TABLE_COUNT(input); i++)
        ok = ok && t[input[i]] >= 0;
    for (size_t i = 0; (gemma3n || f->layer_embd) && i < TABLE_COUNT(outside); i++)
        ok = ok && f->global[outside[i]] >= 0;
    for (size_t i = 0; gemma3n && i < TABLE_COUNT(altup); i++)
        ok = ok && t[altup[i]] >= 0;
    if (gemma3n)
        return ok && f->layer_embd && f->global[ROLE_ALTUP_PROJ] >= 0 && f->global[ROLE_ALTUP_UNEMBD] >= 0;
    return ok && (t[ROLE_ROUTER] < 0 || t[ROLE_ROUTER_SCALE] >= 0);
}

/* The first layer has an indexer; others may use its choice. */
static bool indexer_complete(const struct facts *f, uint32_t il)
{
    static const enum role need[] = {ROLE_INDEXER_K_NORM, ROLE_INDEXER_K_NORM_B, ROLE_INDEXER_Q,
                                     ROLE_INDEXER_WEIGHTS};
    const int32_t *t = f->layers[il].tensor;
    bool ok = !f->indexer.heads || (t[ROLE_Q_A] >= 0 && (t[ROLE_INDEXER_K] >= 0 || il > 0));
    for (size_t i = 0; f->indexer.heads && t[ROLE_INDEXER_K] >= 0 && i < TABLE_COUNT(need); i++)
        ok = ok && t[need[i]] >= 0;
    return ok;
}

bool facts_latent_complete(const struct facts *f, const int32_t *t)
{
    bool q = t[ROLE_Q] >= 0 || (t[ROLE_Q_A] >= 0 && t[ROLE_Q_A_NORM] >= 0 && t[ROLE_Q_LATENT] >= 0);
    bool kv = f->latent.cached ? t[ROLE_K_LATENT] >= 0 && t[ROLE_V_LATENT] >= 0 : t[ROLE_KV_LATENT] >= 0;
    return q && kv && t[ROLE_KV_A] >= 0 && t[ROLE_KV_A_NORM] >= 0;
}

/* A weight that the graph needs but the file lacks would make an estimate of something else. */
static enum rc check_tensors(const struct facts *f, struct err *err)
{
    static const enum role need[] = {ROLE_O, ROLE_ATTN_NORM}; /* the last unless norms come after */
    size_t n = (f->arch->flags & (NORMS_AFTER | BARE_NORMS)) || f->headless ? 1 : TABLE_COUNT(need);
    for (uint32_t il = 0; il < f->n_layer_run; il++) {
        const int32_t *t = f->layers[il].tensor;
        if (!gemma_complete(f, t))
            return err_set(err, RC_INVALID, "%s: layer %u lacks weights of %s", f->m->path, il,
                           f->arch->name);
        enum rc rc = facts_need_weights(f, il, need, n, err);
        if (rc)
            return rc;
        if (f->arch->family == FAMILY_BERT)
            rc = facts_need_weights(f, il, (const enum role[]){ROLE_ATTN_OUT_NORM, ROLE_LAYER_OUT_NORM}, 2,
                                    err);
        if (rc)
            return rc;
        if (!f->parallel && !(f->arch->flags & (NORMS_AFTER | BARE_NORMS)) &&
            facts_ffn_norm(&f->layers[il]) == ROLE_NONE)
            return err_set(err, RC_UNSUPPORTED,
                           "no estimate for %s: layer %u has no norm before its feed-forward block",
                           f->m->path, il);
        if (decodes(f)) {
            static const enum role cross[] = {ROLE_CROSS_NORM, ROLE_CROSS_Q, ROLE_CROSS_K, ROLE_CROSS_V,
                                              ROLE_CROSS_O};
            rc = facts_need_weights(f, il, cross, TABLE_COUNT(cross), err);
        }
        if (!rc && f->arch->family == FAMILY_T5)
            rc = facts_need_weights(f, 0, (const enum role[]){ROLE_POSITION_BIAS}, 1, err);
        if (rc)
            return rc;
        if (f->latent.rank) {
            if (!facts_latent_complete(f, t) || !indexer_complete(f, il))
                return err_set(err, RC_INVALID, "%s: layer %u lacks matrices of latent attention", f->m->path,
                               il);
        } else if (t[ROLE_QKV] < 0 && (t[ROLE_Q] < 0 || (f->layers[il].cached && t[ROLE_K] < 0) ||
                                       (t[ROLE_V] < 0 && f->arch->family != FAMILY_GEMMA4)))
            return err_set(err, RC_INVALID, "%s: layer %u has no query, key or value matrix", f->m->path, il);
        bool moe = t[ROLE_ROUTER] >= 0 && t[ROLE_DOWN_EXPS] >= 0 &&
                   (t[ROLE_GATE_UP_EXPS] >= 0 || t[ROLE_UP_EXPS] >= 0);
        bool ffn = t[ROLE_UP] >= 0 && t[ROLE_DOWN] >= 0;
        if (!moe && !ffn)
            return err_set(err, RC_INVALID, "%s: layer %u has no feed-forward matrices", f->m->path, il);
        static const enum role chunks[] = {ROLE_GATE_CHEXPS, ROLE_UP_CHEXPS, ROLE_DOWN_CHEXPS};
        rc = f->n_chunk ? facts_need_weights(f, il, chunks, TABLE_COUNT(chunks), err) : RC_OK;
        if (rc)
            return rc;
        if (moe && (f->n_expert == 0 || f->n_expert_used == 0 || f->n_expert_used > f->n_expert))
            return err_set(err, RC_INVALID, "%s: %u of %u experts are used", f->m->path, f->n_expert_used,
                           f->n_expert);
    }
    return RC_OK;
}

static enum rc check_ends(const struct facts *f, struct err *err)
{
    enum role norm = f->arch->family == FAMILY_BERT ? ROLE_EMBD_NORM : ROLE_OUTPUT_NORM;
    if (f->global[ROLE_TOKEN_EMBD] < 0 || (f->global[norm] < 0 && !(f->arch->flags & BARE_NORMS)))
        return err_set(err, RC_INVALID, "%s: token_embd.weight or %s is missing", f->m->path,
                       roles[norm].name);
    return RC_OK;
}

/* Every layer of a plain transformer keeps keys and values; none of an encoder does. */
static enum rc plain_layers(struct facts *f, struct err *err)
{
    f->caches = !(f->arch->flags & UNCACHED);
    uint32_t shared = arch_u32(f->m, "attention.shared_kv_layers", 0);
    if (f->arch->family == FAMILY_GEMMA3N) /* whatever the file says */
        shared = f->n_layer_run > 20 ? f->n_layer_run - 20 : 0;
    uint32_t own = shared < f->n_layer_run ? f->n_layer_run - shared : f->n_layer_run;
    for (uint32_t il = 0; il < f->n_layer_run; il++)
        f->layers[il].cached = f->caches && il < own;
    return check_tensors(f, err);
}

static enum rc load(struct facts *f, struct err *err)
{
    const struct model *m = f->m;
    f->layers = mem_try_array(f->n_layer, sizeof *f->layers);
    f->weights = mem_try_array(m->n_tensors ? m->n_tensors : 1, sizeof *f->weights);
    if (!f->layers || !f->weights)
        return err_set(err, RC_NOMEM, "no memory for the facts of %s", m->path);
    memset(f->global, 0xff, sizeof f->global);
    for (uint32_t il = 0; il < f->n_layer; il++) {
        memset(f->layers[il].tensor, 0xff, sizeof f->layers[il].tensor);
        f->layers[il].cache_layer = (uint16_t)il;
    }
    f->n_weights = m->n_tensors;
    for (uint32_t i = 0; i < m->n_tensors; i++)
        weigh(f, i);
    find_scales(f);
    for (uint32_t il = f->n_stored; il < f->n_layer; il++)
        memcpy(f->layers[il].tensor, f->layers[il - f->n_stored].tensor, sizeof f->layers[il].tensor);
    enum role end = f->global[ROLE_DEC_OUTPUT_NORM] >= 0 ? ROLE_DEC_OUTPUT_NORM : ROLE_ENC_OUTPUT_NORM;
    if (f->global[ROLE_OUTPUT_NORM] < 0)
        f->global[ROLE_OUTPUT_NORM] = f->global[end];
    f->tied = f->global[ROLE_OUTPUT] < 0 && !(f->arch->flags & OUTPUTLESS);
    f->copies_tied = f->arch->family == FAMILY_GEMMA4 || f->arch->family == FAMILY_GEMMA3N;
    enum rc rc = f->arch->family == FAMILY_HYBRID || f->arch->family == FAMILY_RWKV ? facts_recurrent(f, err)
                                                                                    : plain_layers(f, err);
    if (!rc)
        rc = check_ends(f, err);
    if (rc)
        return rc;
    sliding_shape(f);
    share_caches(f);
    rotary_shape(f);
    rc = attention_shape(f, err);
    return rc ? rc : facts_classes(f, err);
}

/* Layers at the end that only draft further tokens: they are in the file, and loaded for drafting alone. */
static uint32_t drafting_layers(const struct facts *f)
{
    uint32_t n = arch_u32(f->m, "nextn_predict_layers", 0);
    return n < f->n_layer ? n : 0;
}

static uint32_t positive(uint32_t n)
{
    return n ? n : 1;
}

enum rc facts_init(struct facts *f, const struct model *m, struct err *err)
{
    *f = (struct facts){.m = m, .arch = arch_find(m->architecture)};
    if (!f->arch) {
        enum rc rc = err_set(err, RC_UNSUPPORTED, "no estimate for architecture '%s'", m->architecture);
        err_hint(err, "load with --force to measure");
        return rc;
    }
    if (m->n_layer == 0 || m->n_layer > FACTS_MAX_LAYERS || m->n_embd == 0 || m->n_embd > MAX_WIDTH ||
        m->n_vocab == 0)
        return err_set(err, RC_INVALID, "%s: %u layers of width %u over %u tokens make no model", m->path,
                       m->n_layer, m->n_embd, m->n_vocab);
    f->n_stored = m->n_layer;
    uint64_t turns = f->arch->flags & LOOPS ? positive(arch_u32(m, "num_loops", 1)) : 1;
    if (turns * m->n_layer > FACTS_MAX_LAYERS)
        return err_set(err, RC_INVALID, "%s: %u layers that run %" PRIu64 " times are too many (%d at most)",
                       m->path, m->n_layer, turns, FACTS_MAX_LAYERS);
    f->n_layer = (uint32_t)turns * m->n_layer;
    f->n_embd = m->n_embd;
    f->n_vocab = m->n_vocab;
    f->n_expert = m->n_expert;
    f->n_expert_used = m->n_expert_used;
    f->n_chunk = f->arch->flags & CHUNKED ? f->n_expert / positive(arch_u32(m, "experts_per_group", 1)) : 0;
    f->parallel = (f->arch->flags & PARALLEL) && arch_u32(m, "use_parallel_residual", 1);
    f->pooling = arch_u32(m, "pooling_type", 0);
    f->headless = f->arch->flags & HEADLESS;
    f->n_layer_run = f->n_layer - drafting_layers(f);
    enum rc rc = facts_keys(f, err);
    if (!rc)
        rc = load(f, err);
    if (rc)
        facts_release(f);
    return rc;
}

void facts_release(struct facts *f)
{
    free(f->layers);
    free(f->weights);
    free(f->by_layer);
    free(f->classes);
    f->layers = NULL;
    f->weights = NULL;
    f->by_layer = NULL;
    f->classes = NULL;
}
