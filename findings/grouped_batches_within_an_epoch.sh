#!/usr/bin/env bash
# A transformers Trainer that goes on from a checkpoint within an epoch skips the batches that were done, and sees the
# rows that were left: but not with train_sampling_strategy="group_by_length". Its sampler draws from PyTorch's global
# generator at the epoch's start, whose state then the checkpoint does not hold. In place of the rows that were left it
# sees others: some of the epoch a second time, and others not at all. Nothing is said. Checkpoints between epochs, and
# the random strategy, are not concerned.
# Seen: transformers 5.23.0, accelerate 1.15.0, torch 2.13.0: 16 rows, two a batch, two epochs, a checkpoint after 12 of
# 16 steps.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
cat > "$folder/measure.py" <<'PYTHON'
import sys

import accelerate
import torch
import transformers
from transformers import Trainer, TrainingArguments, set_seed

ROWS, BATCH, KEPT = 16, 2, 12


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return ROWS

    def __getitem__(self, row):
        if row >= ROWS:
            raise IndexError(row)
        return {"input_ids": [row] * (1 + row % 3), "row": row}


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(())), []

    def forward(self, rows):
        self.seen += rows.tolist()
        return {"loss": (self.weight - rows.float().mean()) ** 2}


def seen(folder, strategy, checkpoint=None):
    set_seed(1)
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=2,
        per_device_train_batch_size=BATCH,
        train_sampling_strategy=strategy,
        save_strategy="steps",
        save_steps=KEPT,
        logging_strategy="no",
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=1,
    )
    model = Model()
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Rows(),
        data_collator=lambda batch: {"rows": torch.tensor([row["row"] for row in batch])},
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    return model.seen


same = {}
for strategy in ("random", "group_by_length"):
    folder = f"{sys.argv[1]}/{strategy}"
    left = seen(folder, strategy)[KEPT * BATCH :]
    after = seen(folder, strategy, f"{folder}/checkpoint-{KEPT}")
    same[strategy] = left == after
    print(f"{strategy}: rows left after step {KEPT}: {sorted(left)}; rows that a run from there sees: {sorted(after)}")
print(f"transformers {transformers.__version__}, accelerate {accelerate.__version__}, torch {torch.__version__}")
sys.exit(0 if same["random"] and not same["group_by_length"] else "no longer so")
PYTHON
"$folder/venv/bin/python" "$folder/measure.py" "$folder" 2>/dev/null
