#!/usr/bin/env bash
# Sets up .venv-feast: Feast, Redis' client and this package, pinned by constraints-feast.txt (Feast needs pandas 2).
#
#   tools/feast_env.sh         does nothing when it is up to date; uv when there is one, otherwise pip
#   tools/feast_env.sh lock    pins everything anew (needs uv)
#
# UV= does without uv; PYTHON=/path/to/python3.12 chooses the Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
env=.venv-feast
py=$env/bin/python
ready=$env/.ready
uv=${UV-$(uv --version >/dev/null 2>&1 && command -v uv || true)}

if [ "${1-}" = lock ]; then
    # Without a floor for numba the resolver takes one that no longer builds.
    echo 'pytest>=8' | "${uv:-uv}" pip compile setup.py - --extra feast --constraint <(echo 'numba>=0.60') --universal \
        --python-version 3.11 --upgrade --no-header --no-annotate --quiet --output-file constraints-feast.txt
    exit
elif [ $# -gt 0 ]; then
    echo "usage: tools/feast_env.sh [lock]" >&2
    exit 2
fi

fresh() {
    local made_from
    [ -e "$ready" ] && [ -x "$py" ] || return 1
    for made_from in settings.ini setup.py constraints-feast.txt; do
        [ "$made_from" -nt "$ready" ] && return 1
    done
    return 0
}
if fresh; then exit 0; fi

new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
python=
for candidate in ${PYTHON:-.venv/bin/python python3 python3.13 python3.12 python3.11}; do
    if "$candidate" -c "$new_enough" 2>/dev/null; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
    echo "lensnb needs Python 3.11 or newer, and found none; name one: PYTHON=/path/to/python3.12 tools/feast_env.sh" >&2
    exit 1
fi
if [ -d "$env" ] && ! "$py" -c "$new_enough" 2>/dev/null; then rm -rf "$env"; fi
rm -f "$ready"
echo "Setting up $env with $([ -n "$uv" ] && echo uv || echo pip) ($("$python" --version)), once; this takes a minute or more."
if [ -n "$uv" ]; then
    [ -x "$py" ] || "$uv" venv --quiet --allow-existing --python "$(command -v "$python")" "$env"
    "$uv" pip install --python "$py" --constraint constraints-feast.txt --editable '.[feast]' 'pytest>=8'
else
    { [ -x "$py" ] && "$py" -m pip --version >/dev/null 2>&1; } || "$python" -m venv "$env"
    "$py" -m pip install --disable-pip-version-check --constraint constraints-feast.txt --editable '.[feast]' 'pytest>=8'
fi
if ! "$py" -c 'import feast, redis, lensnb' >/dev/null; then
    echo "Feast is not in $env: does settings.ini name feast_requirements, and setup.py the extra?" >&2
    exit 1
fi
touch "$ready"     # last: an interrupted set-up is repeated, a complete one is not
