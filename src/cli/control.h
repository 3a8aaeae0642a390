/* What the commands share that talk to the daemon: one call, and how its values read for people. Layer cli;
 * main thread. */
#ifndef CLI_CONTROL_H
#define CLI_CONTROL_H

#include "base/sse.h"
#include "cli/cli_priv.h"
#include "cli/client.h"

#include <signal.h>
#include <stddef.h>

#define CONTROL_API        "/api/arriero/v1"
#define CONTROL_NO_TIMEOUT 0u /* loads and drains take what they take */

/* GET CONTROL_API + path on the control socket of the call. */
enum rc control_get(const struct cli_call *call, const char *path, yyjson_doc **ret_doc, struct err *err);
/* POST with the document as body, which is freed in every case. */
enum rc control_post(const struct cli_call *call, const char *path, yyjson_mut_doc *body, uint32_t timeout_ms,
                     yyjson_doc **ret_doc, struct err *err);
/* Where the daemon answers clients, as options of a command: their rows, and where their values go. */
struct control_door {
    const char *url, *ca_file; /* NULL = not given */
    bool insecure;
};
#define CONTROL_DOOR_OPTIONS(options, door)                                                                    \
    {"url",   'u',                                                                                             \
     CLI_STR, offsetof(struct options, door.url),                                                              \
     "URL",   "the daemon's HTTP or HTTPS address (default: asks the daemon)"},                                \
        {"cacert", 0,                                                                                          \
         CLI_STR,  offsetof(struct options, door.ca_file),                                                     \
         "FILE",   "with https: the certificates that are trusted (else $ARRIERO_CACERT, else the system's)"}, \
    {                                                                                                          \
        "insecure", 0, CLI_FLAG, offsetof(struct options, door.insecure), NULL,                                \
            "with https: trust any certificate; whoever is in between can read all"                            \
    }
/* The door's url if given, else as the daemon on the control socket tells, else the default address. A
 * certificate that is not to be checked is warned of on stderr. door: NULL = nothing is given. RC_INVALID:
 * the url, or options that go with https only. */
enum rc control_door(const struct cli_call *call, const struct control_door *door,
                     struct client_address *ret_address, struct err *err);
/* The path behind the address, whose URL may end in /v1 already, as clients of OpenAI's API have it.
 * Borrowed. */
const char *control_api_path(const struct client_address *a, const char *path);
/* A body {"model": model}; *ret_root for further members. */
yyjson_mut_doc *control_body(const char *model, yyjson_mut_val **ret_root);
/* Prints the daemon's answer as it is and frees it. Returns the exit status. */
int control_print(yyjson_doc *doc);

/* SIGINT and SIGTERM as a readable descriptor, so that a command can end its connection in order. */
struct control_interrupt {
    int fd; /* for client_request.cancel_fd; -1 when the kernel gave none */
    sigset_t old;
};
void control_interrupt_begin(struct control_interrupt *i);
void control_interrupt_end(struct control_interrupt *i);
#define CONTROL_INTERRUPTED 130 /* exit status after it */

/* Reads server-sent events of CONTROL_API + path until the daemon or the user ends them; stdout is flushed
 * after each piece. Returns the exit status. */
int control_follow(const struct cli_call *call, const char *path, sse_event_fn fn, void *arg);

/* A decision in sentences, wrapped at width (control_width: the terminal's, at most 110). Appends. */
void control_decision(struct buf *out, yyjson_val *decision, size_t width);
size_t control_width(void);

/* The instance of `instances` whose model or id is `name`; NULL if there is none. */
yyjson_val *control_instance(yyjson_val *instances, struct str name);
/* "CUDA0 4.6 GiB, Host 310 MiB": measured bytes where known, else predicted; "-" for none. Appends. */
void control_devices(yyjson_val *instance, struct buf *out);

/* ", CUDA0 ± 38 MiB, from 12 loads" for what was learned of an instance's devices; nothing else. Appends. */
void control_learned(yyjson_val *instance, struct buf *out);

/* "850 ms", "1.2 s", "12 s", "3m 12s", "5h 02m", "4d 3h" into out (at least 24 bytes); returns out. */
char *control_duration(uint64_t ms, char *out, size_t cap);
/* An RFC 3339 time in UTC as local "2026-01-31 17:05:09" (at least 24 bytes); what is no such time is copied.
 */
char *control_time(struct str rfc3339, char *out, size_t cap);

#endif
