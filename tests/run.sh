#!/usr/bin/env bash
# The one test command: lints, types, every test, the notebooks. A fresh clone needs Rust and Python >= 3.11, nothing else.
#
#   REGRAFT_VENV      the virtual environment to make or reuse   (default: .venv-test)
#   CARGO_TARGET_DIR  where Rust compiles                        (default: target)
#   REGRAFT_PYTHON    the Python to make the environment with    (default: the first that is new enough)
#   REGRAFT_SAMPLE_DATA  the real sample files                   (default: ../shared/data)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=${REGRAFT_VENV:-$PWD/.venv-test}
python=$venv/bin/python
started=$SECONDS

# step HEADING COMMAND...: runs the command, says how long it took, stops everything where it fails.
step() {
  local heading=$1 begun=$SECONDS status=0
  shift
  printf '\n==> %s\n' "$heading"
  "$@" || status=$?
  printf -- '--- %s: %s after %d s\n' "$heading" "$([ "$status" = 0 ] && echo ok || echo FAILED)" "$((SECONDS - begun))"
  return "$status"
}

environment() {
  local candidate
  if [ ! -x "$python" ]; then
    for candidate in ${REGRAFT_PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
      if "$candidate" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        "$candidate" -m venv "$venv"
        break
      fi
    done
    [ -x "$python" ] || { echo "error: no Python >= 3.11 with venv found; name one in REGRAFT_PYTHON" >&2; return 1; }
  fi
  # pip builds the wheel in place, in the same target directory as cargo below: dependencies are compiled once.
  "$python" -m pip install --quiet --disable-pip-version-check '.[test]'
}

# clippy-driver is the compiler with lints: as a wrapper it lints while it builds, where `cargo clippy` would compile
# every dependency a second time. The tests that it builds are the tests that run.
linted() {
  RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS="-Dwarnings__CLIPPY_HACKERY__" "$@"
}

# The bindings are compiled by maturin only; here they are linted. `-C opt-level=0` because the result is thrown away.
bindings() {
  PYO3_PYTHON=$python linted cargo rustc --release --locked --lib --features python --crate-type rlib -- -C opt-level=0
}

step "cargo fmt" cargo fmt --check
step "wheel and test environment" environment
step "clippy: core and tests" linted cargo test --release --locked --no-run
step "clippy: bindings" bindings
# The tests of S3 start servers that are installed beside this Python.
export REGRAFT_TEST_PYTHON=$python
step "cargo test" linted cargo test --release --locked
step "ruff check" "$python" -m ruff check
step "ruff format" "$python" -m ruff format --check
step "mypy --strict" "$python" -m mypy --strict python/regraft
step "mypy.stubtest" "$python" -m mypy.stubtest regraft._core
step "notebooks" "$python" -m pytest --nbmake notebooks
step "pytest" "$python" -m pytest tests/python -m "not spark"
step "pytest: Spark" "$python" -m pytest tests/python -m spark
printf '\nall of it passed after %d s\n' "$((SECONDS - started))"
