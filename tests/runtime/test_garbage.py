"""Garbage collection: when Python looks, at which objects, and that a training has it as usual."""

import gc
import weakref

import pytest

from deeptrain.runtime.garbage import RARELY, USUALLY, collect_every


class Ring:
    """An object that only a look for garbage frees."""

    def __init__(self):
        self.itself = self


def test_the_time_between_looks_is_set_and_given_back():
    before = gc.get_threshold()
    with pytest.raises(KeyError), collect_every(RARELY):
        assert gc.get_threshold() == (RARELY, *before[1:])
        with collect_every(USUALLY):
            assert gc.get_threshold()[0] == USUALLY
        assert gc.get_threshold()[0] == RARELY
        raise KeyError
    assert gc.get_threshold() == before


def test_old_objects_are_left_out_for_a_while_and_new_ones_are_not():
    old = weakref.ref(Ring())
    with collect_every(RARELY):
        new = weakref.ref(Ring())
        gc.collect()
        assert new() is None and old() is not None
    gc.collect()
    assert old() is None


def test_a_run_is_built_with_rare_looks_and_trains_with_the_usual_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from deeptrain.run import launch
    from deeptrain.training import recovery

    seen = {}

    def note(name, function):
        def noted(*arguments, **options):
            seen[name] = gc.get_threshold()[0]
            return function(*arguments, **options)

        return noted

    monkeypatch.setattr(launch, "build_trainer", note("build", launch.build_trainer))
    monkeypatch.setattr(recovery, "fit", note("fit", recovery.fit))
    words = "data=synthetic data.size=40 model=fcn model.hidden=[4] limit_steps=1 device=cpu threads=1 dir=run"
    assert launch.main([*words.split(), "log.tensorboard=false"]) == 0
    assert seen == {"build": RARELY, "fit": USUALLY}
