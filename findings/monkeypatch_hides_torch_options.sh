#!/usr/bin/env bash
# pytest 9.2's monkeypatch.setattr takes an object's own attributes from its __dict__, and at the test's end deletes what it
# did not find there. PyTorch's modules of options, torch._dynamo.config and torch._inductor.config, keep their values
# elsewhere: after a test that has set one of them so, the option does not exist any more, and whatever reads it, torch.compile
# itself, fails in the tests that follow. The modules' own `patch(option=value)` puts the value back.
# Seen: pytest 9.2.0, torch 2.13.0 (CPU).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 pytest==9.2.0
cat > "$folder/test_options.py" <<'PYTHON'
import pytest
import torch
import torch._inductor.config

OPTIONS = {"specialize_float": torch._dynamo.config, "max_autotune": torch._inductor.config}


@pytest.mark.parametrize("name", OPTIONS)
def test_its_own_way_puts_it_back(name):
    before = getattr(OPTIONS[name], name)
    with OPTIONS[name].patch(**{name: not before}):
        assert getattr(OPTIONS[name], name) is not before
    assert getattr(OPTIONS[name], name) is before


@pytest.mark.parametrize("name", OPTIONS)
def test_set(name, monkeypatch):
    monkeypatch.setattr(OPTIONS[name], name, True)
    assert getattr(OPTIONS[name], name) is True


@pytest.mark.parametrize("name", OPTIONS)
def test_that_follows(name):
    with pytest.raises(AttributeError, match="does not exist"):
        getattr(OPTIONS[name], name)


def test_compiling_that_follows():
    with pytest.raises(AttributeError, match="specialize_float does not exist"):
        torch.compile(lambda value: value + 1, backend="eager")(torch.ones(2))
PYTHON
"$folder/venv/bin/python" -m pytest -q -p no:cacheprovider "$folder/test_options.py" || { echo "no longer so"; exit 1; }
echo "pytest 9.2.0: an option of torch 2.13.0 that monkeypatch.setattr has set does not exist in the tests that follow"
