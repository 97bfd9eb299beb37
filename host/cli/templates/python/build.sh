#!/bin/sh
# Makes build/{{name}}.wasm. Without componentize-py, it is installed into .venv first.
set -eu
version=0.25.1

tool=.venv/bin/componentize-py
if [ ! -x $tool ]; then
    if [ "$(componentize-py --version 2>/dev/null)" = "componentize-py $version" ]; then
        tool=componentize-py
    else
        python3 -m venv .venv
        .venv/bin/pip install --quiet componentize-py==$version
    fi
fi
mkdir -p build
# Bytecode would lie beside the sources, and look like a change of them.
export PYTHONDONTWRITEBYTECODE=1
$tool -d wit -w {{world}} componentize app -o build/{{name}}.wasm
