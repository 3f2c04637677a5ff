# What `cargo xtask deploy` does on a host: POSIX shell, run by a login without a terminal.
#
# Before this text stand its variables: action, version, bundle_bytes, ticket_bytes, options_bytes, options
# (new, or keep for those that the host has), guest, join_seconds. Standard input goes on behind it with the
# ticket and the options, and with the bundle once this side says `send`. What it says are lines that begin with
# "wow-deploy "; anything else is somebody's greeting.
set -u
umask 077
# Work that has begun is brought to its end when the connection breaks.
trap '' PIPE HUP

say() { printf 'wow-deploy %s\n' "$*" 2>/dev/null; }
fail() {
    versions
    say "fail $*"
    exit 1
}
end() {
    versions
    say "done $1"
    exit 0
}
# Runs a command; what it complains of is what the failure says.
must() {
    what=$1
    shift
    complaint=$("$@" 2>&1 >/dev/null) || fail "$what: $(printf '%s' "$complaint" | tail -n 1)"
}
# The next bytes of standard input. Larger blocks would swallow what follows.
take() { dd bs=1 count="$1" 2>/dev/null; }
has() { command -v "$1" >/dev/null 2>&1; }

root=
if [ "$(id -u)" -eq 0 ]; then root=yes; fi
if [ -n "$root" ] && [ -d /run/systemd/system ]; then
    manager=systemd
    base=/opt/wow
    socket=/run/wow/control.sock
else
    manager=script
    base=$HOME/.wow
    socket=$base/run/control.sock
fi
unit=/etc/systemd/system/wow.service
mark='# Written by `cargo xtask deploy`.'
say "fact manager $manager"

# What a link in the base names: a version, or nothing.
version_of() {
    target=$(readlink "$base/$1") || return 0
    basename "$target"
}
versions() {
    say "fact version $(version_of current)"
    say "fact previous $(version_of previous)"
}
# Leads a link to a version, in one step where mv knows how.
link() {
    must "cannot write to $base" ln -sfn "versions/$2" "$base/.$1"
    mv -fT "$base/.$1" "$base/$1" 2>/dev/null || { rm -f "$base/$1" && mv -f "$base/.$1" "$base/$1"; }
}

start() {
    case $manager in
        systemd) must "systemd does not start wow.service" systemctl restart wow.service ;;
        script) must "the start script failed" env WOW_HOME="$base" "$base/current/wow-node" start 9>&- ;;
    esac
}
stop() {
    case $manager in
        systemd) systemctl stop wow.service 2>/dev/null ;;
        script) if [ -e "$base/current/wow-node" ]; then WOW_HOME="$base" "$base/current/wow-node" stop; fi ;;
    esac
}
# Whether somebody starts the node again when it ends. Systemd always does.
kept_alive() { [ "$manager" = systemd ] || WOW_HOME="$base" "$base/current/wow-node" alive; }
runs() { [ -S "$socket" ] && "$base/current/wow" --socket "$socket" status >/dev/null 2>&1; }

# Waits until the node has joined; says its status. Otherwise `why` tells what keeps it.
joined() {
    tries=0
    why=
    until runs; do
        tries=$((tries + 1))
        if [ "$tries" -ge $((join_seconds * 5)) ]; then
            why="the node does not run; its log ends with: $(last_words)"
            return 1
        fi
        sleep 0.2 2>/dev/null || sleep 1
    done
    complaint=$base/.complaint
    if answer=$("$base/current/wow" --socket "$socket" wait --timeout "${join_seconds}s" --json 2>"$complaint"); then
        rm -f "$complaint"
        say "status $(printf '%s' "$answer" | tr '\n' ' ')"
        return 0
    fi
    why="not in its pool after $join_seconds s: $(tr '\n' ' ' <"$complaint")"
    rm -f "$complaint"
    return 1
}
# What is said after them must still fit.
last_words() {
    case $manager in
        systemd) journalctl --unit wow.service --lines 3 --output cat 2>/dev/null ;;
        script) tail -n 3 "$base/log" 2>/dev/null ;;
    esac | tail -c 800 | tr '\n' ' '
}

# Has the node started at boot; says how.
at_boot() {
    case $manager in
        systemd)
            must "cannot write $unit" cp "$base/current/wow.service" "$unit"
            must "cannot write $unit" chmod 644 "$unit"
            must "systemd does not read its units" systemctl daemon-reload
            must "systemd does not enable wow.service" systemctl enable wow.service
            say "fact boot systemd"
            ;;
        script)
            entry="@reboot \"$base/current/wow-node\" start # wow-deploy"
            if has crontab && crons && add_job "$entry" 2>/dev/null; then
                say "fact boot cron"
            else
                say "fact boot none"
            fi
            ;;
    esac
}
# Whether a cron runs here.
crons() { cat /proc/[0-9]*/comm 2>/dev/null | grep -qxE 'cron|crond'; }
add_job() {
    crontab -l 2>/dev/null | grep -qxF "$1" || { other_jobs; printf '%s\n' "$1"; } | crontab -
}
other_jobs() { crontab -l 2>/dev/null | grep -v '# wow-deploy$'; }

# Keeps a file that comes next on standard input, with a line of our own behind it; `news` tells whether it is
# another than before. Name, bytes, line.
receive() {
    whole=$(($2 + ${#3}))
    if ! { take "$2" && printf '%s' "$3"; } >"$base/.$1" || [ "$(wc -c <"$base/.$1")" -ne "$whole" ]; then
        rm -f "$base/.$1"
        fail "cannot write to $base: the disk is full, perhaps"
    fi
    if cmp -s "$base/.$1" "$base/$1"; then
        rm -f "$base/.$1"
    else
        if [ -e "$base/$1" ]; then must "cannot write to $base" cp "$base/$1" "$base/.$1.before"; fi
        must "cannot write to $base" mv -f "$base/.$1" "$base/$1"
        news=yes
    fi
}
# Puts back what `receive` replaced.
restore() {
    for file in ticket node.toml; do
        if [ -e "$base/.$file.before" ]; then mv -f "$base/.$file.before" "$base/$file"; fi
    done
}

# What a line of df says, if there is no room: tar does not always.
full() { if [ "${4:-0}" -lt 1024 ]; then echo '; the disk is full'; fi; }

# Unpacks the bundle beside the others: whole, or not at all.
unpack() {
    if [ -x "$base/versions/$version/wow" ]; then return 0; fi
    new=$base/versions/.new
    rm -rf "$new"
    must "cannot write to $base" mkdir -p "$new"
    say send
    complaint=$({ head -c "$bundle_bytes" | tar -xzf - -C "$new"; } 2>&1) ||
        {
            room=$(df -Pk "$base" | tail -n 1)
            rm -rf "$new"
            fail "cannot unpack the bundle into $base: $(printf '%s' "$complaint" | head -n 1)$(full $room)"
        }
    directory=$new/wow-$version
    if has sha256sum && ! (cd "$directory" && sha256sum -c SHA256SUMS) >/dev/null 2>&1; then
        rm -rf "$new"
        fail "the bundle was damaged on its way to $base: the disk is full, perhaps"
    fi
    if ! complaint=$("$directory/wow" --version 2>&1 >/dev/null); then
        rm -rf "$new"
        fail "this host ($(uname -sm)) does not run the program: $(printf '%s' "$complaint" | tail -n 1)"
    fi
    must "cannot write to $base" mv "$directory" "$base/versions/$version"
    rm -rf "$new"
}

# Forgets versions that nothing leads to.
prune() {
    current=$(version_of current)
    previous=$(version_of previous)
    for kept in "$base"/versions/*; do
        case ${kept##*/} in
            "$current" | "$previous") ;;
            *) rm -rf "$kept" ;;
        esac
    done
}

alone() {
    if has flock; then
        exec 9>"$base/lock" || fail "cannot write to $base"
        flock -n 9 || fail "somebody else deploys to this host at this moment"
    fi
}

deploy() {
    case $(uname -sm) in
        'Linux x86_64') ;;
        *) fail "the bundle is for Linux on x86_64, and this host is $(uname -sm)" ;;
    esac
    if [ "$manager" = systemd ] && [ -e "$unit" ] && ! grep -qF "$mark" "$unit"; then
        fail "there is a wow.service that was not deployed: remove $unit, or log in as another user"
    fi
    has tar && has gzip || fail "tar and gzip are missing here"
    must "cannot make $base" mkdir -p "$base/versions" "$base/state"
    alone
    rm -f "$base"/.*.before
    news=
    if [ "$ticket_bytes" -gt 0 ]; then
        receive ticket "$ticket_bytes" ''
    elif ! [ -e "$base/ticket" ]; then
        fail "there is no ticket on this host: give --ticket"
    fi
    if [ "$guest" = auto ]; then
        if [ -n "$root" ] && [ -c /dev/net/tun ]; then guest=tun; else guest=none; fi
    fi
    if [ "$options" = new ] || ! [ -e "$base/node.toml" ]; then
        receive node.toml "$options_bytes" "guest = \"$guest\""
    fi
    unpack
    before=$(version_of current)
    if [ "$before" = "$version" ] && [ -z "$news" ] && kept_alive && runs && joined; then
        at_boot
        end unchanged
    fi
    say "step starting"
    stop
    link current "$version"
    at_boot
    start
    if joined; then
        if [ -n "$before" ] && [ "$before" != "$version" ]; then link previous "$before"; fi
        rm -f "$base"/.*.before
        prune
        case $before in
            '') end installed ;;
            "$version") end restarted ;;
            *) end upgraded ;;
        esac
    fi
    if [ -z "$before" ] || [ "$before$news" = "$version" ]; then fail "$why"; fi
    failure=$why
    say "step going back"
    stop
    link current "$before"
    restore
    at_boot
    start
    if joined; then
        fail "$failure; the node runs as it did before, with $before"
    fi
    fail "$failure; nor does it join as it did before, with $before: $why"
}

rollback() {
    before=$(version_of current)
    target=$(version_of previous)
    if [ -z "$target" ]; then fail "there is no version to go back to"; fi
    alone
    stop
    link current "$target"
    link previous "$before"
    at_boot
    start
    joined || fail "$why"
    end rolled-back
}

status() {
    if [ -z "$(version_of current)" ]; then
        end absent
    elif ! runs; then
        say "fact log $(last_words)"
        end stopped
    fi
    joined || fail "$why"
    end joined
}

remove() {
    if ! [ -e "$base" ]; then end absent; fi
    alone
    stop
    case $manager in
        systemd)
            if grep -qsF "$mark" "$unit"; then
                systemctl disable wow.service >/dev/null 2>&1
                rm -f "$unit"
                systemctl daemon-reload
            fi
            ;;
        script)
            if has crontab && crontab -l 2>/dev/null | grep -q '# wow-deploy$'; then
                other_jobs | crontab -
            fi
            ;;
    esac
    must "cannot remove $base" rm -rf "$base"
    end removed
}

"$action"
