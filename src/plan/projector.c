/* Projectors: bytes of their weights and of the graph that encodes one picture or half a minute of sound.
 * Layer plan; see projector.h. Sources: llama.cpp's multimodal encoder, whose sizes at warm-up were compared
 * for the rows of projectors.def that say so. */
#include "plan/projector.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum kind { IMAGE, SOUND };
enum trait {
    CHECKED = 1,
    CLASS_TOKEN = 2, /* one more position than patches, if the file has the token */
    LEARNED = 4,     /* a table of positions is added */
    ROTARY = 8,      /* queries and keys are turned by their positions */
    ROTARY_2D = 16,  /* in halves that are joined again */
    TWO_FRAMES = 32, /* two convolutions over the picture, added */
    WINDOWED = 64,   /* a mask over all pairs of positions */
};

static const struct projector {
    const char *name;
    enum kind kind;
    uint32_t merge, max_tokens, warm_tokens;
    unsigned traits;
} projectors[] = {
#define PROJECTOR(name, kind, merge, most, warm, traits) {name, kind, merge, most, warm, traits},
#include "plan/projectors.def"
#undef PROJECTOR
};

static const struct projector *projector_find(struct str name)
{
    for (size_t i = 0; i < TABLE_COUNT(projectors); i++)
        if (str_eq_c(name, projectors[i].name))
            return &projectors[i];
    return NULL;
}

#define HOST_ALIGNMENT 32
#define MAX_WIDTH      (1u << 16)
#define MAX_BLOCKS     256
#define MAX_SIDE       8192  /* pixels; the runtime's own bound */
#define MAX_TOKENS     65536 /* of one picture */
#define SOUND_FRAMES   3000  /* half a minute in steps of 10 ms */
#define SOUND_PLACES   1500  /* after the second convolution halves them */
#define MAX_FLASH      256   /* widest head that devices attend to with flash attention */

/* ---- one encoder of the file ---- */

struct encoder {
    struct graph *g;
    const struct model *m;
    const char *prefix; /* "v" or "a" */
    int at;             /* backend of the weights */
    enum kind kind;
    unsigned traits;
    uint32_t width, heads, ff, blocks, patch, side, merge, bins;
    uint32_t max_tokens, warm_tokens;
    bool flash;
    uint64_t n;    /* positions */
    int32_t place; /* the input of positions, -1 = none yet */
    int32_t mask;
};

static bool number(const struct model *m, const char *kind, const char *suffix, uint64_t *ret)
{
    char key[128];
    snprintf(key, sizeof key, "clip.%s.%s", kind, suffix);
    return model_key_u64(m, key, ret);
}

static enum rc need(const struct model *m, const char *kind, const char *suffix, uint64_t max, uint32_t *ret,
                    struct err *err)
{
    uint64_t v = 0;
    if (!number(m, kind, suffix, &v))
        return err_set(err, RC_INVALID, "%s: the key clip.%s.%s is missing", m->path, kind, suffix);
    if (v == 0 || v > max)
        return err_set(err, RC_INVALID, "%s: clip.%s.%s is %" PRIu64 ", expected 1 to %" PRIu64, m->path,
                       kind, suffix, v, max);
    *ret = (uint32_t)v;
    return RC_OK;
}

static struct str type_word(const struct model *m, const char *kind)
{
    char key[64];
    struct str word = STR("");
    snprintf(key, sizeof key, "clip.%s.projector_type", kind);
    if (!model_key_str(m, key, &word))
        (void)model_key_str(m, "clip.projector_type", &word);
    return word;
}

/* Sides of a picture in patches, and the limits that the runtime's code sets. */
static enum rc picture(struct encoder *e, const struct projector *p, struct err *err)
{
    uint64_t v = 0, most = 0;
    enum rc rc = need(e->m, "vision", "patch_size", 1024, &e->patch, err);
    if (!rc)
        rc = need(e->m, "vision", "image_size", MAX_SIDE, &e->side, err);
    if (rc)
        return rc;
    if (e->side < e->patch)
        return err_set(err, RC_INVALID, "%s: pictures of %u pixels have no patch of %u", e->m->path, e->side,
                       e->patch);
    e->merge = p ? p->merge : 1;
    if ((number(e->m, "vision", "spatial_merge_size", &v) ||
         number(e->m, "vision", "projector.scale_factor", &v)) &&
        v)
        e->merge = v <= 64 ? (uint32_t)v : 64;
    uint64_t cell = (uint64_t)e->patch * e->merge;
    e->max_tokens = p ? p->max_tokens : 0;
    e->warm_tokens = p ? p->warm_tokens : 0;
    if (number(e->m, "vision", "image_max_pixels", &most) && most)
        e->max_tokens = (uint32_t)(most / (cell * cell) < MAX_TOKENS ? most / (cell * cell) + 1 : MAX_TOKENS);
    return RC_OK;
}

static enum rc encoder_read(struct encoder *e, const struct model *m, const char *kind, struct err *err)
{
    const struct projector *p = projector_find(type_word(m, kind));
    bool image = !strcmp(kind, "vision");
    *e = (struct encoder){.m = m,
                          .prefix = image ? "v" : "a",
                          .kind = image ? IMAGE : SOUND,
                          .traits = p && (p->kind == IMAGE) == image ? p->traits : LEARNED | ROTARY_2D,
                          .merge = 1,
                          .place = -1,
                          .mask = -1};
    enum rc rc = need(m, kind, "embedding_length", MAX_WIDTH, &e->width, err);
    if (!rc)
        rc = need(m, kind, "attention.head_count", 1024, &e->heads, err);
    if (!rc)
        rc = need(m, kind, "block_count", MAX_BLOCKS, &e->blocks, err);
    if (!rc && e->width % e->heads)
        rc =
            err_set(err, RC_INVALID, "%s: %u heads do not divide a width of %u", m->path, e->heads, e->width);
    if (!rc && image)
        rc = picture(e, p, err);
    if (!rc && !image)
        rc = need(m, kind, "num_mel_bins", 4096, &e->bins, err);
    e->flash = e->traits & CHECKED || p;
    return rc;
}

/* ---- its graph ---- */

static const struct tensor *find(const struct encoder *e, int block, const char *name)
{
    char full[128];
    if (block < 0)
        snprintf(full, sizeof full, "%s.%s", e->prefix, name);
    else
        snprintf(full, sizeof full, "%s.blk.%d.%s", e->prefix, block, name);
    return model_tensor(e->m, full);
}

static int32_t stored(const struct encoder *e, const struct tensor *t)
{
    return graph_stored(e->g, t->type, t->ne, e->at, GF_WEIGHT);
}

static int32_t product(const struct encoder *e, const struct tensor *w, const struct tensor *bias,
                       int32_t cur)
{
    if (!w)
        return cur;
    if (w->ne[0] != e->g->t[cur].ne[0]) /* hostile or unknown: shapes must agree for a graph */
        cur = graph_new(e->g, OP_CONT, GGML_F32, w->ne[0], e->g->t[cur].ne[1], 1, 1);
    cur = graph_mul_mat(e->g, stored(e, w), cur);
    return bias ? graph_binary(e->g, OP_ADD, cur, stored(e, bias)) : cur;
}

static int32_t norm(const struct encoder *e, int32_t cur, const struct tensor *w, const struct tensor *b)
{
    cur = graph_unary(e->g, w && !b ? OP_RMS_NORM : OP_NORM, cur);
    if (w)
        cur = graph_binary(e->g, OP_MUL, cur, stored(e, w));
    return b ? graph_binary(e->g, OP_ADD, cur, stored(e, b)) : cur;
}

static int32_t positions(struct encoder *e)
{
    if (e->place < 0)
        e->place = graph_input(e->g, GGML_I32, e->n * 4, 1, 1, 1);
    return e->place;
}

static int32_t turned(struct encoder *e, int32_t cur)
{
    struct graph *g = e->g;
    if (e->traits & ROTARY)
        return graph_binary(g, OP_ROPE, cur, positions(e));
    if (!(e->traits & ROTARY_2D))
        return cur;
    struct gtensor t = g->t[cur];
    uint64_t half = t.ne[0] / 2;
    int32_t part[2];
    for (int i = 0; i < 2; i++) {
        part[i] =
            graph_view(g, cur, half, t.ne[1], t.ne[2], 1, t.nb[1], t.nb[2], t.nb[3], i ? half * t.nb[0] : 0);
        int32_t turn = graph_new(g, OP_ROPE, GGML_F32, half, t.ne[1], t.ne[2], 1);
        graph_src(g, turn, part[i]);
        graph_src(g, turn, positions(e));
        part[i] = turn;
    }
    int32_t whole = graph_new(g, OP_CONCAT, GGML_F32, t.ne[0], t.ne[1], t.ne[2], 1);
    graph_src(g, whole, part[0]);
    graph_src(g, whole, part[1]);
    return whole;
}

static int32_t cast(struct graph *g, int32_t a)
{
    struct gtensor t = g->t[a];
    int32_t id = graph_new(g, OP_CPY, GGML_F16, t.ne[0], t.ne[1], t.ne[2], t.ne[3]);
    graph_src(g, id, a);
    return id;
}

static int32_t cont(struct graph *g, int32_t a, uint64_t ne0, uint64_t ne1, uint64_t ne2)
{
    int32_t id = graph_new(g, OP_CONT, GGML_F32, ne0, ne1, ne2, 1);
    graph_src(g, id, a);
    return id;
}

static int32_t attention(struct encoder *e, int32_t q, int32_t k, int32_t v)
{
    struct graph *g = e->g;
    uint64_t d = e->width / e->heads;
    graph_expand(g, q);
    graph_expand(g, k);
    graph_expand(g, v);
    q = graph_permute(g, q, 0, 2, 1, 3);
    k = graph_permute(g, k, 0, 2, 1, 3);
    if (e->flash) {
        v = cast(g, graph_permute(g, v, 0, 2, 1, 3));
        k = cast(g, k);
        int32_t cur = graph_new(g, OP_FLASH_ATTN, GGML_F32, d, e->heads, e->n, 1);
        graph_src(g, cur, q);
        graph_src(g, cur, k);
        graph_src(g, cur, v);
        if (e->mask >= 0)
            graph_src(g, cur, e->mask);
        return graph_reshape(g, cur, e->width, e->n, 1, 1);
    }
    v = cont(g, graph_permute(g, v, 1, 2, 0, 3), e->n, d, e->heads);
    int32_t kq = graph_mul_mat(g, k, q);
    kq = e->mask >= 0 ? graph_binary(g, OP_SOFT_MAX, kq, e->mask) : graph_unary(g, OP_SOFT_MAX, kq);
    return cont(g, graph_permute(g, graph_mul_mat(g, v, kq), 0, 2, 1, 3), e->width, e->n, 1);
}

static void heads_of(struct encoder *e, int block, int32_t cur, int32_t *ret_qkv)
{
    static const char *const weights[] = {"attn_q.weight", "attn_k.weight", "attn_v.weight"},
                             *const biases[] = {"attn_q.bias", "attn_k.bias", "attn_v.bias"};
    struct graph *g = e->g;
    uint64_t d = e->width / e->heads;
    const struct tensor *joined = find(e, block, "attn_qkv.weight");
    if (joined)
        cur = product(e, joined, find(e, block, "attn_qkv.bias"), cur);
    for (int i = 0; i < 3; i++) {
        if (joined) {
            struct gtensor t = g->t[cur];
            ret_qkv[i] =
                graph_view(g, cur, d, e->heads, e->n, 1, d * 4, t.nb[1], t.nb[2], (uint64_t)i * e->width * 4);
        } else {
            int32_t one = product(e, find(e, block, weights[i]), find(e, block, biases[i]), cur);
            ret_qkv[i] = graph_reshape(g, one, d, e->heads, e->n, 1);
        }
    }
}

static int32_t feed_forward(struct encoder *e, int block, int32_t cur)
{
    struct graph *g = e->g;
    const struct tensor *up = find(e, block, "ffn_up.weight"), *down = find(e, block, "ffn_down.weight"),
                        *up_b = find(e, block, "ffn_up.bias"), *down_b = find(e, block, "ffn_down.bias"),
                        *gate = find(e, block, "ffn_gate.weight");
    if (up && down && up->ne[0] != e->width &&
        down->ne[0] == e->width) { /* old files name them the other way */
        const struct tensor *t = up;
        up = down;
        down = t;
        t = up_b;
        up_b = down_b;
        down_b = t;
    }
    int32_t wide = product(e, up, up_b, cur);
    if (gate) {
        int32_t left = product(e, gate, find(e, block, "ffn_gate.bias"), cur);
        wide = graph_binary(g, OP_GLU, left, wide);
    } else {
        wide = graph_unary(g, OP_UNARY, wide);
    }
    return product(e, down, down_b, wide);
}

/* Features of some blocks that go to the language model beside the last ones'. */
static int32_t deep_features(struct encoder *e, int block, int32_t cur, int32_t gathered)
{
    char name[64];
    struct graph *g = e->g;
    const struct tensor *t[6];
    static const char *const parts[] = {"norm.weight", "norm.bias",  "fc1.weight",
                                        "fc1.bias",    "fc2.weight", "fc2.bias"};
    for (size_t i = 0; i < TABLE_COUNT(parts); i++) {
        snprintf(name, sizeof name, "deepstack.%d.%s", block, parts[i]);
        t[i] = find(e, -1, name);
    }
    if (!t[2] || !t[4])
        return gathered;
    uint64_t join = (uint64_t)e->merge * e->merge;
    cur = graph_reshape(g, cur, e->width * join, e->n / join, 1, 1);
    cur = product(e, t[2], t[3], norm(e, cur, t[0], t[1]));
    cur = product(e, t[4], t[5], graph_unary(g, OP_UNARY, cur));
    if (gathered < 0)
        return cur;
    int32_t both =
        graph_new(g, OP_CONCAT, GGML_F32, g->t[gathered].ne[0] + g->t[cur].ne[0], e->n / join, 1, 1);
    graph_src(g, both, gathered);
    graph_src(g, both, cur);
    return both;
}

static int32_t block(struct encoder *e, int il, int32_t cur)
{
    struct graph *g = e->g;
    int32_t residual = cur, qkv[3];
    cur = norm(e, cur, find(e, il, "ln1.weight"), find(e, il, "ln1.bias"));
    heads_of(e, il, cur, qkv);
    qkv[0] = turned(e, qkv[0]);
    qkv[1] = turned(e, qkv[1]);
    cur = attention(e, qkv[0], qkv[1], qkv[2]);
    cur = product(e, find(e, il, "attn_out.weight"), find(e, il, "attn_out.bias"), cur);
    residual = graph_binary(g, OP_ADD, cur, residual);
    cur = norm(e, residual, find(e, il, "ln2.weight"), find(e, il, "ln2.bias"));
    cur = feed_forward(e, il, cur);
    return graph_binary(g, OP_ADD, residual, cur);
}

/* A picture becomes patches by one convolution, or two for models of moving pictures. */
static int32_t patches(struct encoder *e, uint64_t n)
{
    struct graph *g = e->g;
    const struct tensor *w = find(e, -1, "patch_embd.weight"), *bias = find(e, -1, "patch_embd.bias");
    uint64_t cell = (uint64_t)e->patch * e->patch * 3, rows = (uint64_t)floor(sqrt((double)n));
    rows = rows ? rows : 1;
    uint64_t columns = (n + rows - 1) / rows;
    uint32_t type = w ? w->type : GGML_F32;
    int32_t raw = graph_input(g, GGML_F32, columns * e->patch, rows * e->patch, 3, 1), sum = -1;
    const uint64_t kernel[4] = {cell, e->width, 1, 1};
    for (int i = 0; i < (e->traits & TWO_FRAMES ? 2 : 1); i++) {
        int32_t k = graph_stored(g, type, kernel, e->at, GF_WEIGHT);
        int32_t unrolled = graph_new(g, OP_IM2COL, type == GGML_F32 ? GGML_F32 : GGML_F16, cell, n, 1, 1);
        graph_src(g, unrolled, k);
        graph_src(g, unrolled, raw);
        int32_t one = graph_mul_mat(g, unrolled, k);
        one = cont(g, graph_reshape(g, one, n, e->width, 1, 1), n, e->width, 1);
        sum = sum < 0 ? one : graph_binary(g, OP_ADD, sum, one);
    }
    int32_t cur = cont(g, graph_transpose(g, sum), e->width, n, 1);
    return bias ? graph_binary(g, OP_ADD, cur, stored(e, bias)) : cur;
}

static int32_t frames(struct encoder *e)
{
    struct graph *g = e->g;
    int32_t cur = graph_input(g, GGML_F32, SOUND_FRAMES, e->bins, 1, 1);
    uint64_t channels = e->bins, n = SOUND_FRAMES;
    for (int i = 1; i <= 2; i++) {
        const uint64_t kernel[4] = {3 * channels, e->width, 1, 1};
        int32_t k = graph_stored(g, GGML_F16, kernel, e->at, GF_WEIGHT);
        n = i == 2 ? n / 2 : n;
        int32_t unrolled = graph_new(g, OP_IM2COL, GGML_F16, 3 * channels, n, 1, 1);
        graph_src(g, unrolled, k);
        graph_src(g, unrolled, cur);
        cur = graph_unary(g, OP_UNARY, graph_mul_mat(g, unrolled, k));
        channels = e->width;
    }
    return cont(g, graph_transpose(g, cur), e->width, n, 1);
}

static int32_t start(struct encoder *e, uint64_t tokens)
{
    struct graph *g = e->g;
    int32_t cur;
    if (e->kind == SOUND) {
        e->n = SOUND_PLACES;
        cur = frames(e);
    } else {
        e->n = tokens * e->merge * e->merge;
        cur = patches(e, e->n);
        const struct tensor *class = e->traits & CLASS_TOKEN ? find(e, -1, "class_embd") : NULL;
        if (class) {
            int32_t all = graph_new(g, OP_CONCAT, GGML_F32, e->width, ++e->n, 1, 1);
            graph_src(g, all, cur);
            graph_src(g, all, stored(e, class));
            cur = all;
        }
    }
    if (e->traits & LEARNED) {
        const uint64_t ne[4] = {e->width, e->n, 1, 1};
        cur = graph_binary(g, OP_ADD, cur, graph_stored(g, GGML_F32, ne, e->at, GF_WEIGHT));
    }
    if (find(e, -1, "pre_ln.weight"))
        cur = norm(e, cur, find(e, -1, "pre_ln.weight"), find(e, -1, "pre_ln.bias"));
    return cur;
}

/* Pictures that are attended to in windows are put in the windows' order first, and back at the end. */
static int32_t reordered(struct encoder *e, int32_t cur, uint64_t width, uint64_t rows)
{
    struct graph *g = e->g;
    if (!(e->traits & WINDOWED) || !rows)
        return cur;
    struct gtensor t = g->t[cur];
    cur =
        graph_get_rows(g, graph_reshape(g, cur, width, rows, 1, 1), graph_input(g, GGML_I32, rows, 1, 1, 1));
    return graph_reshape(g, cur, t.ne[0], t.ne[1], 1, 1);
}

/* From the encoder to the language model: the joined patches through the file's matrices, in its order. */
static int32_t project(struct encoder *e, int32_t cur)
{
    struct graph *g = e->g;
    uint64_t join = (uint64_t)e->merge * e->merge;
    if (join > 1 && e->n >= join)
        cur = cont(g, cur, e->width * join, e->n / join, 1);
    for (uint32_t i = 0; i < e->m->n_tensors; i++) {
        const struct tensor *t = &e->m->tensors[i];
        bool mine = !strncmp(t->name, "mm.", 3) && (e->kind == SOUND) == !strncmp(t->name, "mm.a.", 5);
        if (!mine || t->n_dims != 2 || t->ne[0] != g->t[cur].ne[0])
            continue;
        cur = graph_unary(g, OP_UNARY, product(e, t, NULL, cur));
    }
    if (find(e, -1, "token_embd.img_break")) { /* each line of the picture ends with a token */
        int32_t lines = graph_new(g, OP_CONCAT, GGML_F32, g->t[cur].ne[0],
                                  g->t[cur].ne[1] + (uint64_t)sqrt((double)g->t[cur].ne[1]), 1, 1);
        graph_src(g, lines, cur);
        cur = lines;
    }
    return reordered(e, cur, g->t[cur].ne[0], g->t[cur].ne[1]);
}

static void build(struct encoder *e, struct graph *g, uint64_t tokens)
{
    graph_reset(g);
    e->g = g;
    e->place = e->mask = -1;
    int32_t cur = start(e, tokens), deep = -1;
    if (e->traits & WINDOWED)
        e->mask = graph_input(g, e->flash ? GGML_F16 : GGML_F32, e->n, e->n, 1, 1);
    cur = reordered(e, cur, (uint64_t)e->width * e->merge * e->merge, e->n / e->merge / e->merge);
    for (uint32_t il = 0; il < e->blocks; il++) {
        cur = block(e, (int)il, cur);
        deep = deep_features(e, (int)il, cur, deep);
    }
    if (find(e, -1, "post_ln.weight"))
        cur = norm(e, cur, find(e, -1, "post_ln.weight"), find(e, -1, "post_ln.bias"));
    cur = project(e, cur);
    if (deep >= 0) {
        int32_t both =
            graph_new(g, OP_CONCAT, GGML_F32, g->t[cur].ne[0] + g->t[deep].ne[0], g->t[deep].ne[1], 1, 1);
        graph_src(g, both, cur);
        graph_src(g, both, deep);
        cur = both;
    }
    g->t[cur].flags |= GF_OUTPUT;
    graph_expand(g, cur);
}

/* ---- measuring ---- */

static bool attends_fast(const struct encoder *e, bool no_device)
{
    uint32_t d = e->width / e->heads;
    return e->flash && (no_device || (d % 8 == 0 && d <= MAX_FLASH));
}

static enum rc measure(struct encoder *e, bool no_device, const struct graph_backend *backends,
                       uint64_t tokens, uint64_t *device, uint64_t *host, struct err *err)
{
    int n = no_device ? 1 : 2;
    uint64_t bytes[2] = {0};
    e->at = 0;
    build(e, e->g, tokens);
    graph_schedule(e->g, backends, n, 1);
    if (graph_measure(e->g, backends, n, NULL, bytes) != WALK_DONE)
        return err_set(err, RC_LIMIT, "the graph of %s passes the planner's bounds", e->m->path);
    *device = *device > bytes[0] ? *device : bytes[0];
    if (!no_device)
        *host = *host > bytes[1] ? *host : bytes[1];
    return RC_OK;
}

enum rc projector_read(struct projector_facts *ret, const struct model *m, struct err *err)
{
    struct projector_facts f = {.m = m};
    uint64_t has;
    struct encoder e;
    if (strcmp(m->architecture, "clip")) {
        enum rc rc = err_set(err, RC_INVALID, "%s is no projector: its architecture is '%s'", m->path,
                             m->architecture);
        err_hint(err, "a projector's file is usually called mmproj-….gguf");
        return rc;
    }
    f.image = model_key_u64(m, "clip.has_vision_encoder", &has) && has;
    f.sound = model_key_u64(m, "clip.has_audio_encoder", &has) && has;
    if (!f.image && !f.sound)
        return err_set(err, RC_INVALID, "%s has neither an encoder for images nor one for sound", m->path);
    f.checked = true;
    for (int i = 0; i < 2; i++) {
        if (!(i ? f.sound : f.image))
            continue;
        enum rc rc = encoder_read(&e, m, i ? "audio" : "vision", err);
        if (rc)
            return rc;
        f.checked = f.checked && (e.traits & CHECKED);
    }
    *ret = f;
    return RC_OK;
}

enum rc projector_measure(const struct projector_facts *f, bool no_device, enum plan_backend backend,
                          struct graph *g, struct projector_bytes *ret, struct err *err)
{
    struct projector_bytes b = {0};
    const struct graph_backend backends[2] = {no_device ? backend_graph_host(true, backend)
                                                        : backend_graph(backend),
                                              backend_graph_host(true, backend)};
    for (uint32_t i = 0; i < f->m->n_tensors; i++)
        b.model += no_device ? backend_host_bytes(HOST_ALIGNMENT, &f->m->tensors[i])
                             : backend_stored_bytes(backend, &f->m->tensors[i]);
    for (int i = 0; i < 2; i++) {
        struct encoder e;
        if (!(i ? f->sound : f->image))
            continue;
        enum rc rc = encoder_read(&e, f->m, i ? "audio" : "vision", err);
        e.g = g;
        e.flash = !rc && attends_fast(&e, no_device);
        uint64_t side = e.kind == IMAGE && !rc ? e.side / e.patch / e.merge : 1;
        side = side ? side : 1;
        uint64_t fixed = side * side, most = e.max_tokens ? e.max_tokens : fixed,
                 warm = e.warm_tokens ? e.warm_tokens : fixed;
        if (!rc)
            rc = measure(&e, no_device, backends, warm, &b.warm, &b.host_warm, err);
        if (!rc && most > warm)
            rc = measure(&e, no_device, backends, most, &b.compute, &b.host, err);
        if (rc)
            return rc;
    }
    b.compute = b.compute > b.warm ? b.compute : b.warm;
    b.host = b.host > b.host_warm ? b.host : b.host_warm;
    *ret = b;
    return RC_OK;
}
