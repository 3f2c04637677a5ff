# Machines out of namespaces, on a bridge that stands for the internet: each with a Debian tree, `wow`,
# `wow-workstation` and sshd of its own, and its ticket.
#
# Usage, in fresh mount, network, IPC and process namespaces: sh bed.sh DIRECTORY ROOT WOW AGENT PBS TICKETS
# ROOT holds Debian and is only read. TICKETS holds NAME.ticket for each machine, and NAME.role for those
# that are told one. Reads commands, a line each (`boot NAME`, `kill NAME`), and says `done` or `failed`
# after each. When standard input ends, everything does: this shell is process 1 of its namespace.
set -u
bed=$1
root=$2
wow=$3
agent=$4
pbs=$5
tickets=$6
machines="head w1 w2 login r"

mount --make-rprivate /
mount -t tmpfs -o mode=755 bed "$bed"
# /home is shared by these means instead of NFS, which containers seldom have.
mkdir "$bed/home" "$bed/up"
ip link set lo up
ip link add hub type bridge
ip link set hub up

prepare() {
    mkdir "$bed/$1" "$bed/up/$1" "$bed/up/$1/upper" "$bed/up/$1/work"
    mount -t overlay -o "lowerdir=$root,upperdir=$bed/up/$1/upper,workdir=$bed/up/$1/work" overlay "$bed/$1"
    mount --bind "$bed/home" "$bed/$1/home"
    mount --rbind /dev "$bed/$1/dev"
    # Messages for its console are read here.
    mkdir -p "$bed/$1/var/lib/wow"
    printf '127.0.0.1 localhost\n127.0.1.1 debian\n' >"$bed/$1/etc/hosts"
    : >"$bed/$1/etc/resolv.conf"
    echo Etc/UTC >"$bed/$1/etc/timezone"
    rm -f "$bed/$1"/etc/ssh/ssh_host_* "$bed/$1/etc/munge/munge.key"
    cp "$wow" "$bed/$1/usr/local/bin/wow"
    cp "$agent" "$bed/$1/usr/local/bin/wow-workstation"
    cp "$pbs" "$bed/$1/usr/local/bin/wow-pbs"
    for name in qsub qstat qdel pbsnodes; do ln -s wow-pbs "$bed/$1/usr/local/bin/$name"; done
    cp "$tickets/$1.ticket" "$bed/$1/etc/wow.ticket"
    chmod 600 "$bed/$1/etc/wow.ticket"
    role=
    if [ -e "$tickets/$1.role" ]; then role="--role $(cat "$tickets/$1.role")"; fi
    cat >"$bed/$1/etc/start" <<END
mkdir -p /run/sshd /run/slurm /run/wow
wow run --ticket /etc/wow.ticket --name $1 $role --listen 0.0.0.0:4001 --no-lan --no-port-mapping >>/var/log/wow.log 2>&1 &
# Without systemd nobody else starts it once it has a key.
{ until /usr/sbin/sshd -E /var/log/sshd.log; do sleep 0.2; done; } &
wow-workstation --no-nfs --forget 40s >>/var/log/agent.log 2>&1 &
echo \$! >/run/agent.pid
wait
sleep infinity & wait
END
}

# Waits a little, but not for ever.
later() {
    tries=$((tries + 1))
    [ "$tries" -lt 1000 ] || return 1
    sleep 0.02
}

boot() {
    number=0
    for name in $machines; do
        number=$((number + 1))
        [ "$name" != "$1" ] || break
    done
    ip link delete "to-$1" 2>/dev/null
    unshare --net --uts --ipc --mount --pid --fork --kill-child sh -c '
        mount -t proc proc "$1/$2/proc"
        # Where OpenMPI counts processors.
        mount -t sysfs sys "$1/$2/sys"
        mount -t tmpfs -o mode=1777 tmp "$1/$2/tmp"
        mount -t tmpfs -o mode=755 run "$1/$2/run"
        mount -t tmpfs -o mode=1777 shm "$1/$2/dev/shm"
        hostname debian
        # Until it has its network.
        while ! [ -e "$1/$2/run/go" ]; do sleep 0.02; done
        exec chroot "$1/$2" sh /etc/start
    ' sh "$bed" "$1" &
    shell=$!
    tries=0
    until inner=$(cat "/proc/$shell/task/$shell/children" 2>/dev/null) && [ -n "$inner" ]; do later || return 1; done
    inner=${inner% }
    tries=0
    until nsenter --target "$inner" --mount -- mountpoint -q "$bed/$1/dev/shm"; do later || return 1; done
    ip link add "to-$1" type veth peer name eth0 netns "$inner" &&
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

for machine in $machines; do prepare "$machine" || exit 1; done
echo "alice:x:1000:1000::/home/alice:/bin/bash" >>"$bed/head/etc/passwd"
echo "alice:x:1000:" >>"$bed/head/etc/group"
echo "alice:*:20000:0:99999:7:::" >>"$bed/head/etc/shadow"
mkdir -m 755 "$bed/home/alice"
chown 1000:1000 "$bed/home/alice"
echo ready
while read -r verb machine; do
    said=done
    case $verb in
        boot) boot "$machine" ;;
        kill) kill_machine "$machine" ;;
        *) false ;;
    esac || said=failed
    echo "$said"
done
