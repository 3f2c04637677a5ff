# Hosts with OpenSSH out of namespaces, on a bridge that stands for the internet, and a pool's seed beside them.
#
# Usage, in fresh mount, network, IPC and process namespaces: sh bed.sh DIRECTORY ROOT WOW SECRETS CGROUP HOST…
# ROOT holds Debian and is only read. CGROUP names a control group for hosts that want one. SECRETS holds lab.ticket and the public key `login.pub`; known_hosts is
# written there. A host NAME has the address 192.0.2.N, N counting from 11, and what it is follows from its name:
# `root…` is for root, at port 2222; `unit…` is for root too and runs systemd; `noisy…` greets; `cron…` has cron; `full…` has no room at home; `mute…` says
# its banner and no more. All others are slivers: an ordinary user `slice`. Reads commands, a line each (`boot`,
# `kill`, `heal` with a NAME), and says `done` or `failed` after each. When standard input ends, everything does:
# this shell is process 1 of its namespace.
set -u
bed=$1
root=$2
wow=$3
secrets=$4
cgroup=$5
shift 5
hosts=$*

mount --make-rprivate /
mount -t tmpfs -o mode=755 bed "$bed"
mkdir "$bed/up"
ip link set lo up
ip link add hub type bridge
ip address add 192.0.2.1/24 dev hub
ip link set hub up

number_of() {
    number=10
    for name in $hosts; do
        number=$((number + 1))
        if [ "$name" = "$1" ]; then break; fi
    done
}

# Devices for an init, which does as it likes with them.
own_devices() {
    mount -t tmpfs -o mode=755 dev "$1"
    for device in null zero full random urandom tty; do
        : >"$1/$device"
        mount --bind "/dev/$device" "$1/$device"
    done
    mkdir "$1/net" "$1/pts"
    : >"$1/net/tun"
    mount --bind /dev/net/tun "$1/net/tun"
    mount -t devpts -o newinstance,ptmxmode=666 devpts "$1/pts"
    ln -s pts/ptmx "$1/ptmx"
}

prepare() {
    number_of "$1"
    here=$bed/$1
    mkdir "$here" "$bed/up/$1" "$bed/up/$1/upper" "$bed/up/$1/work"
    mount -t overlay -o "lowerdir=$root,upperdir=$bed/up/$1/upper,workdir=$bed/up/$1/work" overlay "$here"
    printf '127.0.0.1 localhost %s\n' "$1" >"$here/etc/hosts"
    : >"$here/etc/resolv.conf"
    rm -f "$here"/etc/ssh/ssh_host_*
    : >"$here/etc/machine-id"
    echo 'slice:x:1000:1000::/home/slice:/bin/bash' >>"$here/etc/passwd"
    echo 'slice:x:1000:' >>"$here/etc/group"
    echo 'slice:*:20000:0:99999:7:::' >>"$here/etc/shadow"
    mkdir -p "$here/home/slice"
    room=64m
    port=22
    home=$here/home/slice
    extra=
    case $1 in
        full*) room=16k ;;
        root*)
            port=2222
            home=$here/root
            ;;
        unit*) home=$here/root ;;
        cron*) extra=cron ;;
    esac
    case $1 in unit*) own_devices "$here/dev" ;; *) mount --rbind /dev "$here/dev" ;; esac
    if [ "$home" != "$here/root" ]; then mount -t tmpfs -o "mode=755,uid=1000,gid=1000,size=$room" home "$home"; fi
    mkdir -m 700 "$home/.ssh"
    cp "$secrets/login.pub" "$home/.ssh/authorized_keys"
    chmod 600 "$home/.ssh/authorized_keys"
    case $1 in noisy*) echo 'echo "Welcome to $HOSTNAME, wow-deploy done nothing"' >"$home/.bashrc" ;; esac
    if [ "$home" != "$here/root" ]; then chown -R 1000:1000 "$home/.ssh"; fi
    ssh-keygen -q -t ed25519 -N '' -f "$here/etc/ssh/ssh_host_ed25519_key"
    name=192.0.2.$number
    if [ "$port" -ne 22 ]; then name="[$name]:$port"; fi
    echo "$name $(cut -d' ' -f1,2 "$here/etc/ssh/ssh_host_ed25519_key.pub")" >>"$secrets/known_hosts"
    cat >"$here/etc/start" <<END
mkdir -p /run/sshd
chmod 1777 /tmp
$extra
if [ -e /etc/mute ]; then
    exec perl -MSocket -e '
        socket(L, PF_INET, SOCK_STREAM, 0) and setsockopt(L, SOL_SOCKET, SO_REUSEADDR, 1)
            and bind(L, sockaddr_in($port, INADDR_ANY)) and listen(L, 9) or die;
        while (accept(my \$c, L)) { syswrite(\$c, "SSH-2.0-OpenSSH_9.2p1\r\n"); push @all, \$c }'
fi
/usr/sbin/sshd -p $port -E /var/log/sshd.log
exec sleep infinity
END
    case $1 in mute*) : >"$here/etc/mute" ;; esac
}

# Waits a little, but not for ever.
later() {
    tries=$((tries + 1))
    [ "$tries" -lt 1000 ] || return 1
    sleep 0.02
}

boot() {
    number_of "$1"
    ip link delete "to-$1" 2>/dev/null
    own=
    case $1 in unit*)
        own=--cgroup
        mkdir -p "$bed/cgroup"
        mountpoint -q "$bed/cgroup" || mount -t cgroup2 cgroup "$bed/cgroup"
        mkdir -p "$bed/cgroup/$cgroup" || return 1
        ;;
    esac
    sh -c '
        if [ -n "$1" ]; then echo $$ >"$2/cgroup.procs"; fi
        shift 2
        exec "$@"
    ' sh "$own" "$bed/cgroup/$cgroup" unshare $own --net --uts --ipc --mount --pid --fork --kill-child sh -c '
        mount -t proc proc "$1/$2/proc"
        mount -t tmpfs -o mode=1777 tmp "$1/$2/tmp"
        mount -t tmpfs -o mode=755 run "$1/$2/run"
        hostname "$2"
        # Until it has its network.
        while ! [ -e "$1/$2/run/go" ]; do sleep 0.02; done
        case $2 in unit*)
            mount -t sysfs -o ro sys "$1/$2/sys"
            mount -t cgroup2 cgroup "$1/$2/sys/fs/cgroup"
            exec chroot "$1/$2" env -i container=wow /usr/lib/systemd/systemd
            ;;
        esac
        exec chroot "$1/$2" sh /etc/start
    ' sh "$bed" "$1" &
    shell=$!
    tries=0
    until inner=$(cat "/proc/$shell/task/$shell/children" 2>/dev/null) && [ -n "$inner" ]; do later || return 1; done
    inner=${inner% }
    tries=0
    until nsenter --target "$inner" --mount -- mountpoint -q "$bed/$1/run"; do later || return 1; done
    # Its card is the same after each boot: others remember it.
    ip link add "to-$1" type veth peer name eth0 address "02:00:00:00:00:$number" netns "$inner" &&
        ip link set "to-$1" master hub up &&
        nsenter --target "$inner" --net -- sh -c '
            ip link set lo up && ip address add "$1" dev eth0 && ip link set eth0 up
        ' sh "192.0.2.$number/24" || return 1
    nsenter --target "$inner" --mount -- touch "$bed/$1/run/go"
    tries=0
    until [ "/proc/$inner/root/etc/start" -ef "$bed/$1/etc/start" ]; do later || return 1; done
    echo "$inner" >"$bed/$1.pid"
    echo "$shell" >"$bed/$1.shell"
}

# As when the power fails.
kill_machine() {
    kill -9 "$(cat "$bed/$1.pid")"
    wait "$(cat "$bed/$1.shell")"
    rm "$bed/$1.pid"
}

heal() {
    case $1 in
        full*) nsenter --target "$(cat "$bed/$1.pid")" --mount -- mount -o remount,size=64m "$bed/$1/home/slice" ;;
        mute*)
            rm "$bed/$1/etc/mute"
            kill_machine "$1"
            boot "$1"
            ;;
    esac
}

: >"$secrets/known_hosts"
for host in $hosts; do prepare "$host" && boot "$host" || exit 1; done
"$wow" --socket "$bed/seed.sock" run --ticket "$secrets/lab.ticket" --state "$bed/seed" --name seed \
    --guest none --listen 192.0.2.1:4001 --no-lan --no-port-mapping >"$bed/seed.log" 2>&1 &
echo ready
while read -r verb machine; do
    said=done
    case $verb in
        boot) boot "$machine" ;;
        kill) kill_machine "$machine" ;;
        heal) heal "$machine" ;;
        *) false ;;
    esac || said=failed
    echo "$said"
done
