"""errors.py: hints, and errors that cross from a worker process."""

from __future__ import annotations

import pickle
import traceback

import pytest

from audiosr_cli.errors import AudioSRError, InputError, ModelChoiceError, ModelError, UsageError


@pytest.mark.parametrize(
    "error", [InputError("a.wav: is empty"), ModelChoiceError("no model 'x'", "did you mean 'y'?")]
)
def test_errors_arrive_from_a_worker_with_their_hint(error: AudioSRError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.hint, copy.exit_code) == (type(error), str(error), error.hint, error.exit_code)


def test_a_hint_is_not_part_of_the_message_but_of_the_traceback() -> None:
    error = UsageError("--rate 48: too low", "did you mean 48k?")
    assert str(error) == "--rate 48: too low"
    assert traceback.format_exception(error)[-1] == "hint: did you mean 48k?\n"


def test_a_wrong_choice_of_a_model_is_an_error_of_usage_and_of_the_model() -> None:
    assert issubclass(ModelChoiceError, ModelError)
    assert issubclass(ModelChoiceError, UsageError)
    assert (ModelChoiceError("x").exit_code, ModelError("x").exit_code) == (2, 1)
