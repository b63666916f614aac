#!/bin/sh
# Creates topics and consumer groups and waits until RocketMQ has them. Doing it again does no harm.
# Runs in the RocketMQ image:
#
#   CONSUMER_GROUPS="billing alarms" sh create-topics.sh telemetry meter-readings:FIFO:1
#
# An argument is NAME, NAME:TYPE or NAME:TYPE:QUEUES; TYPE is NORMAL (the default), FIFO, DELAY or TRANSACTION.
# MQADMIN is the command to use, NAMESRV_ADDR the name server, CLUSTER the cluster, DEADLINE the seconds for everything.
set -u
mqadmin=${MQADMIN:-sh mqadmin}
namesrv=${NAMESRV_ADDR:-127.0.0.1:9876}
cluster=${CLUSTER:-DefaultCluster}
deadline=$(($(date +%s) + ${DEADLINE:-300}))

# until_seen WHAT SIGN SHOW MAKE: runs MAKE and then SHOW until that prints SIGN. mqadmin's exit code is 0 when it
# fails as well: only what is there afterwards tells. Until the broker has registered, both fail.
until_seen() {
    what=$1 sign=$2 show=$3 make=$4
    while :; do
        # shellcheck disable=SC2086 # words of a command
        said=$($mqadmin $make 2>&1)
        # shellcheck disable=SC2086
        shown=$($mqadmin $show 2>&1)
        case $shown in
            *"$sign"*) break ;;
        esac
        if [ "$(date +%s)" -ge "$deadline" ]; then
            printf '%s could not be created:\n%s\n%s\n' "$what" "$said" "$shown" >&2
            exit 1
        fi
        sleep 2
    done
    echo "$what"
}

for wanted in "$@"; do
    old_ifs=$IFS IFS=:
    # shellcheck disable=SC2086 # the colons separate
    set -- $wanted
    IFS=$old_ifs
    name=$1 type=${2:-NORMAL} queues=${3:-8}
    until_seen "topic $name: $type, $queues queues" queueDatas "topicRoute -n $namesrv -t $name" \
        "updateTopic -n $namesrv -c $cluster -t $name -r $queues -w $queues -a +message.type=$type"
done

for group in ${CONSUMER_GROUPS:-}; do
    until_seen "group $group" "groupName" "getConsumerConfig -n $namesrv -g $group" \
        "updateSubGroup -n $namesrv -c $cluster -g $group"
done
