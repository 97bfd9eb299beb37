#!/usr/bin/env bash
# README's two commands on a machine that never saw the project: a minimal Debian 12 in a folder, with
# what README asks for and nothing else, as a user who is not root.
#
#   sudo tests/fresh-machine.sh FOLDER [make target ...]
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
    inside su newcomer -s /bin/bash -c \
        "cd $user; export HOME=$user PATH=$user/.cargo/bin:\$PATH LANG=C.UTF-8; $1"
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

for target in "$@"; do
    step "make $target"
    case $target in
    run) run ;;
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
