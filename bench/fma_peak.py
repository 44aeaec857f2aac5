"""The fused multiply-adds a second of one core, in registers: the measure of a gradient step.

python -m bench.fma_peak
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

# Independent chains in the widest vectors of this processor, enough of them to hide the latency.
_SOURCE = """
#ifdef __AVX512F__
enum { BYTES = 64 };
#else
enum { BYTES = 32 };
#endif
enum { CHAINS = 12, LANES = BYTES / 8 };
typedef double vector __attribute__((vector_size(BYTES)));

double operations(void) { return 2.0 * CHAINS * LANES; }

double spin(long rounds, double factor, double summand) {
  vector sum[CHAINS], a, b;
  for (int l = 0; l < LANES; ++l) a[l] = factor, b[l] = summand;
  for (int c = 0; c < CHAINS; ++c) sum[c] = b * (double)c;
  for (long i = 0; i < rounds; ++i)
    for (int c = 0; c < CHAINS; ++c) sum[c] = sum[c] * a + b;
  double total = 0;
  for (int c = 0; c < CHAINS; ++c)
    for (int l = 0; l < LANES; ++l) total += sum[c][l];
  return total;
}
"""
_ROUNDS = 5_000_000


def measure(repeats: int = 5) -> float:
    """Largest rate of ``repeats``, in 1e9 operations a second of processor time."""
    loop, rates = _loop(), []
    for _ in range(repeats):
        start = time.thread_time()
        loop.spin(_ROUNDS, 0.5, 1.0)
        rates.append(_ROUNDS * loop.operations() / (time.thread_time() - start) / 1e9)
    return max(rates)


@cache
def _loop() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as name:
        source, library = Path(name) / "peak.c", Path(name) / "peak.so"
        source.write_text(_SOURCE, encoding="utf-8")
        flags = ["-O3", "-march=native", "-funroll-loops", "-shared", "-fPIC"]
        subprocess.run(["cc", *flags, str(source), "-o", str(library)], check=True)
        loaded = ctypes.CDLL(str(library))
    loaded.operations.restype = loaded.spin.restype = ctypes.c_double
    loaded.spin.argtypes = (ctypes.c_long, ctypes.c_double, ctypes.c_double)
    return loaded


if __name__ == "__main__":
    print(f"{measure():.1f} GFLOP/s")
