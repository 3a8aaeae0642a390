/* Products of small matrices in the forms that language models use on a processor: single precision, and
 * 8-bit integers summed in 32 bits. Layer hw; pure. Both walk tiles whose sums stay in registers. */
#include "hw/bench_priv.h"

#include "base/mem.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

/* A tile of 4 rows × 2 vectors: 8 sums, 2 loads and 4 broadcasts a step. The body is a macro because a
 * function cannot be compiled for several instruction sets. */
#define FP32_BODY(WIDTH)                                                                                     \
    typedef float vec __attribute__((vector_size(sizeof(float) * (WIDTH)), aligned(4)));                     \
    for (size_t i = 0; i < n; i += 4)                                                                        \
        for (size_t j = 0; j < n; j += 2 * (WIDTH)) {                                                        \
            vec sum[4][2] = {0};                                                                             \
            for (size_t k = 0; k < n; k++) {                                                                 \
                const vec *row = (const vec *)(const void *)(b + k * n + j);                                 \
                for (size_t r = 0; r < 4; r++) {                                                             \
                    float x = a[(i + r) * n + k];                                                            \
                    sum[r][0] += x * row[0];                                                                 \
                    sum[r][1] += x * row[1];                                                                 \
                }                                                                                            \
            }                                                                                                \
            for (size_t r = 0; r < 4; r++) {                                                                 \
                vec *out = (vec *)(void *)(c + (i + r) * n + j);                                             \
                out[0] = sum[r][0];                                                                          \
                out[1] = sum[r][1];                                                                          \
            }                                                                                                \
        }

static void fp32_plain(const float *a, const float *b, float *c, size_t n)
{
    FP32_BODY(4)
}

static void int8_plain(const uint8_t *a, const int8_t *b, int32_t *c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            int32_t sum = 0;
            for (size_t k = 0; k < n; k++)
                sum += a[i * n + k] * b[j * n + k];
            c[i * n + j] = sum;
        }
}

/* A tile of 4 × 2 rows; ACC is the type of a sum, DOT adds one vector's products to it, TOTAL adds its lanes.
 */
#define INT8_BODY(ACC, ZERO, BYTES, LOAD_A, LOAD_B, DOT, TOTAL)                                              \
    for (size_t i = 0; i < n; i += 4)                                                                        \
        for (size_t j = 0; j < n; j += 2) {                                                                  \
            ACC sum[4][2];                                                                                   \
            for (size_t r = 0; r < 4; r++)                                                                   \
                sum[r][0] = sum[r][1] = ZERO;                                                                \
            for (size_t k = 0; k < n; k += (BYTES))                                                          \
                for (size_t r = 0; r < 4; r++) {                                                             \
                    sum[r][0] = DOT(sum[r][0], LOAD_A(a + (i + r) * n + k), LOAD_B(b + j * n + k));          \
                    sum[r][1] = DOT(sum[r][1], LOAD_A(a + (i + r) * n + k), LOAD_B(b + (j + 1) * n + k));    \
                }                                                                                            \
            for (size_t r = 0; r < 4; r++) {                                                                 \
                c[(i + r) * n + j] = TOTAL(sum[r][0]);                                                       \
                c[(i + r) * n + j + 1] = TOTAL(sum[r][1]);                                                   \
            }                                                                                                \
        }

#if defined(__x86_64__)

/* gcc 12 aligns the frames of AddressSanitizer's fake stack to 32 bytes only: 64-byte sums in them would
 * fault. */
#define WIDE_FRAME __attribute__((no_sanitize("address")))

__attribute__((target("avx2,fma"))) static void fp32_avx2(const float *a, const float *b, float *c,
                                                          size_t n){FP32_BODY(8)}

WIDE_FRAME __attribute__((target("avx512f"))) static void fp32_avx512(const float *a, const float *b,
                                                                      float *c, size_t n)
{
    FP32_BODY(16)
}

#define LOAD256(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define DOT256(s, x, y)                                                                                      \
    _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), _mm256_set1_epi16(1)))
#define LOAD512(p) _mm512_loadu_si512((const void *)(p))

__attribute__((target("avx2"))) static int32_t total_256(__m256i v)
{
    int32_t lanes[8], sum = 0;
    _mm256_storeu_si256((__m256i *)(void *)lanes, v);
    for (size_t i = 0; i < 8; i++)
        sum += lanes[i];
    return sum;
}

__attribute__((target("avx2"))) static void int8_avx2(const uint8_t *a, const int8_t *b, int32_t *c,
                                                      size_t n){
    INT8_BODY(__m256i, _mm256_setzero_si256(), 32, LOAD256, LOAD256, DOT256, total_256)}

WIDE_FRAME
    __attribute__((target("avx512f,avx512vnni"))) static void int8_vnni(const uint8_t *a, const int8_t *b,
                                                                        int32_t *c, size_t n)
{
    INT8_BODY(__m512i, _mm512_setzero_si512(), 64, LOAD512, LOAD512, _mm512_dpbusd_epi32,
              _mm512_reduce_add_epi32)
}

const struct bench_form *bench_form_fp32(void)
{
    static const struct bench_form avx512 = {.name = "avx512", .fp32 = fp32_avx512},
                                   avx2 = {.name = "avx2-fma", .fp32 = fp32_avx2},
                                   plain = {.name = "sse2", .fp32 = fp32_plain};
    return __builtin_cpu_supports("avx512f")                                 ? &avx512
           : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &avx2
                                                                             : &plain;
}

const struct bench_form *bench_form_int8(void)
{
    static const struct bench_form vnni = {.name = "avx512-vnni", .int8 = int8_vnni},
                                   avx2 = {.name = "avx2", .int8 = int8_avx2},
                                   plain = {.name = "plain", .int8 = int8_plain};
    return __builtin_cpu_supports("avx512vnni") ? &vnni : __builtin_cpu_supports("avx2") ? &avx2 : &plain;
}

#else

#if defined(__ARM_FEATURE_DOTPROD)
#define LOAD_A128(p)    vreinterpretq_s8_u8(vld1q_u8(p)) /* values below 128 read the same */
#define LOAD_B128(p)    vld1q_s8(p)
#define DOT128(s, x, y) vdotq_s32(s, x, y)
static void int8_dotprod(const uint8_t *a, const int8_t *b, int32_t *c, size_t n)
{
    INT8_BODY(int32x4_t, vdupq_n_s32(0), 16, LOAD_A128, LOAD_B128, DOT128, vaddvq_s32)
}
#endif

const struct bench_form *bench_form_fp32(void)
{
    static const struct bench_form plain = {.name = "128-bit", .fp32 = fp32_plain};
    return &plain;
}

const struct bench_form *bench_form_int8(void)
{
#if defined(__ARM_FEATURE_DOTPROD)
    static const struct bench_form form = {.name = "neon-dotprod", .int8 = int8_dotprod};
#else
    static const struct bench_form form = {.name = "plain", .int8 = int8_plain};
#endif
    return &form;
}

#endif

void hw_bench_fp32_product(const float *a, const float *b, float *c, size_t n)
{
    bench_form_fp32()->fp32(a, b, c, n);
}

void hw_bench_int8_product(const uint8_t *a, const int8_t *b, int32_t *c, size_t n)
{
    bench_form_int8()->int8(a, b, c, n);
}
