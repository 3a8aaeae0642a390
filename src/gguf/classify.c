/* What a tensor is for, by its name. Layer gguf; pure. The names are those that llama.cpp's loader asks for.
 */
#include "gguf/model_priv.h"

#include <string.h>

static const char *const words[TENSOR_CLASSES] = {
    [TENSOR_INPUT] = "input",         [TENSOR_OUTPUT] = "output", [TENSOR_NORM] = "norm",
    [TENSOR_ATTENTION] = "attention", [TENSOR_FFN] = "ffn",       [TENSOR_EXPERT] = "expert",
    [TENSOR_RECURRENT] = "recurrent", [TENSOR_OTHER] = "other",
};

const char *tensor_class_word(enum tensor_class cls)
{
    return (unsigned)cls < TENSOR_CLASSES ? words[cls] : "unknown";
}

enum match {
    PREFIX,
    PART,
    SUFFIX,
    NUMBERED, /* the text, a number, a dot */
};

struct rule {
    const char *text;
    enum match match;
    enum tensor_class cls;
};

/* The first rule that matches decides. */
static const struct rule outer_rules[] = {
    {"token_embd", PREFIX, TENSOR_INPUT},       {"position_embd", PREFIX, TENSOR_INPUT},
    {"token_types", PREFIX, TENSOR_INPUT},      {"per_layer_token_embd", PREFIX, TENSOR_INPUT},
    {"output", PREFIX, TENSOR_OUTPUT},          {"cls", PREFIX, TENSOR_OUTPUT},
    {"dense_2", PREFIX, TENSOR_OUTPUT},         {"dense_3", PREFIX, TENSOR_OUTPUT},
    {"enc.output_norm", PREFIX, TENSOR_OUTPUT}, {"dec.output_norm", PREFIX, TENSOR_OUTPUT},
};

static const struct rule block_rules[] = {
    {"ffn_norm_exps", PREFIX, TENSOR_NORM},
    {"attn_v_exps", PREFIX, TENSOR_ATTENTION},
    {"_exps.", PART, TENSOR_EXPERT},
    {"_chexps.", PART, TENSOR_EXPERT},
    {"ffn_gate.", NUMBERED, TENSOR_EXPERT}, /* one tensor an expert, in files of early 2024 */
    {"ffn_up.", NUMBERED, TENSOR_EXPERT},
    {"ffn_down.", NUMBERED, TENSOR_EXPERT},
    {"ssm_", PREFIX, TENSOR_RECURRENT},
    {"time_mix_", PREFIX, TENSOR_RECURRENT},
    {"channel_mix_", PREFIX, TENSOR_RECURRENT},
    {"shortconv", PREFIX, TENSOR_RECURRENT},
    {"_norm", PART, TENSOR_NORM},
    {".bias", SUFFIX, TENSOR_NORM},
    {"attn_", PREFIX, TENSOR_ATTENTION},
    {"cross_attn_", PREFIX, TENSOR_ATTENTION},
    {"indexer", PREFIX, TENSOR_ATTENTION},
    {"hc_attn_", PREFIX, TENSOR_ATTENTION},
    {"vis_attn_", PREFIX, TENSOR_ATTENTION},
    {"ffn_", PREFIX, TENSOR_FFN},
    {"exp_probs_b", PREFIX, TENSOR_FFN},
    {"hc_ffn_", PREFIX, TENSOR_FFN},
    {"vis_", PREFIX, TENSOR_FFN},
};

static bool matches(const struct rule *rule, struct str name)
{
    switch (rule->match) {
    case PREFIX: return str_starts(name, rule->text);
    case SUFFIX: return str_ends(name, rule->text);
    case PART: return str_find(name, str_from(rule->text)) >= 0;
    case NUMBERED: {
        size_t n = strlen(rule->text);
        return str_starts(name, rule->text) && name.n > n && name.p[n] >= '0' && name.p[n] <= '9';
    }
    }
    return false;
}

static enum tensor_class first_match(const struct rule *rules, size_t n, struct str name)
{
    for (size_t i = 0; i < n; i++)
        if (matches(&rules[i], name))
            return rules[i].cls;
    return TENSOR_OTHER;
}

/* Cuts "blk.N." off; false if the name is none of a block. */
static bool cut_block(struct str *name, uint64_t *ret_n)
{
    static const char *const prefixes[] = {"blk.", "dec.blk.", "enc.blk."};
    for (size_t i = 0; i < TABLE_COUNT(prefixes); i++) {
        if (!str_starts(*name, prefixes[i]))
            continue;
        size_t n = strlen(prefixes[i]);
        struct str rest = {name->p + n, name->n - n};
        if (!str_u64(str_cut(&rest, '.'), ret_n))
            return false;
        *name = rest;
        return true;
    }
    return false;
}

void tensor_classify(struct str name, uint32_t n_layer, int32_t *ret_layer, enum tensor_class *ret_class)
{
    uint64_t layer;
    *ret_layer = -1;
    if (!cut_block(&name, &layer)) {
        *ret_class = first_match(outer_rules, TABLE_COUNT(outer_rules), name);
        return;
    }
    *ret_class = TENSOR_OTHER;
    if (layer >= n_layer)
        return;
    *ret_layer = (int32_t)layer;
    *ret_class = first_match(block_rules, TABLE_COUNT(block_rules), name);
}
