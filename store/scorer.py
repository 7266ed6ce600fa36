"""Calibrated probabilities for rows of features: ONNX Runtime on one thread, rows in their own buffers.

One thread, because with two the last bits of a row depend on how many rows stand beside it; a score must not.
"""
import logging
from pathlib import Path

import numpy as np
import onnxruntime as ort

from engine.scoring.calibration import platt
from store.registry import SLOTS, Registry, RegistryError, check

log = logging.getLogger(__name__)
ROWS = 256


class Scorer:
    """A loaded model: `score(float32[m, F]) -> float64[m]`. Not for two threads at once: its buffers are its own."""

    def __init__(self, folder: Path, schema_hash: str | None = None):
        self.folder = folder
        meta = check(folder, schema_hash)
        self.model_id: str = meta["id"]
        self.schema_hash: str = meta["schema_hash"]
        self.config_hash: str = meta["feature_schema"]["config_hash"]
        self.feature_names: tuple[str, ...] = tuple(meta["feature_names"])
        self.tau_entry = float(meta["thresholds"]["tau_entry"])
        self.tau_hold = float(meta["thresholds"]["tau_hold"])
        self.meta = meta
        self._w, self._b = float(meta["calibration"]["w"]), float(meta["calibration"]["b"])
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        width = self._session.get_inputs()[0].shape[1]
        if width != len(self.feature_names):
            raise RegistryError(f"{folder / 'model.onnx'}: takes {width} features, model.json names {len(self.feature_names)}")
        self._rows = np.zeros((ROWS, width), np.float32)
        self._raw = np.zeros((ROWS, 2), np.float32)
        self._bindings: dict[int, ort.IOBinding] = {}

    @classmethod
    def load(cls, models: Path | str, slot: str = "active", schema_hash: str | None = None) -> "Scorer | None":
        """The model in a slot, or None where the slot is empty.

        `schema_hash` is that of the features the desk computes (by default this program's own). A model trained on others is
        fatal in `active` (`RegistryError`) and disables `shadow` with a warning.
        """
        if slot not in SLOTS:
            raise RegistryError(f"{slot}: a slot is {' or '.join(SLOTS)}")
        if schema_hash is None:
            from engine.scoring.features import SCHEMA_HASH
            schema_hash = SCHEMA_HASH
        try:
            folder = Registry(models).slot(slot)
            return None if folder is None else cls(folder, schema_hash)
        except RegistryError as error:
            if slot == "active":
                raise
            log.warning("shadow scoring is off: %s", error)
            return None

    def score(self, rows: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float64[m], of float32[m, F]; each row's is the same whatever rows stand beside it."""
        return platt(self.raw(rows), self._w, self._b)

    def raw(self, rows: np.ndarray) -> np.ndarray:
        """The model's own probabilities before calibration, float32[m]; `ValueError` for another number of features."""
        if rows.ndim != 2 or rows.shape[1] != self._rows.shape[1]:
            raise ValueError(f"{self.model_id} scores rows of {self._rows.shape[1]} features, not {rows.shape}")
        m = len(rows)
        out = np.empty(m, np.float32)
        for at in range(0, m, ROWS):
            n = min(ROWS, m - at)
            self._rows[:n] = rows[at:at + n]
            self._session.run_with_iobinding(self._binding(n))
            out[at:at + n] = self._raw[:n, 1]
        return out

    def _binding(self, n: int) -> ort.IOBinding:
        got = self._bindings.get(n)
        if got is None:
            got = self._session.io_binding()
            got.bind_input("input", "cpu", 0, np.float32, (n, self._rows.shape[1]), self._rows.ctypes.data)
            got.bind_output("probabilities", "cpu", 0, np.float32, (n, 2), self._raw.ctypes.data)
            self._bindings[n] = got
        return got
