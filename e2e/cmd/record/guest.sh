#!/bin/busybox sh
# What the guest runs in place of a test; its console carries the recording out.
export PATH=/bin
cd /work/testdata && chmod 755 ./* || exit
shift $# # the flags of a test
. ./arguments
./record "$@" -bin /work/testdata -o /tmp/recording && sed 's/^/KG-RECORDING /' /tmp/recording
