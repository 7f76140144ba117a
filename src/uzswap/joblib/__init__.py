"""joblib on uzswap: results of ``Memory`` in a cgroup, and arrays that workers share instead of copying.

Importing it registers both under the name "uzswap"::

    memory = joblib.Memory("reports", backend="uzswap", backend_options={"cgroup": z.cgroup("/results")})
    results = joblib.Parallel(n_jobs=4, backend="uzswap")(joblib.delayed(work)(x, i) for i in range(100))
"""

try:
    import joblib
except ImportError as error:
    raise ImportError("uzswap.joblib needs joblib: pip install 'uzswap[joblib]'") from error

from uzswap.joblib.parallel import ParallelBackend
from uzswap.joblib.results import StoreBackend

__all__ = ["ParallelBackend", "StoreBackend"]

joblib.register_store_backend("uzswap", StoreBackend)
joblib.register_parallel_backend("uzswap", ParallelBackend)
