/* Yielding memory that others take, and taking it back: the pool's side. Layer pool; loop thread, but for the
 * listing of processes, which works on a struct of its own.
 *
 * A look follows every newer inventory and every change of the kernel's pressure. Where a device is short
 * (gauge.h, yield.h), the largest other processes are listed on the work pool, so that the decision can name
 * them; then the cheapest steps are taken, each as a decision with its reasons. */
#ifndef POOL_TENANT_H
#define POOL_TENANT_H

#include "pool/gauge.h"
#include "pool/yield.h"

struct tenants *tenants_new(struct pool *p);
void tenants_free(struct tenants *t); /* no listing is under way; NULL is fine */
/* There is a newer inventory. */
void tenants_look(struct tenants *t);
/* In every turn: loads again what was stopped for that and is gone. */
void tenants_turn(struct tenants *t);
/* The seat is loaded or unloaded by somebody's wish: what it yielded is forgotten. */
void tenants_forget(struct entry *e);
/* A load that only makes good what was yielded found no room. */
void tenants_no_room(struct entry *e);

/* tenant_view.c */
struct tenant_list { /* the host's largest others */
    struct proc_use rows[GAUGE_OTHERS];
    size_t n;
};
/* "Host: 1.2 GiB short of the 3.0 GiB kept free; others have 4.1 GiB: python (123) 1.5 GiB, …" */
void tenant_reason(const struct pool *p, const struct gauge *g, const struct tenant_list *host,
                   struct plan_reason *ret);
yyjson_mut_val *tenant_json(const struct pool *p, const struct gauge *g, const struct tenant_list *host,
                            yyjson_mut_doc *doc);

#endif
