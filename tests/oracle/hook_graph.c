/* Preloaded with hook.c: writes the graph that the tool reserves to the file named by ORACLE_GRAPH, one node
 * a line, as `oracle graph` prints the planner's: number, operation, type, shape, sources (a node's number,
 * or what the tensor is with its name, type and shape), strides and offset of a view; behind '#' its name and
 * the backend that computes it.
 *
 * Relies on the layout of struct ggml_tensor in llama.cpp 0.7.0 (ggml.h). */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct tensor {
    int32_t type;
    void *buffer;
    int64_t ne[4];
    size_t nb[4];
    int32_t op, op_params[16], flags;
    struct tensor *src[10], *view_src;
    size_t view_offs;
    void *data;
    char name[64];
};
enum { FLAG_INPUT = 1, FLAG_OUTPUT = 2 };

static void *real(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    if (!f) {
        fprintf(stderr, "oracle hook: %s is missing\n", name);
        abort();
    }
    return f;
}
#define REAL(name, ret, ...) ((ret(*)(__VA_ARGS__))real(name))

static int number_of(struct tensor **nodes, int n, const struct tensor *t)
{
    for (int i = n - 1; i >= 0; i--)
        if (nodes[i] == t)
            return i;
    return -1;
}

static void put_shape(FILE *out, const struct tensor *t)
{
    fprintf(out, "%s[%lld,%lld,%lld,%lld]", REAL("ggml_type_name", const char *, int)(t->type),
            (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2], (long long)t->ne[3]);
}

static void put_node(FILE *out, void *sched, struct tensor **nodes, int i)
{
    const struct tensor *t = nodes[i];
    void *backend = REAL("ggml_backend_sched_get_tensor_backend", void *, void *, const void *)(sched, t);
    fprintf(out, "%d %s%s ", i, REAL("ggml_op_name", const char *, int)(t->op),
            t->flags & FLAG_OUTPUT ? "!" : "");
    put_shape(out, t);
    for (int j = 0; j < 10; j++) {
        const struct tensor *s = t->src[j];
        int k = s ? number_of(nodes, i, s) : -1;
        if (k >= 0)
            fprintf(out, " %d", k);
        if (!s || k >= 0)
            continue;
        fprintf(out, " %c{%s}", s->flags & FLAG_INPUT ? 'i' : 'w', s->name);
        put_shape(out, s);
    }
    if (t->view_src)
        fprintf(out, " nb %zu,%zu,%zu @%zu", t->nb[1], t->nb[2], t->nb[3], t->view_offs);
    fprintf(out, " # %s %s\n", t->name,
            backend ? REAL("ggml_backend_name", const char *, void *)(backend) : "-");
}

static void dump(void *sched, void *graph)
{
    const char *path = getenv("ORACLE_GRAPH");
    FILE *out = path ? fopen(path, "we") : NULL;
    if (!out)
        return;
    int n = REAL("ggml_graph_n_nodes", int, void *)(graph);
    struct tensor **nodes = REAL("ggml_graph_nodes", struct tensor **, void *)(graph);
    for (int i = 0; i < n; i++)
        put_node(out, sched, nodes, i);
    fclose(out);
}

void ggml_backend_sched_reserve_size(void *sched, void *graph, size_t *sizes);
void ggml_backend_sched_reserve_size(void *sched, void *graph, size_t *sizes)
{
    REAL("ggml_backend_sched_reserve_size", void, void *, void *, size_t *)(sched, graph, sizes);
    dump(sched, graph);
}
