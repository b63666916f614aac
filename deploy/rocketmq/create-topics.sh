#!/bin/sh
# Creates topics and waits until the name server knows them. Runs in the RocketMQ image; doing it again does no harm.
#
#   sh create-topics.sh telemetry meter-readings:FIFO:1
#
# An argument is NAME, NAME:TYPE or NAME:TYPE:QUEUES; TYPE is NORMAL (the default), FIFO, DELAY or TRANSACTION.
# MQADMIN is the command to use, NAMESRV_ADDR the name server, CLUSTER the cluster, DEADLINE the seconds for everything.
set -u
mqadmin=${MQADMIN:-sh mqadmin}
namesrv=${NAMESRV_ADDR:-127.0.0.1:9876}
cluster=${CLUSTER:-DefaultCluster}
deadline=$(($(date +%s) + ${DEADLINE:-180}))

for wanted in "$@"; do
    old_ifs=$IFS IFS=:
    # shellcheck disable=SC2086 # the colons separate
    set -- $wanted
    IFS=$old_ifs
    name=$1 type=${2:-NORMAL} queues=${3:-8}
    # mqadmin's exit code is 0 when it fails as well: only a route that is there tells. Until the broker has registered
    # both commands fail.
    while :; do
        said=$($mqadmin updateTopic -n "$namesrv" -c "$cluster" -t "$name" -r "$queues" -w "$queues" \
            -a "+message.type=$type" 2>&1)
        route=$($mqadmin topicRoute -n "$namesrv" -t "$name" 2>&1)
        case $route in
            *queueDatas*) echo "$name: $type, $queues queues" && break ;;
        esac
        if [ "$(date +%s)" -ge "$deadline" ]; then
            printf '%s could not be created:\n%s\n%s\n' "$name" "$said" "$route" >&2
            exit 1
        fi
        sleep 2
    done
done
