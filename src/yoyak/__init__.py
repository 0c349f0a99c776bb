"""yoyak (요약, "summary"): fine-tune, score and ensemble summarisers of Korean dialogues."""

import logging
import os
import sys
import warnings

# TRL tells the Hugging Face Hub which trainer is used where; whoever trains with yoyak did not agree to that.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# Threads of PyTorch that wait for one another would spin, and take the cores that others need: beside one busy process,
# on two cores, a summary took three times as long. PyTorch reads it as it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Bars of libraries, drawn over themselves, are garbage in a log. tqdm reads it as it is imported.
if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_DISABLE", "1")
# Said at each load, and nothing that a user can mend: kernels of the hub that are not needed, names that change.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=FutureWarning, message=".*gradient_checkpointing.*")
