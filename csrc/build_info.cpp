// What the extension was built from and for, to be shown and to be checked before it is loaded.
#include <torch/library.h>

#include <string>

#if defined(__x86_64__)
#define IWIN_INSTRUCTION_SETS "avx512 avx2 baseline"
#else
#define IWIN_INSTRUCTION_SETS "baseline"
#endif

#define IWIN_CPU "CPU (" IWIN_INSTRUCTION_SETS ")"
// IWIN_D2_WITH_CUDA says which CUDA, for which architectures.
#if defined(IWIN_D2_EMULATED)
#define IWIN_DEVICES "emulated CUDA"
#elif defined(IWIN_D2_WITH_CUDA)
#define IWIN_DEVICES IWIN_CPU " and " IWIN_D2_WITH_CUDA
#else
#define IWIN_DEVICES IWIN_CPU
#endif

#if defined(__SANITIZE_ADDRESS__)
#define IWIN_SANITIZERS ", with AddressSanitizer"
#else
#define IWIN_SANITIZERS ""
#endif

// iwin_d2/ops/extension.py looks for this text in the file, since code built for another PyTorch
// had better not be loaded: hence a variable that the compiler keeps whole.
extern "C" __attribute__((used, visibility("default"))) const char iwin_d2_build_info[] =
    "iwin_d2 extension for PyTorch " IWIN_D2_TORCH_VERSION ", " IWIN_DEVICES
    ", GCC " __VERSION__ IWIN_SANITIZERS;

namespace {

std::string build_info() {
  return iwin_d2_build_info;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(iwin_d2, m) {
  m.def("build_info() -> str", &build_info);
}
