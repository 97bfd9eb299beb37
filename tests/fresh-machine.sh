#!/usr/bin/env bash
# README's two commands on a machine that never saw the project: a minimal Debian 12 in a folder, with
# what README asks for and nothing else, as a user who is not root.
#
#   sudo tests/fresh-machine.sh FOLDER [make target ...]
#
# 'authors' is no target: it takes the binary that WHARF_BINARY names (linked statically, or made for Debian 12),
# and goes from nothing to a first answer in each language, as the book says, and prints the seconds.
#
# FOLDER must not exist yet; it takes some 15 GB, and stays for a look around. Without further arguments
# it runs 'make run' and 'make test'. It needs debootstrap and git, the network, and a rustup with the
# toolchain of rust-toolchain.toml, which is copied. It takes about an hour on two cores, so .ci/run does
# not run it.
set -euo pipefail
here=$(realpath "$(dirname "$0")/..")
[ $# -ge 1 ] || { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo 'run it as root: it makes a Debian in a folder and enters it' >&2; exit 2; }
[ ! -e "$1" ] || { echo "$1 exists already: name a folder that does not" >&2; exit 2; }

# Mounts end with this process.
if [ -z "${FRESH_MACHINE:-}" ]; then
    exec env FRESH_MACHINE=1 unshare --mount "$0" "$@"
fi

rustup=${RUSTUP_HOME:-$HOME/.rustup}
cargo=${CARGO_HOME:-$HOME/.cargo}
mkdir -p "$1"
machine=$(realpath "$1")
shift
[ $# -gt 0 ] || set -- run test
user=/srv/newcomer

step() { printf '== %s (%s s)\n' "$1" "$SECONDS"; }

step 'a minimal Debian 12'
debootstrap --variant=minbase --include=ca-certificates bookworm "$machine" >/dev/null
cp /etc/resolv.conf "$machine/etc/resolv.conf"
# Debian's installer writes this, and debootstrap does not.
printf '127.0.0.1 localhost\n::1 localhost\n' >"$machine/etc/hosts"
# Behind a proxy, a machine has authorities of its own.
if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
    cp /usr/local/share/ca-certificates/*.crt "$machine/usr/local/share/ca-certificates/"
    chroot "$machine" update-ca-certificates >/dev/null 2>&1
fi
mount -t proc proc "$machine/proc"
mount --bind /dev "$machine/dev"

inside() { chroot "$machine" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"; }
newcomer() {
    # Node.js has authorities of its own, and not those of the system.
    inside env NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt su newcomer -s /bin/bash -c \
        "cd $user; export HOME=$user PATH=$user/.cargo/bin:/usr/local/bin:\$PATH LANG=C.UTF-8; $1"
}

step 'what README asks for: git, make, a C compiler'
inside apt-get update -qq
inside env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends git make gcc libc6-dev >/dev/null 2>&1

step 'and rustup, with the toolchain and without the target for plugins'
inside useradd --create-home --home-dir "$user" newcomer
toolchain=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$here/rust-toolchain.toml")
mkdir -p "$machine$user/.rustup/toolchains" "$machine$user/.cargo"
cp -r "$rustup/toolchains/$toolchain-"* "$machine$user/.rustup/toolchains/"
cp "$rustup/settings.toml" "$machine$user/.rustup/"
cp -r "$cargo/bin" "$machine$user/.cargo/bin"
git clone --quiet --no-hardlinks "$here" "$machine$user/wharf"
inside chown -R newcomer: "$user"
newcomer 'cd wharf && rustup target remove wasm32-wasip2' >/dev/null 2>&1 || true

run() {
    # It serves until somebody ends it, as a user would: by Ctrl-C, once the first call is answered.
    newcomer "cd wharf && setsid --wait sh -c 'echo \$\$ >../make.pid; exec make run'" \
        >"$machine/run.log" 2>&1 &
    local make=$!
    until grep -q 'In another terminal' "$machine/run.log"; do
        kill -0 "$make" 2>/dev/null || { tail -40 "$machine/run.log" >&2; return 1; }
        [ "$SECONDS" -lt 5400 ] || { echo 'make run took too long' >&2; return 1; }
        sleep 5
    done
    sed -n '/A first call/,/In another/p' "$machine/run.log"
    newcomer 'cd wharf && target/debug/wharf services'
    # Whichever store it is told, this binary knows it: nothing was left out of the build.
    newcomer 'cd wharf && timeout 5 target/debug/wharf registry --listen 127.0.0.1:0 \
        --store etcd://127.0.0.1:1 2>&1 | grep -m1 "etcd cannot be read"'
    kill -INT -- "-$(cat "$machine$user/make.pid")"
    wait "$make" || true
}

# What a chapter of the book asks for, and its first commands.
author() {
    local language=$1 packages=$2 first=$3
    local start=$SECONDS
    # shellcheck disable=SC2086 # several words
    [ -z "$packages" ] || inside env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $packages >/dev/null 2>&1
    local installed=$SECONDS
    [ -z "$first" ] || newcomer "$first" >/dev/null 2>&1
    newcomer "wharf new hello-$language --lang $language && cd hello-$language && wharf test" \
        >"$machine/$language.log" 2>&1 || { tail -40 "$machine/$language.log" >&2; return 1; }
    local tested=$SECONDS
    newcomer "cd hello-$language && setsid --wait sh -c 'echo \$\$ >../dev.pid; exec wharf dev'" \
        >>"$machine/$language.log" 2>&1 &
    local dev=$! answer=
    until answer=$(newcomer "wharf call hello-$language.greet Ada" 2>/dev/null); do
        kill -0 "$dev" 2>/dev/null || { tail -40 "$machine/$language.log" >&2; return 1; }
        [ $((SECONDS - start)) -lt 1800 ] || { echo "$language took too long" >&2; return 1; }
        sleep 1
    done
    echo "$language: $answer installing $((installed - start)) s, to a passed test $((tested - installed)) s, to an answer of wharf dev $((SECONDS - tested)) s"
    kill -INT -- "-$(cat "$machine$user/dev.pid")"
    wait "$dev" || true
}

authors() {
    install -m 755 "${WHARF_BINARY:?name the binary in WHARF_BINARY}" "$machine/usr/bin/wharf"
    author rust '' 'rustup target add wasm32-wasip2'
    author c 'make clang lld wasi-libc' ''
    author python 'python3 python3-venv' ''
    # Debian 12 has Node.js 18, and componentize-js needs 20: this machine's, which its author would fetch.
    cp "$(realpath "$(command -v node)")" "$machine/usr/local/bin/node"
    mkdir -p "$machine/usr/local/lib/node_modules"
    cp -r "$(dirname "$(dirname "$(realpath "$(command -v npm)")")")" "$machine/usr/local/lib/node_modules/npm"
    ln -s ../lib/node_modules/npm/bin/npm-cli.js "$machine/usr/local/bin/npm"
    author js libstdc++6 ''
}

for target in "$@"; do
    step "make $target"
    case $target in
    run) run ;;
    authors) authors ;;
    *)
        if ! newcomer "cd wharf && make $target" >"$machine/$target.log" 2>&1; then
            tail -60 "$machine/$target.log" >&2
            exit 1
        fi
        grep -E '^test result|skipped' "$machine/$target.log" || true
        ;;
    esac
done
step 'done'
