// Compiles the file named by IWIN_ISA_FILE once for each instruction set, in a namespace of that
// name. No include guard: a kernel file includes it once.
//
// Nothing of the standard library or PyTorch may be included by IWIN_ISA_FILE itself (only before
// this header): their inline functions, compiled for AVX-512, could be the copy that the linker
// keeps for everybody.
#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#endif
namespace avx512 {
#define IWIN_VECTOR_BYTES 64
#define IWIN_VECTOR_REGISTERS 32
#include IWIN_ISA_FILE
#undef IWIN_VECTOR_BYTES
#undef IWIN_VECTOR_REGISTERS
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace avx2 {
#define IWIN_VECTOR_BYTES 32
#define IWIN_VECTOR_REGISTERS 16
#include IWIN_ISA_FILE
#undef IWIN_VECTOR_BYTES
#undef IWIN_VECTOR_REGISTERS
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__

namespace baseline {
#define IWIN_VECTOR_BYTES 16
#if defined(__aarch64__)
#define IWIN_VECTOR_REGISTERS 32
#else
#define IWIN_VECTOR_REGISTERS 16
#endif
#include IWIN_ISA_FILE
#undef IWIN_VECTOR_BYTES
#undef IWIN_VECTOR_REGISTERS
}  // namespace baseline
