"""Many trainings: fair comparisons of recipes, and sweeps over settings."""

from circlet.errors import CircletError

try:
    import optuna  # noqa: F401
    import scipy  # noqa: F401
except ImportError as error:
    raise CircletError(
        f"comparisons and sweeps need Optuna and SciPy ({error}): pip install 'circlet[experiments]'"
    ) from error
