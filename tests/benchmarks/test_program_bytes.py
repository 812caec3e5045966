"""Bytes that a program's calls move: of texts counted by hand, and of a program of this machine."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

# 1 KiB is f32[256]. What runs, in the order of the entry's lines:
#   fusion        reads 1 KiB once, though it is named twice, and writes 1 KiB      2048
#   convolution   reads 1 KiB and bf16[64] 128 B, writes 1 KiB; its space is free   2176
#   product       reads 2 · 1 KiB, writes f32[4,4] 64 B                             2112
#   copy          reads and writes 1 KiB; what waits for it moves nothing           2048
#   loop          three times a negation, 2 · 1 KiB                                 6144
#   loop          of an unknown number of turns: once the same                      2048
#   condition     the branch with two negations, not that with one                  4096
#   reduction     reads 1 KiB and pred[256] 256 B, writes 4 B                       1284
TEXT = """HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[256]{0})->f32[]}

%fused (p.0: f32[256]) -> f32[256] {
  %p.0 = f32[256]{0} parameter(0)
  ROOT %sum = f32[256]{0} add(%p.0, %p.0)
}

%body (state: (s32[], f32[256])) -> (s32[], f32[256]) {
  %state = (s32[], f32[256]{0}) parameter(0)
  %n = s32[] get-tuple-element(%state), index=0
  %x = f32[256]{0} get-tuple-element(%state), index=1
  %negated = f32[256]{0} negate(%x)
  ROOT %next = (s32[], f32[256]{0}) tuple(%n, %negated)
}

%test (state.1: (s32[], f32[256])) -> pred[] {
  %state.1 = (s32[], f32[256]{0}) parameter(0)
  ROOT %yes = pred[] constant(true)
}

%one (x.1: f32[256]) -> f32[256] {
  %x.1 = f32[256]{0} parameter(0)
  ROOT %once = f32[256]{0} negate(%x.1)
}

%two (x.2: f32[256]) -> f32[256] {
  %x.2 = f32[256]{0} parameter(0)
  %first = f32[256]{0} negate(%x.2)
  ROOT %second = f32[256]{0} negate(%first)
}

ENTRY %main (a: f32[256], k: bf16[64], mask: pred[256]) -> f32[] {
  %a = f32[256]{0} parameter(0), metadata={op_name="a = f(x)"}
  %k = bf16[64]{0} parameter(1)
  %mask = pred[256]{0} parameter(2)
  %c = s32[] constant(0)
  %fusion.1 = f32[256]{0} fusion(%a, %a), kind=kLoop, calls=%fused
  %view = f32[16,16]{1,0} bitcast(%fusion.1)
  %conv = (f32[256]{0}, /*index=1*/u8[4096]{0}) custom-call(%fusion.1, %k), window={size=3x3}, custom_call_target="__cudnn$convForward"
  %out = f32[256]{0} get-tuple-element(%conv), index=0
  %gemm = (f32[4,4]{1,0}, s8[33554432]{0}) custom-call(%out, %view), custom_call_target="__cublas$lt$matmul", metadata={op_name="(dot"}
  %copy-start = (f32[256]{0}, f32[256]{0}, u32[]) copy-start(%out)
  %copy-done = f32[256]{0} copy-done(%copy-start)
  %begin = (s32[], f32[256]{0}) tuple(%c, %copy-done)
  %loop = (s32[], f32[256]{0}) while(%begin), condition=%test, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %loop.1 = (s32[], f32[256]{0}) while(%loop), condition=%test, body=%body
  %z = f32[256]{0} get-tuple-element(%loop.1), index=1
  %chosen = f32[256]{0} conditional(%c, %z, %z), branch_computations={%one, %two}
  ROOT %least = f32[] reduce(%chosen, %mask), dimensions={0}, to_apply=%fused
}
"""  # noqa: E501


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """`benchmarks` lies beside the package, it is not installed."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))


def test_bytes_of_a_text_counted_by_hand():
    from benchmarks import program_bytes

    assert dict(program_bytes.by_kind(TEXT)) == {
        "fusions": 2048,
        "convolutions": 2176,
        "products": 2112,
        "copies": 2048,
        "others": 6144 + 2048 + 4096 + 1284,
    }
    times = [(call.instruction.name, call.times) for call in program_bytes.calls(TEXT)]
    assert times[0] == ("%fusion.1", 1)
    assert times[4:] == [
        ("%negated", 3), ("%negated", 1), ("%first", 1), ("%second", 1), ("%least", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ("f32[2,4]{1,0}", 32),
        ("(f32[2,4]{1,0}, /*index=1*/bf16[32]{0:T(128)})", 96),
        ("pred[]", 1),
        ("f8e4m3fn[3,5]{1,0}", 15),
        ("c64[2]{0}", 16),
        ("f32[0,7]{1,0}", 0),
        ("token[]", 0),
    ],
)
def test_sizes_of_types(types, expected):
    from benchmarks import program_bytes

    assert program_bytes.size(types) == expected


def test_a_compiled_program_reads_its_arguments_and_writes_its_results():
    from benchmarks import program_bytes

    # One loop over the numbers, whatever is computed on the way: 4 KB in, 4 KB out.
    program = jax.jit(lambda x: jnp.tanh(2 * x) + 1).lower(jnp.zeros(1000)).compile()
    assert program_bytes.total(program_bytes.calls(program.as_text())) == 8000
