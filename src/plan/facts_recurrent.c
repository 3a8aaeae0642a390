/* Layers of recurrent and hybrid models: how each mixes tokens, and how wide its states are. Layer plan; see
 * facts.h. The tensors tell the mixer; the widths are those of the GGUF convention: a tail of the
 * convolution's inputs (r) and the state proper (s), both F32, one each a sequence. */
#include "plan/facts.h"

#include "base/mem.h"

#include <inttypes.h>

#define MAX_WIDTH (1u << 20)

static enum mixer mixer_of(const struct facts *f, const int32_t *t)
{
    if (t[ROLE_TIME_K] >= 0)
        return t[ROLE_TIME_K_K] >= 0 ? MIXER_RWKV7 : MIXER_RWKV6;
    if (t[ROLE_SSM_X] >= 0)
        return t[ROLE_SSM_A] >= 0 && f->weights[t[ROLE_SSM_A]].t->ne[1] == 1 ? MIXER_MAMBA_STEPS
                                                                             : MIXER_MAMBA;
    if (t[ROLE_SSM_F_A] >= 0)
        return MIXER_KDA;
    if (t[ROLE_SSM_BA] >= 0 || t[ROLE_SSM_ALPHA] >= 0)
        return MIXER_DELTA;
    if (t[ROLE_SSM_IN] >= 0)
        return MIXER_MAMBA2;
    if (t[ROLE_CONV] >= 0)
        return MIXER_CONV;
    if ((f->arch->flags & NORMED_RESIDUAL) && t[ROLE_ATTN_NORM_2] >= 0)
        return MIXER_LIGHTNING;
    return t[ROLE_O] >= 0 ? MIXER_ATTENTION : MIXER_NONE;
}

static enum rc need_all(const struct facts *f, uint32_t il, struct err *err)
{
    static const struct {
        size_t n;
        enum role need[20];
    } rows[] = {
        [MIXER_ATTENTION] = {5, {ROLE_ATTN_NORM, ROLE_Q, ROLE_K, ROLE_V, ROLE_O}},
        [MIXER_MAMBA] = {10,
                         {ROLE_ATTN_NORM, ROLE_SSM_IN, ROLE_SSM_CONV, ROLE_SSM_CONV_B, ROLE_SSM_X,
                          ROLE_SSM_DT, ROLE_SSM_DT_B, ROLE_SSM_A, ROLE_SSM_D, ROLE_SSM_OUT}},
        [MIXER_MAMBA_STEPS] = {12,
                               {ROLE_ATTN_NORM, ROLE_SSM_IN, ROLE_SSM_CONV, ROLE_SSM_X, ROLE_SSM_DT,
                                ROLE_SSM_DT_B, ROLE_SSM_A, ROLE_SSM_D, ROLE_SSM_OUT, ROLE_SSM_DT_NORM,
                                ROLE_SSM_B_NORM, ROLE_SSM_C_NORM}},
        [MIXER_MAMBA2] = {7,
                          {ROLE_ATTN_NORM, ROLE_SSM_IN, ROLE_SSM_CONV, ROLE_SSM_DT_B, ROLE_SSM_A, ROLE_SSM_D,
                           ROLE_SSM_OUT}},
        [MIXER_CONV] = {4, {ROLE_ATTN_NORM, ROLE_CONV, ROLE_CONV_IN, ROLE_CONV_OUT}},
        [MIXER_DELTA] = {8,
                         {ROLE_ATTN_NORM, ROLE_QKV, ROLE_ATTN_GATE, ROLE_SSM_CONV, ROLE_SSM_DT_B, ROLE_SSM_A,
                          ROLE_SSM_NORM, ROLE_SSM_OUT}},
        [MIXER_KDA] = {16,
                       {ROLE_ATTN_NORM, ROLE_Q, ROLE_K, ROLE_V, ROLE_SSM_CONV_Q, ROLE_SSM_CONV_K,
                        ROLE_SSM_CONV_V, ROLE_SSM_F_A, ROLE_SSM_F_B, ROLE_SSM_DT_B, ROLE_SSM_A, ROLE_SSM_BETA,
                        ROLE_SSM_G_A, ROLE_SSM_G_B, ROLE_SSM_NORM, ROLE_O}},
        [MIXER_LIGHTNING] = {5, {ROLE_ATTN_NORM, ROLE_QKV, ROLE_ATTN_GATE, ROLE_ATTN_NORM_2, ROLE_O}},
        [MIXER_RWKV6] = {12,
                         {ROLE_ATTN_NORM, ROLE_TIME_W1, ROLE_TIME_W2, ROLE_TIME_LERP_X, ROLE_TIME_LERP_FUSED,
                          ROLE_TIME_DECAY, ROLE_TIME_DECAY_W1, ROLE_TIME_DECAY_W2, ROLE_TIME_V, ROLE_TIME_R,
                          ROLE_TIME_G, ROLE_TIME_OUT}},
        [MIXER_RWKV7] = {16,
                         {ROLE_ATTN_NORM, ROLE_TIME_W0, ROLE_TIME_W1, ROLE_TIME_W2, ROLE_TIME_A0,
                          ROLE_TIME_A1, ROLE_TIME_A2, ROLE_TIME_V0, ROLE_TIME_V1, ROLE_TIME_V2,
                          ROLE_TIME_LERP_FUSED, ROLE_TIME_K_A, ROLE_TIME_R_K, ROLE_TIME_V, ROLE_TIME_R,
                          ROLE_TIME_OUT}},
        [MIXER_NONE] = {2, {ROLE_ATTN_NORM, ROLE_DOWN}},
    };
    const struct layer_facts *l = &f->layers[il];
    const int32_t *t = l->tensor;
    enum mixer m = l->mixer == MIXER_NONE && t[ROLE_ROUTER] >= 0 ? MIXER_ATTENTION : (enum mixer)l->mixer;
    bool latent = m == MIXER_ATTENTION && f->latent.rank, fused = m == MIXER_ATTENTION && t[ROLE_QKV] >= 0;
    enum rc rc =
        l->mixer == m && !fused && !latent ? facts_need_weights(f, il, rows[m].need, rows[m].n, err) : RC_OK;
    if (!rc && latent && l->mixer == m && !facts_latent_complete(f, t))
        rc = err_set(err, RC_INVALID, "%s: layer %u lacks matrices of latent attention", f->m->path, il);
    if (!rc && (fused || latent))
        rc = facts_need_weights(f, il, (const enum role[]){ROLE_ATTN_NORM, ROLE_O}, 2, err);
    if (!rc && l->cached && l->mixer != MIXER_ATTENTION)
        rc = facts_need_weights(f, il, rows[MIXER_ATTENTION].need, rows[MIXER_ATTENTION].n, err);
    if (!rc && l->mixer == MIXER_DELTA && t[ROLE_SSM_BA] < 0)
        rc = facts_need_weights(f, il, (const enum role[]){ROLE_SSM_ALPHA, ROLE_SSM_BETA}, 2, err);
    if (!rc && (t[ROLE_UP] >= 0) != (t[ROLE_DOWN] >= 0))
        rc = err_set(err, RC_INVALID, "%s: layer %u has half a feed-forward block", f->m->path, il);
    if (!rc && t[ROLE_ROUTER] >= 0)
        rc = facts_need_weights(f, il, (const enum role[]){ROLE_UP_EXPS, ROLE_DOWN_EXPS}, 2, err);
    if (!rc && t[ROLE_ROUTER] >= 0 && (f->n_expert_used == 0 || f->n_expert_used > f->n_expert))
        rc = err_set(err, RC_INVALID, "%s: %u of %u experts are used", f->m->path, f->n_expert_used,
                     f->n_expert);
    return rc;
}

static bool seen_steps(const struct facts *f)
{
    for (uint32_t il = 0; il < f->n_layer_run; il++)
        if (f->layers[il].mixer == MIXER_MAMBA_STEPS)
            return true;
    return false;
}

static enum rc state_space(struct facts *f, bool groups, struct err *err)
{
    enum rc rc = arch_need_u32(f->m, "ssm.conv_kernel", 1024, &f->ssm_conv, err);
    if (!rc)
        rc = arch_need_u32(f->m, "ssm.inner_size", MAX_WIDTH, &f->ssm_inner, err);
    if (!rc)
        rc = arch_need_u32(f->m, "ssm.state_size", 65536, &f->ssm_state, err);
    if (!rc)
        rc = arch_need_u32(f->m, "ssm.time_step_rank", MAX_WIDTH, &f->ssm_rank, err);
    f->ssm_group = arch_u32(f->m, "ssm.group_count", 0);
    if (!rc && groups)
        rc = arch_need_u32(f->m, "ssm.group_count", MAX_WIDTH, &f->ssm_group, err);
    if (!rc && groups &&
        (f->ssm_inner % f->ssm_rank || f->ssm_inner % f->ssm_group || f->ssm_rank % f->ssm_group))
        rc = err_set(err, RC_INVALID, "%s: %u heads in %u groups do not share a state of %u", f->m->path,
                     f->ssm_rank, f->ssm_group, f->ssm_inner);
    if (rc)
        return rc;
    if (f->ssm_inner % f->ssm_rank && seen_steps(f))
        return err_set(err, RC_INVALID, "%s: %u heads do not share a state of %u", f->m->path, f->ssm_rank,
                       f->ssm_inner);
    f->ssm_normed = arch_u32(f->m, "ssm.dt_b_c_rms", 0);
    f->state_r = (uint64_t)(f->ssm_conv - 1) * (f->ssm_inner + 2ull * f->ssm_group * f->ssm_state);
    f->state_s = (uint64_t)f->ssm_state * f->ssm_inner;
    return RC_OK;
}

/* Three tails, of queries, keys and values, and a square a head. */
static enum rc kimi_states(struct facts *f, struct err *err)
{
    enum rc rc = arch_need_u32(f->m, "ssm.conv_kernel", 1024, &f->ssm_conv, err);
    if (!rc)
        rc = arch_need_u32(f->m, "kda.head_dim", 8192, &f->ssm_state, err);
    if (!rc)
        rc = arch_need_u32(f->m, "attention.head_count", 4096, &f->ssm_rank, err);
    if (rc)
        return rc;
    f->ssm_group = f->ssm_rank;
    f->ssm_inner = f->ssm_rank * f->ssm_state;
    f->state_r = 3ull * (f->ssm_conv - 1) * f->ssm_inner;
    f->state_s = (uint64_t)f->ssm_state * f->ssm_inner;
    return RC_OK;
}

/* No tail, and a square a head as wide as attention's. */
static enum rc lightning_states(struct facts *f, struct err *err)
{
    enum rc rc = arch_need_u32(f->m, "attention.head_count", 4096, &f->ssm_rank, err);
    if (rc)
        return rc;
    f->ssm_state = arch_u32(f->m, "attention.key_length", f->n_embd / f->ssm_rank);
    if (f->ssm_state == 0 || f->ssm_state > 8192)
        return err_set(err, RC_INVALID, "%s: a head is %u wide", f->m->path, f->ssm_state);
    f->ssm_inner = f->ssm_rank * f->ssm_state;
    f->state_r = 0;
    f->state_s = (uint64_t)f->ssm_state * f->ssm_inner;
    return RC_OK;
}

/* The token before, once or twice, and a square a head. */
static enum rc time_mixing(struct facts *f, struct err *err)
{
    enum rc rc = arch_need_u32(f->m, "wkv.head_size", MAX_WIDTH, &f->ssm_state, err);
    uint32_t shifts = arch_u32(f->m, "token_shift_count", 2);
    for (uint32_t il = 0; !rc && il < f->n_layer_run; il++) {
        const int32_t *t = f->layers[il].tensor;
        static const enum role mix[] = {ROLE_ATTN_NORM_2, ROLE_CHANNEL_LERP_K, ROLE_CHANNEL_V};
        static const enum role ffn[] = {ROLE_FFN_NORM, ROLE_UP, ROLE_DOWN};
        rc = t[ROLE_CHANNEL_K] >= 0 ? facts_need_weights(f, il, mix, TABLE_COUNT(mix), err)
                                    : facts_need_weights(f, il, ffn, TABLE_COUNT(ffn), err);
        if (!rc && t[ROLE_CHANNEL_R] >= 0)
            rc = facts_need_weights(f, il, (const enum role[]){ROLE_CHANNEL_LERP_R}, 1, err);
        if (!rc && (t[ROLE_TIME_G1] >= 0) != (t[ROLE_TIME_G2] >= 0))
            rc = err_set(err, RC_INVALID, "%s: layer %u has half a gate", f->m->path, il);
        if (!rc && shifts != (t[ROLE_CHANNEL_K] >= 0 ? 2u : 1u))
            rc = err_set(err, RC_INVALID, "%s: layer %u does not store %u tokens", f->m->path, il, shifts);
    }
    if (!rc && f->n_embd % f->ssm_state)
        rc =
            err_set(err, RC_INVALID, "%s: heads of %u do not divide %u", f->m->path, f->ssm_state, f->n_embd);
    f->rescale_every = arch_u32(f->m, "rescale_every_n_layers", 0);
    f->state_r = (uint64_t)shifts * f->n_embd;
    f->state_s = (uint64_t)f->n_embd * f->ssm_state;
    return rc;
}

static enum rc short_convolution(struct facts *f, struct err *err)
{
    enum rc rc = arch_need_u32(f->m, "shortconv.l_cache", 1024, &f->ssm_conv, err);
    if (rc)
        return rc;
    f->ssm_inner = f->n_embd;
    f->state_r = (uint64_t)f->n_embd * (f->ssm_conv - 1);
    return RC_OK;
}

enum rc facts_recurrent(struct facts *f, struct err *err)
{
    bool seen[MIXER_NONE + 1] = {false};
    for (uint32_t il = 0; il < f->n_layer_run; il++) {
        struct layer_facts *l = &f->layers[il];
        l->mixer = (uint8_t)mixer_of(f, l->tensor);
        l->cached = l->tensor[ROLE_O] >= 0 && l->mixer != MIXER_KDA && l->mixer != MIXER_LIGHTNING;
        if ((f->arch->family == FAMILY_RWKV) != (l->mixer == MIXER_RWKV6 || l->mixer == MIXER_RWKV7))
            return err_set(err, RC_INVALID, "%s: layer %u is none of its architecture", f->m->path, il);
        l->recurrent = l->mixer != MIXER_ATTENTION && l->mixer != MIXER_NONE;
        f->caches = f->caches || l->cached;
        seen[l->mixer] = true;
        enum rc rc = need_all(f, il, err);
        if (rc)
            return rc;
    }
    if (f->arch->family == FAMILY_RWKV)
        return time_mixing(f, err);
    bool scans = seen[MIXER_MAMBA] || seen[MIXER_MAMBA_STEPS] || seen[MIXER_MAMBA2] || seen[MIXER_DELTA];
    if (seen[MIXER_MAMBA] + seen[MIXER_MAMBA_STEPS] + seen[MIXER_MAMBA2] + seen[MIXER_DELTA] +
            seen[MIXER_KDA] + seen[MIXER_CONV] + seen[MIXER_LIGHTNING] >
        1)
        return err_set(err, RC_INVALID, "%s: layers with states of several kinds", f->m->path);
    if (scans)
        return state_space(f, !seen[MIXER_MAMBA] && !seen[MIXER_MAMBA_STEPS], err);
    if (seen[MIXER_KDA])
        return kimi_states(f, err);
    if (seen[MIXER_LIGHTNING])
        return lightning_states(f, err);
    return seen[MIXER_CONV] ? short_convolution(f, err) : RC_OK;
}
