# Three machines out of namespaces, in which a real Slurm runs: `head` (slurmctld), `w1` and `w2` (slurmd as
# dynamic nodes without configuration), on a bridge of their own.
#
# Usage, in fresh mount, network, IPC and process namespaces: sh bed.sh DIRECTORY ROOT WOW-PBS
# ROOT holds Debian with Slurm and is only read. When standard input ends, everything does: this shell is
# process 1 of its namespace. It says `ready` when both workers have joined.
set -eu
bed=$1
root=$2
program=$3
machines="head w1 w2"

mount --make-rprivate /
mount -t tmpfs -o mode=755 bed "$bed"
mkdir "$bed/home" "$bed/key" "$bed/up"
ip link set lo up
ip link add hub type bridge
ip link set hub up

head -c 1024 /dev/urandom >"$bed/key/slurm.key"
for person in alice:1000 bob:1001; do
    mkdir -m 755 "$bed/home/${person%:*}"
    chown "${person#*:}:${person#*:}" "$bed/home/${person%:*}"
done

prepare() {
    mkdir "$bed/$1" "$bed/up/$1" "$bed/up/$1/upper" "$bed/up/$1/work"
    mount -t overlay -o "lowerdir=$root,upperdir=$bed/up/$1/upper,workdir=$bed/up/$1/work" overlay "$bed/$1"
    mount --bind "$bed/home" "$bed/$1/home"
    mount --rbind /dev "$bed/$1/dev"
    mount -t tmpfs -o mode=1777 tmp "$bed/$1/tmp"
    printf '127.0.0.1 localhost\n10.0.0.1 head\n10.0.0.2 w1\n10.0.0.3 w2\n' >"$bed/$1/etc/hosts"
    : >"$bed/$1/etc/resolv.conf"
    echo Etc/UTC >"$bed/$1/etc/timezone"
    for person in alice:1000 bob:1001; do
        id=${person#*:}
        echo "${person%:*}:x:$id:$id::/home/${person%:*}:/bin/bash" >>"$bed/$1/etc/passwd"
        echo "${person%:*}:x:$id:" >>"$bed/$1/etc/group"
    done
    cp "$program" "$bed/$1/usr/local/bin/wow-pbs"
    for name in qsub qstat qdel qhold qrls qalter qsig qselect qmove qrerun pbsnodes tracejob; do
        ln -s wow-pbs "$bed/$1/usr/local/bin/$name"
    done
    rm -rf "$bed/$1/etc/slurm"
    mkdir -p "$bed/$1/etc/slurm" "$bed/$1/var/lib/slurm" "$bed/$1/var/lib/slurmd" "$bed/$1/run"
    cp "$bed/key/slurm.key" "$bed/$1/etc/slurm/slurm.key"
    chmod 600 "$bed/$1/etc/slurm/slurm.key"
    chroot "$bed/$1" chown slurm:slurm /etc/slurm/slurm.key /var/lib/slurm
}

# Waits a little, but not for ever.
later() {
    tries=$((tries + 1))
    [ "$tries" -lt 1000 ]
    sleep 0.02
}

# The machine's process 1 waits, so that it reaps what Slurm leaves to it.
boot() {
    unshare --net --uts --mount --pid --fork --kill-child sh -c '
        mount -t proc proc "$1/$2/proc"
        hostname "$2"
        exec chroot "$1/$2" sh -c "sleep infinity & wait"
    ' sh "$bed" "$1" &
    shell=$!
    tries=0
    until inner=$(cat "/proc/$shell/task/$shell/children") && [ -n "$inner" ]; do later; done
    inner=${inner% }
    # It is up when it is in the machine's own tree.
    until [ "/proc/$inner/root/etc/hosts" -ef "$bed/$1/etc/hosts" ]; do later; done
    echo "$inner" >"$bed/$1.pid"
    ip link add "to-$1" type veth peer name eth0 netns "$inner"
    ip link set "to-$1" master hub up
    # By this machine's ip: the tree has none.
    nsenter --target "$inner" --net -- sh -c '
        ip link set lo up
        ip address add "$1" dev eth0
        ip link set eth0 up
    ' sh "10.0.0.$2/24"
}

on() {
    machine=$1
    shift
    nsenter --target "$(cat "$bed/$machine.pid")" --all --root --wd -- "$@"
}

for machine in $machines; do prepare "$machine"; done
cat >"$bed/head/etc/slurm/slurm.conf" <<'END'
ClusterName=wow
SlurmctldHost=head
AuthType=auth/slurm
CredType=cred/slurm
SlurmctldParameters=enable_configless
SlurmUser=slurm
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MaxNodeCount=64
TreeWidth=65000
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
LaunchParameters=use_interactive_step
PriorityType=priority/basic
JobCompType=jobcomp/filetxt
JobCompLoc=/var/lib/slurm/jobcomp.log
KillWait=3
MailProg=/usr/local/bin/record-mail
StateSaveLocation=/var/lib/slurm
SlurmctldLogFile=/var/log/slurmctld.log
SlurmdLogFile=/var/log/slurmd.log
SlurmdSpoolDir=/var/lib/slurmd
# The test's workers have more processors on paper than the machine under them.
SlurmdParameters=config_overrides
# Tests wait for the scheduler: it looks at every event and every other second.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=100000,bf_interval=1
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE
PartitionName=short Nodes=ALL MaxTime=10
PartitionName=closed Nodes=ALL State=DOWN
PartitionName=shut Nodes=ALL State=INACTIVE
END
echo CgroupPlugin=disabled >"$bed/head/etc/slurm/cgroup.conf"
cat >"$bed/head/usr/local/bin/record-mail" <<'END'
#!/bin/sh
echo "$@" >>/tmp/mail
END
chmod 755 "$bed/head/usr/local/bin/record-mail"

address=1
for machine in $machines; do
    boot "$machine" "$address"
    address=$((address + 1))
done
on head slurmctld
# One after the other: Slurm lists nodes in the order in which they came.
joined=0
for machine in w1 w2; do
    on "$machine" slurmd -Z --conf-server head:6817 --conf 'CPUs=4 RealMemory=4000'
    joined=$((joined + 1))
    tries=0
    until [ "$(on head sinfo --noheader --Node --partition batch --states idle 2>/dev/null | wc -l)" = "$joined" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 300 ]; then
            tail -n 20 "$bed"/*/var/log/slurm*.log >&2
            exit 1
        fi
        sleep 0.1
    done
done
echo ready
cat >/dev/null
