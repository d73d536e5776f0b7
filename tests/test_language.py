"""American spelling, and none of the phrases that readers stumbled over, in every file that people read."""

import pathlib
import re

import rfn_jax

ROOT = pathlib.Path(rfn_jax.__file__).parents[1]
SUFFIXES = {'.py', '.md', '.sh', '.toml', '.jinja'}
BRITISH = re.compile(
    r'analys(e|ed|es|ing)\b|behaviour|cancelled|cent(re|red|ring)\b|colour|favour|grey|honour|judgement|labelled|learnt|licence'
    r'|modelling|neighbour|programme\b|whilst'
    r'|(factor|general|initial|material|maxim|minim|normal|parametr|penal|quant|random|recogn|regular|serial|standard|summar|'
    r'synchron|vector)is(e|ed|er|ers|es|ing|ation|ations)\b|optimis(e|ed|er|ers|es|ing|ation|ations)\b',
    re.IGNORECASE,
)
# The name of a random draw: with another one, every network would start from other variables.
KEPT = "'initialise"
PHRASES = (
    'is in no format of', ', if None, may be', 'the first stops the second', 'that grew in one group has grown',
    'which may have been compiled before, without them', 'are left alone by it', 'scaled up else', 'ones are told',
    'is no work directory so far', 'is there already', 'at_the_top', '_tell_accuracy', ' _grown(',
)  # fmt: skip


def test_spelling_and_phrases():
    folders = ('rfn_jax', 'configs', 'docs', 'launch', 'tests', 'colab', 'examples')
    paths = [*ROOT.glob('*'), *(path for folder in folders for path in (ROOT / folder).rglob('*'))]
    problems, read = [], 0
    for path in sorted(path for path in paths if path.suffix in SUFFIXES and path != pathlib.Path(__file__)):
        read += 1
        for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
            british = BRITISH.search(line)
            found = [british.group()] if british and KEPT not in line else []
            found += [phrase for phrase in PHRASES if phrase in line]
            problems += [f'{path.relative_to(ROOT)}:{number}: {text!r}' for text in found]
    assert not problems, 'British spelling, or hard to read:\n' + '\n'.join(problems)
    assert read > 300
