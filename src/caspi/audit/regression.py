"""Logistic regression with few inputs."""

from __future__ import annotations

import numpy as np

_ITERATIONS = 50


def logistic(inputs: np.ndarray, target: np.ndarray, weight: np.ndarray, ridge: float) -> np.ndarray:
    """Weights float64 [1 + inputs], the constant first, of inputs [examples, inputs] and targets 0 or 1, each example
    with its weight (Newton's method). ridge: penalty on the square of every weight but the constant."""
    inputs = np.concatenate([np.ones((len(inputs), 1)), inputs], axis=1)
    penalty = ridge * np.eye(inputs.shape[1])
    penalty[0, 0] = 1e-6
    weights = np.zeros(inputs.shape[1])
    for _ in range(_ITERATIONS):
        probability = 1 / (1 + np.exp(-(inputs @ weights).clip(-30, 30)))
        gradient = inputs.T @ (weight * (probability - target)) + penalty @ weights
        curvature = (inputs * (weight * probability * (1 - probability))[:, None]).T @ inputs + penalty
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    return weights
