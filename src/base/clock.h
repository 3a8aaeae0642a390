/* Clocks. Layer base; any thread. Code that keeps state takes a struct clock so that tests can drive time. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_mono_us(void); /* monotonic, from an arbitrary start */
uint64_t clock_mono_ms(void);
int64_t clock_wall_ms(void); /* Unix time in milliseconds */
/* RFC 3339 in UTC with milliseconds into out (at least 32 bytes); returns out. */
char *clock_rfc3339(int64_t wall_ms, char *out, unsigned cap);

#endif
