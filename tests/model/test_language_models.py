"""Saving and loading a model with the output map of its language model: whole folders for transformers, equal here."""

import copy
import json
import pickle

import pytest
import torch
import transformers as t
from language_models import EACH, V, batch, causal, masked, theirs
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pemeta import Adapter, CausalLM, Compose, Full, HeadOnly, LoRA, MaskedLM, PEModel
from pemeta.backbone.loading import load_backbone
from pemeta.errors import ModelError
from pemeta.model.model_files import theta_p_digest
from pemeta.utils.hub import quiet

FEW = [("llama", True), ("llama", False), ("gemma2", True), ("gpt-neox", False), ("gpt2", False)]


def moved(model):
    """A model whose θ_p and θ_a are not what they were."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.add_(noise.to(parameter.dtype), alpha=0.1)
    return model.eval()


def saved(folder, whole, method=None):
    model = PEModel(whole, method or Adapter(bottleneck=2))
    model.add_head("text", CausalLM(vocab_size=V))
    moved(model).save_pretrained(folder)
    model.save_task(folder / "tasks" / "text", "text")
    return model


def names_in(folder):
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return set(file.keys())


@pytest.mark.parametrize(("name", "tied"), FEW)
def test_a_folder_is_that_of_the_whole_language_model(tmp_path, name, tied):
    whole = causal(name, tied)
    whole.generation_config.max_new_tokens = 7
    with quiet():
        whole.save_pretrained(tmp_path / "theirs")
    model = saved(tmp_path / "ours", whole)
    expected, tmp_path = names_in(tmp_path / "theirs"), tmp_path / "ours"
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [type(whole).__name__]
    assert names_in(tmp_path) == expected  # a tied one once
    with quiet():
        again = t.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert again.generation_config.max_new_tokens == 7
    given = batch()
    back = PEModel.from_pretrained(tmp_path, attention="eager").eval()
    back.load_task(tmp_path / "tasks" / "text")
    assert torch.equal(back(given, "text"), model(given, "text"))
    assert theta_p_digest(back) == theta_p_digest(model)
    model.detach(model.method)
    inputs = {key: value for key, value in given.items() if key != "labels"}
    assert torch.equal(again(**inputs).logits, model(given, "text"))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, again.get_parameter(theirs(model, name)))


@pytest.mark.long
@pytest.mark.parametrize(("name", "tied"), EACH)
def test_so_is_every_other(tmp_path, name, tied):
    test_a_folder_is_that_of_the_whole_language_model(tmp_path, name, tied)


def test_half_precision_and_another_dtype(tmp_path):
    model = saved(tmp_path, causal("gemma2", False, torch.bfloat16), LoRA(rank=2))
    given = batch()
    back = PEModel.from_pretrained(tmp_path, attention="eager").eval()
    assert back.get_parameter("output.lm_head.weight").dtype == torch.bfloat16
    back.load_task(tmp_path / "tasks" / "text")
    assert torch.equal(back(given, "text"), model(given, "text"))
    wide = PEModel.from_pretrained(tmp_path, attention="eager", dtype=torch.float32)
    assert wide.get_parameter("output.lm_head.weight").dtype == torch.float32
    wide.load_task(tmp_path / "tasks" / "text")  # of the same θ_p


def test_a_matrix_of_its_own_is_kept_where_the_configuration_says_that_it_is_tied(tmp_path):
    """transformers unties the two when it finds both in a folder, and leaves the configuration as it is."""
    whole = causal("llama", True)
    with quiet():
        whole.save_pretrained(tmp_path / "one")
    values = load_file(tmp_path / "one" / "model.safetensors")
    values["lm_head.weight"] = values["model.embed_tokens.weight"] + 1
    save_file(values, tmp_path / "one" / "model.safetensors", metadata={"format": "pt"})
    model = PEModel.from_pretrained(tmp_path / "one", HeadOnly(), output="causal_lm", attention="eager").eval()
    model.add_head("text", CausalLM())
    assert "output.lm_head.weight" in model.partition().theta_p
    model.save_pretrained(tmp_path / "two")
    back = PEModel.from_pretrained(tmp_path / "two", attention="eager").eval()
    back.add_head("text", CausalLM())
    assert torch.equal(back(batch(), "text"), model(batch(), "text"))
    with quiet():
        again = t.AutoModelForCausalLM.from_pretrained(tmp_path / "two", attn_implementation="eager").eval()
    assert torch.equal(again(input_ids=batch()["input_ids"]).logits, model(batch(), "text"))


def test_copies_have_their_own(tmp_path):
    model = PEModel(causal("gemma2", True), LoRA(rank=2)).eval()
    model.add_head("text", CausalLM())
    expected = model(batch(), "text")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(batch(), "text"), expected)
        with torch.no_grad():
            other.backbone.embed_tokens.weight.mul_(2)
        assert not torch.equal(other(batch(), "text"), expected)
        assert torch.equal(model(batch(), "text"), expected)


def test_the_language_model_itself_stays_whole(tmp_path):
    whole = causal("gpt2", False)
    expected = whole(**batch()).logits
    model = PEModel(whole, Adapter(bottleneck=2))
    assert torch.equal(whole(**batch()).logits, expected)
    model.add_head("text", CausalLM())
    with torch.no_grad():
        model.get_parameter("output.lm_head.weight").mul_(2)
    torch.testing.assert_close(whole(**batch()).logits, 2 * expected)
    around = model.output.around(model.backbone)
    torch.testing.assert_close(around(**batch()).logits, 2 * expected)
    assert type(around) is type(whole)


def test_tasks_on_a_base_elsewhere_get_the_whole_language_model(tmp_path):
    """A folder with tasks only, as of unprimed runs, whose base is a plain folder."""
    from pemeta.model.model_files import describe_model
    from pemeta.utils.files import write_json

    with quiet():
        causal("llama", False).save_pretrained(tmp_path / "base")
    model = PEModel.from_pretrained(tmp_path / "base", LoRA(rank=2), output="causal_lm", attention="eager")
    model.add_head("text", CausalLM())
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "pemeta.json", describe_model(model, str(tmp_path / "base")).model_dump(mode="json"))
    model.save_task(tmp_path / "run" / "tasks" / "text", "text")
    back = PEModel.from_pretrained(tmp_path / "run", attention="eager")
    back.load_task(tmp_path / "run" / "tasks" / "text")
    assert torch.equal(back.eval()(batch(), "text"), model.eval()(batch(), "text"))


@pytest.mark.parametrize(
    "method", [Full(), Compose(methods=[Adapter(bottleneck=2), Full()])], ids=["alone", "composed"]
)
def test_full_fine_tuning_stores_the_output_matrix_too(tmp_path, method):
    model = saved(tmp_path, causal("llama", False), method)
    assert model.partition().theta_p == ()
    assert "output.lm_head.weight" in model.stored_names("text")
    with torch.no_grad():
        model.get_parameter("output.lm_head.weight").mul_(2)
    model.save_task(tmp_path / "tasks" / "text", "text")
    back = PEModel.from_pretrained(tmp_path, attention="eager").eval()
    back.load_task(tmp_path / "tasks" / "text")
    assert torch.equal(back(batch(), "text"), model(batch(), "text"))


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_an_embedding_that_was_resized_without_its_output_matrix_is_refused(tmp_path, name):
    """It would be saved with two sizes, of which a folder's configuration has one, and nothing could load it."""
    whole = causal(name, False)
    with quiet():
        whole.resize_token_embeddings(V + 3)
    model = saved(tmp_path / "whole", whole, LoRA(rank=2))
    back = PEModel.from_pretrained(tmp_path / "whole", attention="eager").eval()
    back.load_task(tmp_path / "whole" / "tasks" / "text")
    assert torch.equal(back(batch(), "text"), model(batch(), "text"))
    with quiet():
        model.backbone.resize_token_embeddings(V + 5)
    expected = rf"was resized to {V + 5} rows, but the output matrix of its \w+ForCausalLM has {V + 3}; resize"
    with pytest.raises(ModelError, match=expected):
        model.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match=expected):
        model.add_head("more", CausalLM())
    tied = PEModel(causal(name, True), LoRA(rank=2))
    with quiet():
        tied.backbone.resize_token_embeddings(V + 5)
    tied.add_head("more", CausalLM())
    tied.save_pretrained(tmp_path / "tied")
    assert PEModel.from_pretrained(tmp_path / "tied").output.classes(tied.backbone) == V + 5


def test_a_task_may_store_nothing_at_all(tmp_path):
    model = saved(tmp_path, causal("gpt2", True), HeadOnly())
    assert model.stored_names("text") == ()
    back = PEModel.from_pretrained(tmp_path, attention="eager").eval()
    back.load_task(tmp_path / "tasks" / "text")
    assert torch.equal(back(batch(), "text"), model(batch(), "text"))


def test_what_is_loaded_of_a_folder(tmp_path):
    with quiet():
        masked("bert").save_pretrained(tmp_path / "masked")
        masked("bert").base_model.save_pretrained(tmp_path / "bare")
        causal("llama", False).base_model.save_pretrained(tmp_path / "decoder")
    assert type(load_backbone(tmp_path / "masked")).__name__ == "BertModel"
    assert type(load_backbone(tmp_path / "masked", output="masked_lm")).__name__ == "BertForMaskedLM"
    bare = load_backbone(tmp_path / "bare", output="masked_lm")
    assert type(bare).__name__ == "BertModel"  # not a head of random values
    model = PEModel(bare, HeadOnly())
    model.add_head("text", MaskedLM())
    assert model.head_spec("text") == MaskedLM()
    model.save_pretrained(tmp_path / "saved")
    model.save_task(tmp_path / "saved" / "tasks" / "text", "text")
    back = PEModel.from_pretrained(tmp_path / "saved")
    back.load_task(tmp_path / "saved" / "tasks" / "text")
    torch.testing.assert_close(back.eval()(batch(), "text"), model.eval()(batch(), "text"))
    for folder, says in (
        ("decoder", r"own there \(lm_head.weight\)"),
        ("bare", "sees the tokens that a causal language"),
    ):
        model = PEModel(load_backbone(tmp_path / folder, output="causal_lm"), HeadOnly())
        assert model.output is None  # not one of random values
        with pytest.raises(ModelError, match=says):
            model.add_head("text", CausalLM())


def test_a_masked_language_model_is_saved_whole(tmp_path):
    model = PEModel(masked("bert"), LoRA(rank=2))
    model.add_head("text", MaskedLM())
    moved(model).save_pretrained(tmp_path)
    back = PEModel.from_pretrained(tmp_path, attention="eager").eval()
    back.load_state(model.state(model.partition().theta_a))
    back.add_head("text", MaskedLM())
    assert torch.equal(back(batch(), "text"), model(batch(), "text"))
    model.detach(model.method)
    with quiet():
        again = t.AutoModelForMaskedLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    inputs = {key: value for key, value in batch().items() if key != "labels"}
    assert torch.equal(again(**inputs).logits, model(batch(), "text"))
