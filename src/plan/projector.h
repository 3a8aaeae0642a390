/* Memory of a projector (a model's encoder for images or sound, general.type "mmproj"). Layer plan, internal;
 * pure. The runtime loads it whole onto one device, reserves its graph for a middling picture, and lets the
 * buffer grow with the pictures that come: what is counted is the largest picture it accepts. */
#ifndef PLAN_PROJECTOR_H
#define PLAN_PROJECTOR_H

#include "plan/backend.h"

struct projector_facts {
    const struct model *m;
    bool checked;      /* the graph is that of a projector whose sizes were compared with the runtime's */
    bool image, sound; /* encoders in the file */
};

struct projector_bytes {
    uint64_t model;           /* weights in the device's buffer */
    uint64_t compute;         /* graph of the largest picture or of half a minute of sound */
    uint64_t warm;            /* graph that is reserved when the server starts */
    uint64_t host, host_warm; /* the graph's inputs, where the device is no host; else 0 */
};

/* RC_INVALID: no projector, or a key is missing or makes no sense. */
enum rc projector_read(struct projector_facts *ret, const struct model *m, struct err *err);
/* backend: of the device that holds it; no_device: it stays on the host. Errors: RC_LIMIT. */
enum rc projector_measure(const struct projector_facts *f, bool no_device, enum plan_backend backend,
                          struct graph *g, struct projector_bytes *ret, struct err *err);

#endif
