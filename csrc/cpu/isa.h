// Which instruction set the CPU kernels use: chosen at run time, once, from what the processor has.
#pragma once

namespace iwin_d2 {

enum class Isa { baseline, avx2, avx512 };

// The instruction set in use. At the start: the best that the processor has, not above what
// PyTorch was told by ATEN_CPU_CAPABILITY.
Isa current_isa();

}  // namespace iwin_d2

// Calls the kernel of the instruction set in use; the kernel was defined in a file that
// for_each_isa.h compiled once for each.
#if defined(__x86_64__)
#define IWIN_CALL_FOR_ISA(kernel, ...)                                     \
  (::iwin_d2::current_isa() == ::iwin_d2::Isa::avx512 ? avx512::kernel(__VA_ARGS__) \
   : ::iwin_d2::current_isa() == ::iwin_d2::Isa::avx2 ? avx2::kernel(__VA_ARGS__)   \
                                                      : baseline::kernel(__VA_ARGS__))
#else
#define IWIN_CALL_FOR_ISA(kernel, ...) baseline::kernel(__VA_ARGS__)
#endif
