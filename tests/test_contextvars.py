"""Context variables that belong to greenlets alone."""

from __future__ import annotations

import contextvars as standard
from typing import Any

import pytest

import bridge
from bridge import contextvars
from bridge.contextvars import Context, ContextVar, Token, copy_context


def test_a_variable_is_set_and_reset() -> None:
    var: ContextVar[int] = ContextVar("var", default=0)
    assert (var.name, var.get(), var.get(5)) == ("var", 0, 5)
    first = var.set(1)
    second = var.set(2)
    assert (first.old_value, second.old_value) == (Token.MISSING, 1)
    assert second.var is var and var.get(5) == 2
    var.reset(second)
    assert var.get() == 1
    var.reset(first)
    assert var.get() == 0
    with pytest.raises(RuntimeError, match="already been used"):
        var.reset(first)
    with var.set(3):
        assert var.get() == 3
    assert var.get() == 0


def test_without_a_value_or_default() -> None:
    var: ContextVar[int] = ContextVar("var")
    with pytest.raises(LookupError):
        var.get()
    assert var.get(None) is None
    assert repr(var).startswith("<ContextVar name='var' at")


def test_greenlets_do_not_see_each_other_s_values() -> None:
    var: ContextVar[str] = ContextVar("var", default="none")
    var.set("main")

    def work(value: str) -> tuple[str, str]:
        before = var.get()
        var.set(value)
        bridge.sleep(0)
        return before, var.get()

    greenlets = [bridge.spawn(work, value) for value in "ab"]
    assert [g.get() for g in greenlets] == [("none", "a"), ("none", "b")]
    assert var.get() == "main"


def test_a_context_keeps_what_is_set_in_it() -> None:
    var: ContextVar[int] = ContextVar("var")
    context = Context()

    def work(value: int) -> int:
        var.set(value)
        return var.get()

    assert context.run(work, 1) == 1
    assert context[var] == 1 and var in context and list(context) == [var]
    assert var.get(None) is None
    copy = context.copy()
    assert copy.run(work, 2) == 2
    assert (context[var], copy[var]) == (1, 2)
    assert dict(context.items()) == {var: 1} and len(Context()) == 0
    assert context.run(copy_context)[var] == 1


def test_a_context_is_entered_by_one_at_a_time() -> None:
    context = Context()

    def enter() -> None:
        with pytest.raises(RuntimeError, match="already entered"):
            context.run(int)
        bridge.sleep(0)

    g = bridge.spawn(context.run, enter)
    bridge.sleep(0)
    with pytest.raises(RuntimeError, match="already entered"):
        context.run(int)
    g.get()
    assert context.run(int) == 0

    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        context.run(fail)
    assert context.run(int) == 0


def test_tokens_belong_to_a_variable_and_a_context() -> None:
    var: ContextVar[int] = ContextVar("var")
    other: ContextVar[int] = ContextVar("other")
    token = var.set(1)
    with pytest.raises(ValueError, match="different ContextVar"):
        other.reset(token)
    with pytest.raises(ValueError, match="different Context"):
        copy_context().run(var.reset, token)
    with pytest.raises(TypeError):
        var.reset(1)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        Token()
    var.reset(token)
    assert " used" in repr(token)


@pytest.mark.parametrize("cls", [Context, ContextVar, Token])
def test_nobody_derives_from_the_classes(cls: Any) -> None:
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Derived", (cls,), {})


def test_only_variables_are_keys() -> None:
    for use in (Context().__getitem__, Context().__contains__):
        with pytest.raises(TypeError, match="ContextVar key"):
            use("name")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a str"):
        ContextVar(1)  # type: ignore[arg-type]


def test_the_names_are_those_of_the_standard_module() -> None:
    assert set(contextvars.__all__) == {"Context", "ContextVar", "Token", "copy_context"}
    assert sorted(contextvars.__implements__) == sorted(contextvars.__all__)
    assert all(getattr(contextvars, n) is not getattr(standard, n) for n in contextvars.__all__)
