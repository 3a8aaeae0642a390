/* What is known of this machine beside its inventory: figures that `arriero bench` measured, and what loads
 * and requests taught. Kept in the history file, here in memory, given to the planner as values. Layer
 * daemon; blocking where it reads; the daemon's loop or a command's main thread owns it. */
#ifndef DAEMON_KNOWLEDGE_H
#define DAEMON_KNOWLEDGE_H

#include "plan/learn.h"
#include "store/store.h"

#define KNOWLEDGE_DEVICES 16

/* 0 = not measured. */
struct knowledge_host {
    double read_gbps, read_core_gbps, fp32_core_gflops, int8_core_gops, disk_gbps;
    int64_t wall_ms; /* of the newest; 0 = none */
};
struct knowledge_gpu {
    char uuid[96];
    double copy_gbps, to_device_gbps, from_device_gbps, fp16_tflops;
    int64_t wall_ms;
};

struct knowledge {
    struct plan_learned learned;
    struct knowledge_host host;
    struct knowledge_gpu gpus[KNOWLEDGE_DEVICES];
    size_t n_gpus;
    char note[320]; /* why nothing could be read; "" when all is well or there is no history yet */
};

/* Never fails: what cannot be read is not known, and the note says why. */
struct knowledge *knowledge_load(const char *history_path);
void knowledge_free(struct knowledge *k); /* NULL is fine */
/* The history file that the configuration (or the default) names; path is at least 4200 bytes. */
void knowledge_path(char *ret_path, size_t cap);
/* This machine's name in the history: a file may be shared by several. At least 65 bytes. */
void knowledge_machine_name(char *ret_name, size_t cap);

/* Figures and lessons into a machine that is to be planned for: rates of host and devices, factors,
 * overheads. k may be NULL. runtime "" = any build. */
void knowledge_apply(const struct knowledge *k, const struct model *m, const char *runtime, bool flash_attn,
                     struct plan_machine *machine);
/* Into memory and, if there is a store, into the file. False: senseless, refused. */
bool knowledge_lesson(struct knowledge *k, struct store *store, const char *model, int64_t wall_ms,
                      const struct learn_sample *s);
/* A figure by its name in struct knowledge_host or knowledge_gpu ("read_gbps"); device "host" or a UUID.
 * False: no such name, or no room for another GPU. */
bool knowledge_figure(struct knowledge *k, const char *device, const char *name, double value,
                      int64_t wall_ms);

#endif
