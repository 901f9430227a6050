#include "isa.h"

#include <ATen/Version.h>
#include <torch/library.h>

#include <atomic>
#include <string>

namespace iwin_d2 {
namespace {

Isa best_isa() {
#if defined(__x86_64__)
  const std::string torch_uses = at::get_cpu_capability();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl");
  if (torch_uses == "AVX512" && avx512) {
    return Isa::avx512;
  }
  if (torch_uses != "DEFAULT" && torch_uses != "NO AVX" && avx2) {
    return Isa::avx2;
  }
#endif
  return Isa::baseline;
}

std::atomic<Isa>& chosen_isa() {
  static std::atomic<Isa> chosen{best_isa()};
  return chosen;
}

std::string cpu_capability() {
  switch (current_isa()) {
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    default:
      return "baseline";
  }
}

// For the tests: each instruction set has to give the same results.
void set_cpu_capability(const std::string& name) {
  const Isa wanted = name == "avx512" ? Isa::avx512 : name == "avx2" ? Isa::avx2 : Isa::baseline;
  TORCH_CHECK_VALUE(
      name == "avx512" || name == "avx2" || name == "baseline",
      "expected avx512, avx2 or baseline, got ",
      name);
  TORCH_CHECK_VALUE(
      wanted <= best_isa(), "this processor, or ATEN_CPU_CAPABILITY, does not allow ", name);
  chosen_isa() = wanted;
}

}  // namespace

Isa current_isa() {
  return chosen_isa().load(std::memory_order_relaxed);
}

}  // namespace iwin_d2

TORCH_LIBRARY_FRAGMENT(iwin_d2, m) {
  m.def("cpu_capability() -> str", &iwin_d2::cpu_capability);
  m.def("_set_cpu_capability(str name) -> ()", &iwin_d2::set_cpu_capability);
}
