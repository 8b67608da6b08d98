"""A script that was there before researchlab: power iteration with NumPy. It got two lines, an import and a `with`.

python examples/plain.py
pytest --rlab-reproduce latest --rlab-experiment plain
"""

from __future__ import annotations

import mlflow
import numpy as np

from researchlab import ExperimentTracker


def main() -> None:
    """Find the largest eigenvalue of a random symmetric matrix."""
    rng = np.random.default_rng(2026)
    matrix = rng.standard_normal((200, 200))
    matrix = matrix + matrix.T
    vector = rng.standard_normal(200)
    for step in range(100):
        product = matrix @ vector
        eigenvalue = vector @ product / (vector @ vector)
        vector = product / np.linalg.norm(product)
        mlflow.log_metric("eigenvalue", float(eigenvalue), step=step)
    mlflow.log_param("size", len(matrix))
    print(f"largest eigenvalue: {eigenvalue}")


if __name__ == "__main__":
    with ExperimentTracker("plain"):
        main()
