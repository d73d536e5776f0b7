import dataclasses
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest

from rfn_jax.report import plots, results


@pytest.fixture
def found(workdir):
    return results.read(workdir.path)


@pytest.fixture
def palette(found):
    return plots.colors(results.trainings(found.summary))


def _by_target(found, palette, name='a'):
    return plots.success_by_target(found.transfer, palette, name=name)


def _by_epoch(found, palette, decay_epochs=(20, 40), name='b'):
    arguments = (found.transfer_validation, found.natural_validation, found.early_stopping)
    return plots.by_epoch(*arguments, decay_epochs, palette, name=name)


@pytest.mark.parametrize('draw', [_by_target, _by_epoch])
def test_plots_are_well_formed_with_unique_ids_and_references_that_stay_inside(found, palette, draw):
    svg = draw(found, palette, name='mine')
    root = ElementTree.fromstring(svg)
    assert root.tag == '{http://www.w3.org/2000/svg}svg'
    assert '<metadata' not in svg
    assert '<!DOCTYPE' not in svg
    ids = [element.get('id') for element in root.iter() if element.get('id')]
    assert len(ids) == len(set(ids))
    assert all(one.startswith('mine-') for one in ids)
    references = {value for element in root.iter() for key, value in element.items() if key.endswith('href')}
    assert references
    assert references <= {f'#{one}' for one in ids}
    clips = {element.get('clip-path') for element in root.iter()}
    assert clips <= {None, *(f'url(#{one})' for one in ids)}


@pytest.mark.parametrize('draw', [_by_target, _by_epoch])
def test_results_and_not_settings_of_the_user_decide(found, palette, draw):
    expected = draw(found, palette)
    assert draw(found, palette) == expected
    with matplotlib.rc_context({'font.size': 30, 'svg.fonttype': 'none', 'figure.facecolor': 'red'}):
        assert draw(found, palette) == expected
        assert matplotlib.rcParams['font.size'] == 30


def test_every_seed_and_every_mean_is_drawn(found, palette):
    def marks(seeds, color='#d55e00'):
        rows = [row for row in found.transfer if row.seed in seeds]
        root = ElementTree.fromstring(plots.success_by_target(rows, palette, name='a'))
        return sum(color in use.get('style', '') for use in root.iter('{http://www.w3.org/2000/svg}use'))

    targets, legend = 4, 1
    assert marks({0}) == targets * (1 + 1) + legend
    assert marks({0, 1, 2}) == targets * (3 + 1) + legend


def test_a_changed_figure_changes_the_plot(found, palette):
    moved = dataclasses.replace(found.transfer[0], success_rate=0.9)
    assert _by_target(found, palette) != _by_target(found._replace(transfer=[moved, *found.transfer[1:]]), palette)
    moved = dataclasses.replace(found.natural_validation[0], accuracy=0.1)
    changed = found._replace(natural_validation=[moved, *found.natural_validation[1:]])
    assert _by_epoch(found, palette) != _by_epoch(changed, palette)


def test_decays_and_the_chosen_epoch_are_marked(found, palette):
    dotted = 'stroke-dasharray: 1.2,1.98'
    assert _by_epoch(found, palette).count(dotted) == 2 * 2 + 1
    assert _by_epoch(found, palette, decay_epochs=()).count(dotted) == 0
    assert '<!-- early_stopped (epoch 22) -->' in _by_epoch(found, palette)
    assert 'early_stopped' not in _by_epoch(found._replace(early_stopping=[]), palette)


def test_the_white_box_is_not_in_the_mean_by_epoch(found, palette):
    black = [row for row in found.transfer_validation if row.kind == 'black-box']
    assert len(black) < len(found.transfer_validation)
    assert _by_epoch(found, palette) == _by_epoch(found._replace(transfer_validation=black), palette)


def test_hostile_names_are_text(found):
    name = '<script>$x^2$</script>--'
    rows = [dataclasses.replace(row, training=name, target=name) for row in found.transfer]
    svg = plots.success_by_target(rows, plots.colors([name]), name='a')
    ElementTree.fromstring(svg)
    assert '<script' not in svg


def test_colors_follow_the_order_and_never_run_out():
    names = [f'training{place}' for place in range(9)]
    palette = plots.colors(names)
    assert palette['training0'] == palette['training7'] == '#0072B2'
    assert len(set(palette.values())) == 7


def test_importing_the_report_does_not_import_matplotlib():
    code = 'import sys, rfn_jax.report; sys.exit("matplotlib" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
