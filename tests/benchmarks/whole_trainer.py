"""The script that `whole.py` compares a run with: fine-tuning by transformers' Trainer, as its users write it.

The best of what its options offer for this task: bfloat16, texts of like length together, the fused AdamW (its
default), larger batches where there is no gradient; evaluation and a checkpoint each epoch, the best one kept for the
test. Nothing of zoo is imported. Arguments: a folder with train.jsonl, validation.jsonl and test.jsonl (`text` and
`label` in each line) and recipe.json, then a folder for what it writes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)


def accuracy(predicted: EvalPrediction) -> dict[str, float]:
    """Share of right answers."""
    return {"accuracy": float((predicted.predictions.argmax(1) == predicted.label_ids).mean())}


def main(data: Path, out: Path) -> None:
    """Fine-tune, evaluate each epoch, and write the test answers of the best one."""
    recipe = json.loads((data / "recipe.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(recipe["checkpoint"])

    def read(split: str) -> list[dict[str, object]]:
        rows = [json.loads(line) for line in (data / f"{split}.jsonl").read_text().splitlines()]
        texts = tokenizer([row["text"] for row in rows], truncation=True, max_length=recipe["max_length"])
        return [
            {"input_ids": ids, "attention_mask": mask, "labels": row["label"]}
            for ids, mask, row in zip(texts["input_ids"], texts["attention_mask"], rows, strict=True)
        ]

    train, validation, test = read("train"), read("validation"), read("test")
    options = TrainingArguments(
        str(out),
        seed=recipe["seed"],
        use_cpu=recipe["device"] == "cpu",
        bf16=recipe["bf16"],
        num_train_epochs=recipe["epochs"],
        max_steps=recipe["steps"],
        per_device_train_batch_size=recipe["batch_size"],
        per_device_eval_batch_size=2 * recipe["batch_size"],
        train_sampling_strategy="group_by_length",
        learning_rate=recipe["learning_rate"],
        weight_decay=recipe["weight_decay"],
        warmup_steps=recipe["warmup"],
        max_grad_norm=recipe["clip"],
        eval_strategy="epoch",
        save_strategy="epoch",
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=recipe["device"] != "cpu",
    )
    trainer = Trainer(
        AutoModelForSequenceClassification.from_pretrained(recipe["checkpoint"]),
        options,
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        compute_metrics=accuracy,
    )
    trainer.train()
    answers = trainer.predict(test)
    np.save(out / "test.npy", answers.predictions)
    print(json.dumps(answers.metrics))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
