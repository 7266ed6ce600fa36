"""LightGBM → ONNX without silently other answers.

ONNX trees compare in float32, LightGBM in float64: a threshold that float32 rounds up sends a row to the other leaf. Features
are float32 in training and serving, so flooring every threshold to float32 changes no LightGBM answer, and makes both agree.
LightGBM also reads |x| ≤ 1e-35 as 0, and writes "below zero" as x ≤ −1e-35: thresholds that near to zero move just outside.
"""
import re
import warnings
from collections.abc import Callable

import lightgbm as lgb
import numpy as np

SILENTLY_WRONG = ("linear_tree", "zero_as_missing")
ZERO = float(np.float32(1e-35))        # LightGBM's kZeroThreshold
THRESHOLDS = re.compile(r"^threshold=(.*)$", re.M)


class ExportError(ValueError):
    """A model that would not answer the same after conversion."""


def refuse_silently_wrong(params: dict) -> None:
    """`ExportError` for parameters with which the converter returns a model that answers differently and says nothing."""
    for name in SILENTLY_WRONG:
        if params.get(name):
            raise ExportError(f"training.{name}: {params[name]!r} converts to a model that answers differently; leave it off")
    boosting = params.get("boosting", params.get("boosting_type", "gbdt"))
    if boosting in ("rf", "random_forest"):
        raise ExportError(f"training.boosting: {boosting!r} converts to a model that answers differently; use gbdt")
    if float(params.get("sigmoid", 1.0)) != 1.0:
        raise ExportError(f"training.sigmoid: {params['sigmoid']!r} is ignored by the converter; use 1")


def floor32(values: np.ndarray) -> np.ndarray:
    """The greatest float32 that is not above each value, as float64.

    >>> bool(floor32(np.array([0.1]))[0] <= 0.1)
    True
    """
    near = values.astype(np.float32)
    below = np.nextafter(near, np.float32(-np.inf))
    return np.where(near.astype(np.float64) > values, below, near).astype(np.float64)


def comparable(thresholds: np.ndarray) -> np.ndarray:
    """Thresholds that part float32 rows as LightGBM parts them, be they compared in float32 or in float64."""
    low = float(np.nextafter(np.float32(-ZERO), np.float32(-np.inf)))
    at = floor32(thresholds)
    at = np.where((thresholds >= -ZERO) & (thresholds < 0), low, at)
    return np.where((thresholds >= 0) & (thresholds < ZERO), ZERO, at)


def floored(booster: lgb.Booster) -> lgb.Booster:
    """The same model with every threshold made `comparable`; on float32 rows it answers bit for bit the same."""
    text = THRESHOLDS.sub(lambda m: "threshold=" + " ".join(repr(float(v)) for v in comparable(np.array(m[1].split(), np.float64))),
                          booster.model_to_string(num_iteration=booster.best_iteration or None))
    return lgb.Booster(model_str=re.sub(r"^tree_sizes=.*\n", "", text, flags=re.M))


def to_onnx(booster: lgb.Booster, props: dict[str, str]) -> bytes:
    """The (floored) binary model as ONNX: float32 `input` [rows, F], `probabilities` [rows, 2], any number of rows."""
    import onnx
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType
        model = convert_lightgbm(booster, "sluice", [("input", FloatTensorType([None, booster.num_feature()]))], zipmap=False,
                                 target_opset=15)
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].ClearField("dim_value")
        output.type.tensor_type.shape.dim[0].dim_param = "rows"
    onnx.helper.set_model_props(model, props)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def answer_of(onnx: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """float32[m, F] → raw probabilities float32[m] of an exported model, as the scorer runs it."""
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    def answer(x: np.ndarray) -> np.ndarray:
        parts = [session.run(["probabilities"], {"input": np.ascontiguousarray(x[at:at + 4096])})[0][:, 1] for at in range(0, len(x), 4096)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return answer
