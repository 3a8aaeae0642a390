/* Preloaded with hook.c: lets the tool schedule as llama-server does (ORACLE_PINS=1). While a graph is built,
 * llama.cpp assigns some operations to devices; the tool's way of summing sizes resets the scheduler first
 * and so forgets them. They are kept here from the building of the graph to its splitting.
 *
 * Relies on calls between llama.cpp's libraries going through their symbols. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_PINS 8192

static struct {
    void *tensor, *backend;
} pins[MAX_PINS];
static unsigned n_pins;

static void *real(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    if (!f) {
        fprintf(stderr, "oracle hook: %s is missing\n", name);
        abort();
    }
    return f;
}

static void set(void *sched, void *tensor, void *backend)
{
    ((void (*)(void *, void *, void *))real("ggml_backend_sched_set_tensor_backend"))(sched, tensor, backend);
}

void ggml_backend_sched_set_tensor_backend(void *sched, void *tensor, void *backend);
void ggml_backend_sched_set_tensor_backend(void *sched, void *tensor, void *backend)
{
    if (n_pins == MAX_PINS)
        abort();
    pins[n_pins].tensor = tensor;
    pins[n_pins++].backend = backend;
    set(sched, tensor, backend);
}

void ggml_backend_sched_split_graph(void *sched, void *graph);
void ggml_backend_sched_split_graph(void *sched, void *graph)
{
    for (unsigned i = 0; getenv("ORACLE_PINS") && i < n_pins; i++)
        set(sched, pins[i].tensor, pins[i].backend);
    n_pins = 0; /* the next graph may lie in the same memory */
    ((void (*)(void *, void *))real("ggml_backend_sched_split_graph"))(sched, graph);
}
