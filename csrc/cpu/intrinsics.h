#pragma once

#if defined(__x86_64__)
// GCC 12 warns of its own header: _mm512_max_ps begins with a vector that is uninitialised on purpose.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif
