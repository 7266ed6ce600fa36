"""LightGBM → ONNX without silently other answers.

ONNX trees compare in float32, LightGBM in float64: a threshold that float32 rounds up sends a row to the other leaf. Features
are float32 in training and serving, so flooring every threshold to float32 changes no LightGBM answer, and makes both agree.
"""
import re
import warnings

import lightgbm as lgb
import numpy as np

SILENTLY_WRONG = ("linear_tree", "zero_as_missing")
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


def floored(booster: lgb.Booster) -> lgb.Booster:
    """The same model with every threshold floored to float32; on float32 rows it answers bit for bit the same."""
    text = THRESHOLDS.sub(lambda m: "threshold=" + " ".join(repr(float(v)) for v in floor32(np.array(m[1].split(), np.float64))),
                          booster.model_to_string(num_iteration=booster.best_iteration or None))
    return lgb.Booster(model_str=re.sub(r"^tree_sizes=.*\n", "", text, flags=re.M))


def to_onnx(booster: lgb.Booster, props: dict[str, str]) -> bytes:
    """The (floored) binary model as ONNX: float32 `input` [rows, F], `probabilities` [rows, 2], any number of rows."""
    import onnx
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType
        model = convert_lightgbm(booster, initial_types=[("input", FloatTensorType([None, booster.num_feature()]))], zipmap=False,
                                 target_opset=15)
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].ClearField("dim_value")
        output.type.tensor_type.shape.dim[0].dim_param = "rows"
    onnx.helper.set_model_props(model, props)
    onnx.checker.check_model(model)
    return model.SerializeToString()
