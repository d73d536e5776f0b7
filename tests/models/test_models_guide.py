import pathlib
import re

import pytest

import rfn_jax


@pytest.mark.slow
def test_the_code_of_the_guide_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guide = (pathlib.Path(rfn_jax.__file__).parent / 'models' / 'README.md').read_text()
    (code,) = re.findall(r'```python\n(.*?)```', guide, re.DOTALL)
    exec(code, {})
    layers, features = "('conv1', 'bn1', 'relu1', 'layer1_0')", '(2, 16, 16, 32) pytorch_cifar (16, 16, 3, 3)'
    assert capsys.readouterr().out.splitlines() == [layers, features]
